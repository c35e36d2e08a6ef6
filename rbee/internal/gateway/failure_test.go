package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

// aborting breaks off after some bytes, as a worker does that is killed.
func aborting(header http.Header, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
		_, _ = io.WriteString(w, text)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func status(code int, hive string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if hive != "" {
			w.Header().Set("X-Rbee-Error", hive)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "its own words")
	}
}

// Until the first byte another worker is asked, with the same body.
func TestRetry(t *testing.T) {
	t.Parallel()
	events := http.Header{"Content-Type": {"text/event-stream"}}
	for name, test := range map[string]struct {
		first  http.HandlerFunc // nil: nothing listens
		status int              // that the error tells of
	}{
		"not there":          {nil, 0},
		"breaks off at once": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0},
		"breaks off in time": {aborting(http.Header{"Content-Length": {"10"}}, ""), 0},
		"an empty stream":    {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/event-stream") }, 0},
		"a broken stream":    {aborting(events, ""), 0},
		"502":                {status(502, ""), 502},
		"503":                {status(503, ""), 503},
		"504":                {status(504, ""), 504},
		"the hive's 404":     {status(404, "not_found"), 404},
		"the hive's 401":     {status(401, "forbidden"), 401},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := worker(t, "w1", test.first)
			if test.first == nil {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				l.Close()
				first.URL = "http://" + l.Addr().String()
			}
			requests := make(chan got, 1)
			second := worker(t, "w2", catching(requests, func(w http.ResponseWriter) { _, _ = io.WriteString(w, "fine") }))
			f := &fleet{backends: []gateway.Backend{first, second}}
			url, seen := front(t, f, gateway.Options{})
			resp, body := ask(t, "POST", url+"/v1/chat/completions", hello)
			if r := wait(t, requests, "request"); resp.StatusCode != http.StatusOK || body != "fine" || r.body != hello {
				t.Errorf("%s %q for %q", resp.Status, body, r.body)
			}
			if s := seen.next(t); s.Retries != 1 || s.Worker != "w2" || s.Status != 200 {
				t.Errorf("%+v", s)
			}
			done := f.results()
			var failed *gateway.WorkerError
			if len(done) != 2 || !errors.As(done[0], &failed) || done[1] != nil {
				t.Fatalf("given back with %v", done)
			}
			if failed.Worker != "w1" || failed.Hive != "gpu-1" || failed.Status != test.status {
				t.Errorf("%+v", failed)
			}
			if w := f.asked(); len(w[0].Avoid) != 0 || fmt.Sprint(w[1].Avoid) != "[w1]" {
				t.Errorf("%+v", w)
			}
		})
	}
}

// What an engine answers is the client's to see, errors too.
func TestEngineErrors(t *testing.T) {
	t.Parallel()
	for _, code := range []int{400, 401, 404, 429, 500, 501} {
		f := &fleet{backends: []gateway.Backend{worker(t, "w1", status(code, ""))}}
		url, seen := front(t, f, gateway.Options{})
		resp, body := ask(t, "POST", url+"/v1/chat/completions", hello)
		if resp.StatusCode != code || body != "its own words" {
			t.Errorf("%s %q", resp.Status, body)
		}
		if s := seen.next(t); s.Status != code || s.Err != nil || f.results()[0] != nil {
			t.Errorf("%+v, given back with %v", s, f.results())
		}
	}
}

// Three workers are asked, no more.
func TestTries(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]int{502: 502, 503: 503, 504: 504} {
		var list []gateway.Backend
		for i := range 4 {
			list = append(list, worker(t, fmt.Sprint("w", i+1), status(code, "")))
		}
		f := &fleet{backends: list}
		url, seen := front(t, f, gateway.Options{})
		resp, body := ask(t, "POST", url+"/v1/chat/completions", hello)
		e := errorIn(t, body)
		if resp.StatusCode != want || !strings.Contains(e.Message, "worker w3 on hive gpu-1 answered") || e.Type != "server_error" || (resp.Header.Get("Retry-After") == "1") != (want == 503) {
			t.Errorf("%s %v %s", resp.Status, resp.Header, body)
		}
		var failed *gateway.WorkerError
		if s := seen.next(t); s.Retries != 2 || s.Status != want || !errors.As(s.Err, &failed) || len(f.results()) != 3 {
			t.Errorf("%+v", s)
		}
	}

	// Where there is no other, the fleet's word goes.
	url, seen := front(t, &fleet{backends: []gateway.Backend{worker(t, "w1", status(502, ""))}}, gateway.Options{})
	resp, body := ask(t, "POST", url+"/v1/chat/completions", hello)
	if e := errorIn(t, body); resp.StatusCode != http.StatusServiceUnavailable || e.Message != "no other worker" {
		t.Errorf("%s %s", resp.Status, body)
	}
	if s := seen.next(t); !strings.Contains(s.Err.Error(), "no other worker, after worker w1 on hive gpu-1 answered 502 Bad Gateway") {
		t.Errorf("%v", s.Err)
	}
}

// A stream that is cut ends with an error, and nobody else is asked to go on.
func TestCutStream(t *testing.T) {
	t.Parallel()
	events := http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}
	for name, test := range map[string]struct {
		first http.HandlerFunc
		path  string
		whole bool
	}{
		"broken":                   {aborting(events, "data: {\"a\":1}\n\ndata: {"), "/v1/chat/completions", false},
		"broken elsewhere":         {aborting(events, "data: {\"a\":1}\n\n"), "/v1/responses", false},
		"ended early":              {plain(events, "data: {\"a\":1}\n\n"), "/v1/completions", false},
		"ended":                    {plain(events, "data: {\"a\":1}\n\ndata: [DONE]\n\n"), "/v1/chat/completions", true},
		"ended as that API's does": {plain(events, "event: response.completed\ndata: {\"a\":1}\n\n"), "/v1/responses", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fleet{backends: []gateway.Backend{worker(t, "w1", test.first), worker(t, "w2", plain(events, "again"))}}
			url, seen := front(t, f, gateway.Options{})
			resp, body := ask(t, "POST", url+test.path, hello)
			_, event, cut := strings.Cut(body, "\n\ndata: {\"error\"")
			if resp.StatusCode != http.StatusOK || !strings.Contains(body, "data: {\"a\":1}\n\n") || cut == test.whole {
				t.Fatalf("%s %q", resp.Status, body)
			}
			s := seen.next(t)
			if s.Status != 200 || s.Retries != 0 || !s.Stream || (s.Err == nil) != test.whole || (f.results()[0] == nil) != test.whole || len(f.asked()) != 1 {
				t.Errorf("%+v, given back with %v", s, f.results())
			}
			if test.whole {
				return
			}
			if e := errorIn(t, `{"error"`+event); e.Type != "server_error" || *e.Code != "worker_failed" || !strings.HasSuffix(body, "}\n\n") {
				t.Errorf("%q", body)
			}
		})
	}
}

func plain(header http.Header, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
		_, _ = io.WriteString(w, text)
	}
}

// Any other answer that breaks off does so for the client as well.
func TestCutAnswer(t *testing.T) {
	t.Parallel()
	packed := http.Header{"Content-Type": {"text/event-stream"}, "Content-Encoding": {"gzip"}}
	for name, h := range map[string]http.HandlerFunc{
		"with a length":    aborting(http.Header{"Content-Length": {"1000"}}, "half of it"),
		"without":          aborting(nil, "half of it"),
		"a packed stream":  aborting(packed, "half of it"),
		"shorter than 100": plain(http.Header{"Content-Length": {"100"}}, "half of it"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fleet{backends: []gateway.Backend{worker(t, "w1", h)}}
			url, seen := front(t, f, gateway.Options{})
			client := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
			resp, err := client.Post(url+"/v1/audio/speech", "application/json", strings.NewReader(hello))
			if err == nil { // it may break off before anything came
				defer resp.Body.Close()
				_, err = io.ReadAll(resp.Body)
			}
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v", err)
			}
			if s := seen.next(t); s.Status != 200 || s.Err == nil || f.results()[0] == nil {
				t.Errorf("%+v, given back with %v", s, f.results())
			}
		})
	}
}

// A client that leaves takes its request with it, whatever it waits for.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	for name, began := range map[string]bool{"before the answer": false, "in the middle of it": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			there, canceled := make(chan struct{}), make(chan struct{})
			b := worker(t, "w1", func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if began {
					w.Header().Set("Content-Type", "text/event-stream")
					_, _ = io.WriteString(w, "data: 1\n\n")
					w.(http.Flusher).Flush()
				}
				close(there)
				<-r.Context().Done()
				close(canceled)
			})
			f := &fleet{backends: []gateway.Backend{b}}
			url, seen := front(t, f, gateway.Options{})
			leave := dial(t, url, hello)
			wait(t, there, "request")
			if began {
				_, _ = bufio.NewReader(leave).ReadString('\n')
			}
			leave.Close()
			wait(t, canceled, "cancellation")
			if s := seen.next(t); s.Status != 499 || !errors.Is(s.Err, context.Canceled) || s.Retries != 0 {
				t.Errorf("%+v", s)
			}
			if done := f.results(); len(done) != 1 || done[0] != nil {
				t.Errorf("given back with %v", done)
			}
		})
	}
	t.Run("while a worker is found", func(t *testing.T) {
		t.Parallel()
		f := &fleet{hold: make(chan struct{}), came: make(chan struct{}, 1)}
		url, seen := front(t, f, gateway.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error)
		go func() {
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/completions", strings.NewReader(hello))
			_, err := http.DefaultTransport.RoundTrip(r)
			ended <- err
		}()
		wait(t, f.came, "request")
		cancel()
		if err := wait(t, ended, "end"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if s := seen.next(t); s.Status != 499 || s.Worker != "" || s.BytesOut != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// dial sends a request over a connection of its own, and reads nothing.
func dial(t *testing.T, url, body string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return conn
}

// A client that does not read is cut, and the worker with it.
func TestClientDoesNotRead(t *testing.T) {
	t.Parallel()
	canceled := make(chan struct{})
	b := worker(t, "w1", func(w http.ResponseWriter, r *http.Request) {
		defer close(canceled)
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			if _, err := io.WriteString(w, "data: "+strings.Repeat("x", 100_000)+"\n\n"); err != nil {
				return
			}
		}
	})
	f := &fleet{backends: []gateway.Backend{b}}
	url, seen := front(t, f, gateway.Options{WriteTimeout: 100 * time.Millisecond})
	dial(t, url, hello)
	wait(t, canceled, "cancellation")
	if s := seen.next(t); s.Status != 499 || !errors.Is(s.Err, os.ErrDeadlineExceeded) {
		t.Errorf("%+v", s)
	}
	if done := f.results(); len(done) != 1 || done[0] != nil {
		t.Errorf("given back with %v", done)
	}
}

// A client that announces more than it sends is not waited for.
func TestClientDoesNotSend(t *testing.T) {
	t.Parallel()
	url, seen := front(t, &fleet{}, gateway.Options{WriteTimeout: 50 * time.Millisecond})
	conn := dial(t, url, "")
	fmt.Fprint(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
	if s := seen.next(t); s.Status != 400 { // the first one's body is empty
		t.Errorf("%+v", s)
	}
	if s := seen.next(t); s.Status != 499 || !strings.Contains(s.Err.Error(), "1 bytes of the body came in ") {
		t.Errorf("%+v", s)
	}
}

// The time for reading and writing ends with what it is for: neither an answer that
// takes longer nor the connection's next request is cut.
func TestDeadlinesEnd(t *testing.T) {
	t.Parallel()
	const timeout = 50 * time.Millisecond
	b := worker(t, "w1", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(3 * timeout): // generating is slow
			_, _ = io.WriteString(w, "late")
		case <-r.Context().Done():
		}
	})
	url, _ := front(t, &fleet{backends: []gateway.Backend{b}}, gateway.Options{WriteTimeout: timeout})
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	for range 2 {
		resp, err := client.Post(url+"/v1/completions", "application/json", strings.NewReader(hello))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != "late" {
			t.Errorf("%q, %v", body, err)
		}
	}
}
