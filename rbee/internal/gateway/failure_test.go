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

// abortAfter returns the handler of a worker that writes text and closes the connection,
// like a worker that is killed.
func abortAfter(header http.Header, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
		_, _ = io.WriteString(w, text)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
}

func respondStatus(code int, hive string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if hive != "" {
			w.Header().Set("X-Rbee-Error", hive)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "engine error")
	}
}

// TestRetry checks that a request that fails before the first byte is sent to another
// worker, with the same body.
func TestRetry(t *testing.T) {
	t.Parallel()
	events := http.Header{"Content-Type": {"text/event-stream"}}
	for name, test := range map[string]struct {
		first  http.HandlerFunc // nil if nothing listens
		status int              // in the WorkerError
	}{
		"no listener":         {nil, 0},
		"closed immediately":  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0},
		"closed after header": {abortAfter(http.Header{"Content-Length": {"10"}}, ""), 0},
		"empty stream":        {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/event-stream") }, 0},
		"truncated stream":    {abortAfter(events, ""), 0},
		"502":                 {respondStatus(502, ""), 502},
		"503":                 {respondStatus(503, ""), 503},
		"504":                 {respondStatus(504, ""), 504},
		"404 of the hive":     {respondStatus(404, "not_found"), 404},
		"401 of the hive":     {respondStatus(401, "forbidden"), 401},
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
			requests := make(chan request, 1)
			second := worker(t, "w2", recordRequests(requests, func(w http.ResponseWriter) { _, _ = io.WriteString(w, "fine") }))
			rt := &router{backends: []gateway.Backend{first, second}}
			url, samples := startGateway(t, rt, gateway.Options{})
			resp, body := do(t, "POST", url+"/v1/chat/completions", hello)
			if r := wait(t, requests, "request"); resp.StatusCode != http.StatusOK || body != "fine" || r.body != hello {
				t.Errorf("response = %s %q to a request with body %q, want 200 fine to %q", resp.Status, body, r.body, hello)
			}
			if s := samples.next(t); s.Retries != 1 || s.Worker != "w2" || s.Status != 200 {
				t.Errorf("sample = %+v, want 1 retry, worker w2, status 200", s)
			}
			released := rt.releases()
			var failed *gateway.WorkerError
			if len(released) != 2 || !errors.As(released[0], &failed) || released[1] != nil {
				t.Fatalf("Release() errors = %v, want a WorkerError and nil", released)
			}
			if failed.Worker != "w1" || failed.Hive != "gpu-1" || failed.Status != test.status {
				t.Errorf("WorkerError = %+v, want worker w1 on gpu-1 with status %d", failed, test.status)
			}
			if w := rt.requested(); len(w[0].Exclude) != 0 || fmt.Sprint(w[1].Exclude) != "[w1]" {
				t.Errorf("Acquire() requests = %+v, want none and then w1 excluded", w)
			}
		})
	}
}

// TestEngineErrors checks that the client receives error responses of the engine
// unchanged.
func TestEngineErrors(t *testing.T) {
	t.Parallel()
	for _, code := range []int{400, 401, 404, 429, 500, 501} {
		rt := &router{backends: []gateway.Backend{worker(t, "w1", respondStatus(code, ""))}}
		url, samples := startGateway(t, rt, gateway.Options{})
		resp, body := do(t, "POST", url+"/v1/chat/completions", hello)
		if resp.StatusCode != code || body != "engine error" {
			t.Errorf("engine status %d: response = %s %q, want %d and the body of the engine", code, resp.Status, body, code)
		}
		if s := samples.next(t); s.Status != code || s.Err != nil || rt.releases()[0] != nil {
			t.Errorf("engine status %d: sample = %+v, Release() errors = %v, want status %d and no errors", code, s, rt.releases(), code)
		}
	}
}

// TestMaxTries checks that a request is sent to three workers at most.
func TestMaxTries(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]int{502: 502, 503: 503, 504: 504} {
		var list []gateway.Backend
		for i := range 4 {
			list = append(list, worker(t, fmt.Sprint("w", i+1), respondStatus(code, "")))
		}
		rt := &router{backends: list}
		url, samples := startGateway(t, rt, gateway.Options{})
		resp, body := do(t, "POST", url+"/v1/chat/completions", hello)
		e := decodeError(t, body)
		if resp.StatusCode != want || !strings.Contains(e.Message, "worker w3 on hive gpu-1 returned") || e.Type != "server_error" || (resp.Header.Get("Retry-After") == "1") != (want == 503) {
			t.Errorf("worker status %d: response = %s %v %s, want %d and an error about w3", code, resp.Status, resp.Header, body, want)
		}
		var failed *gateway.WorkerError
		if s := samples.next(t); s.Retries != 2 || s.Status != want || !errors.As(s.Err, &failed) || len(rt.releases()) != 3 {
			t.Errorf("worker status %d: sample = %+v, want 2 retries, status %d and a WorkerError", code, s, want)
		}
	}

	// Without another worker the client receives the router's error.
	url, samples := startGateway(t, &router{backends: []gateway.Backend{worker(t, "w1", respondStatus(502, ""))}}, gateway.Options{})
	resp, body := do(t, "POST", url+"/v1/chat/completions", hello)
	if e := decodeError(t, body); resp.StatusCode != http.StatusServiceUnavailable || e.Message != "no other worker" {
		t.Errorf("response = %s %s, want 503 no other worker", resp.Status, body)
	}
	if s := samples.next(t); !strings.Contains(s.Err.Error(), "no other worker (previous error: worker w1 on hive gpu-1 returned 502 Bad Gateway") {
		t.Errorf("sample error = %v, want both errors", s.Err)
	}
}

// TestTruncatedStream checks that a truncated stream ends with an error event and is not
// continued by another worker.
func TestTruncatedStream(t *testing.T) {
	t.Parallel()
	events := http.Header{"Content-Type": {"text/event-stream; charset=utf-8"}}
	for name, test := range map[string]struct {
		first    http.HandlerFunc
		path     string
		complete bool
	}{
		"broken":                 {abortAfter(events, "data: {\"a\":1}\n\ndata: {"), "/v1/chat/completions", false},
		"broken responses API":   {abortAfter(events, "data: {\"a\":1}\n\n"), "/v1/responses", false},
		"no end marker":          {respondWith(events, "data: {\"a\":1}\n\n"), "/v1/completions", false},
		"complete":               {respondWith(events, "data: {\"a\":1}\n\ndata: [DONE]\n\n"), "/v1/chat/completions", true},
		"complete responses API": {respondWith(events, "event: response.completed\ndata: {\"a\":1}\n\n"), "/v1/responses", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rt := &router{backends: []gateway.Backend{worker(t, "w1", test.first), worker(t, "w2", respondWith(events, "again"))}}
			url, samples := startGateway(t, rt, gateway.Options{})
			resp, body := do(t, "POST", url+test.path, hello)
			_, event, hasError := strings.Cut(body, "\n\ndata: {\"error\"")
			if resp.StatusCode != http.StatusOK || !strings.Contains(body, "data: {\"a\":1}\n\n") || hasError == test.complete {
				t.Fatalf("response = %s %q, want 200, complete: %t", resp.Status, body, test.complete)
			}
			s := samples.next(t)
			if s.Status != 200 || s.Retries != 0 || !s.Stream || (s.Err == nil) != test.complete || (rt.releases()[0] == nil) != test.complete || len(rt.requested()) != 1 {
				t.Errorf("sample = %+v, Release() errors = %v, want status 200, one attempt, complete: %t", s, rt.releases(), test.complete)
			}
			if test.complete {
				return
			}
			if e := decodeError(t, `{"error"`+event); e.Type != "server_error" || *e.Code != "worker_failed" || !strings.HasSuffix(body, "}\n\n") {
				t.Errorf("body = %q, want an error event with code worker_failed at the end", body)
			}
		})
	}
}

func respondWith(header http.Header, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range header {
			w.Header()[name] = values
		}
		_, _ = io.WriteString(w, text)
	}
}

// TestTruncatedResponse checks that the connection to the client is closed if a response
// other than an event stream is truncated.
func TestTruncatedResponse(t *testing.T) {
	t.Parallel()
	compressed := http.Header{"Content-Type": {"text/event-stream"}, "Content-Encoding": {"gzip"}}
	for name, h := range map[string]http.HandlerFunc{
		"Content-Length":    abortAfter(http.Header{"Content-Length": {"1000"}}, "half of it"),
		"no Content-Length": abortAfter(nil, "half of it"),
		"compressed stream": abortAfter(compressed, "half of it"),
		"short body":        respondWith(http.Header{"Content-Length": {"100"}}, "half of it"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rt := &router{backends: []gateway.Backend{worker(t, "w1", h)}}
			url, samples := startGateway(t, rt, gateway.Options{})
			client := &http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
			resp, err := client.Post(url+"/v1/audio/speech", "application/json", strings.NewReader(hello))
			if err == nil { // the connection may be closed before the header
				defer resp.Body.Close()
				_, err = io.ReadAll(resp.Body)
			}
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("Post() and read: error = %v, want EOF or unexpected EOF", err)
			}
			if s := samples.next(t); s.Status != 200 || s.Err == nil || rt.releases()[0] == nil {
				t.Errorf("sample = %+v, Release() errors = %v, want status 200 and errors", s, rt.releases())
			}
		})
	}
}

// TestClientDisconnects checks that the request to the worker is canceled when the client
// disconnects.
func TestClientDisconnects(t *testing.T) {
	t.Parallel()
	for name, started := range map[string]bool{"before the response": false, "during the response": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			received, canceled := make(chan struct{}), make(chan struct{})
			b := worker(t, "w1", func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if started {
					w.Header().Set("Content-Type", "text/event-stream")
					_, _ = io.WriteString(w, "data: 1\n\n")
					w.(http.Flusher).Flush()
				}
				close(received)
				<-r.Context().Done()
				close(canceled)
			})
			rt := &router{backends: []gateway.Backend{b}}
			url, samples := startGateway(t, rt, gateway.Options{})
			conn := dial(t, url, hello)
			wait(t, received, "request")
			if started {
				_, _ = bufio.NewReader(conn).ReadString('\n')
			}
			conn.Close()
			wait(t, canceled, "cancellation")
			if s := samples.next(t); s.Status != 499 || !errors.Is(s.Err, context.Canceled) || s.Retries != 0 {
				t.Errorf("sample = %+v, want status 499, context.Canceled, no retries", s)
			}
			if released := rt.releases(); len(released) != 1 || released[0] != nil {
				t.Errorf("Release() errors = %v, want one nil", released)
			}
		})
	}
	t.Run("during Acquire", func(t *testing.T) {
		t.Parallel()
		rt := &router{proceed: make(chan struct{}), waiting: make(chan struct{}, 1)}
		url, samples := startGateway(t, rt, gateway.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error)
		go func() {
			r, _ := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/completions", strings.NewReader(hello))
			_, err := http.DefaultTransport.RoundTrip(r)
			done <- err
		}()
		wait(t, rt.waiting, "request")
		cancel()
		if err := wait(t, done, "result of RoundTrip()"); !errors.Is(err, context.Canceled) {
			t.Errorf("RoundTrip() error = %v, want context.Canceled", err)
		}
		if s := samples.next(t); s.Status != 499 || s.Worker != "" || s.BytesOut != 0 {
			t.Errorf("sample = %+v, want status 499, no worker, no bytes", s)
		}
	})
}

// dial sends a request over a new connection and does not read the response.
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

// TestClientDoesNotRead checks that a client that does not read is disconnected, and its
// request to the worker is canceled.
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
	rt := &router{backends: []gateway.Backend{b}}
	url, samples := startGateway(t, rt, gateway.Options{WriteTimeout: 100 * time.Millisecond})
	dial(t, url, hello)
	wait(t, canceled, "cancellation")
	if s := samples.next(t); s.Status != 499 || !errors.Is(s.Err, os.ErrDeadlineExceeded) {
		t.Errorf("sample = %+v, want status 499 and a write timeout", s)
	}
	if released := rt.releases(); len(released) != 1 || released[0] != nil {
		t.Errorf("Release() errors = %v, want one nil", released)
	}
}

// TestClientDoesNotSend checks that the gateway times out a body that is shorter than its
// Content-Length.
func TestClientDoesNotSend(t *testing.T) {
	t.Parallel()
	url, samples := startGateway(t, &router{}, gateway.Options{WriteTimeout: 50 * time.Millisecond})
	conn := dial(t, url, "")
	fmt.Fprint(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
	if s := samples.next(t); s.Status != 400 { // the first request has an empty body
		t.Errorf("sample of the empty request = %+v, want status 400", s)
	}
	if s := samples.next(t); s.Status != 499 || !strings.Contains(s.Err.Error(), "received 1 B in ") {
		t.Errorf("sample of the incomplete request = %+v, want status 499 and an error about a slow body", s)
	}
}

// TestDeadlinesReset checks that the deadlines of a request affect neither a slow response
// nor the next request of the connection.
func TestDeadlinesReset(t *testing.T) {
	t.Parallel()
	const timeout = 50 * time.Millisecond
	b := worker(t, "w1", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(3 * timeout): // slow generation
			_, _ = io.WriteString(w, "late")
		case <-r.Context().Done():
		}
	})
	url, _ := startGateway(t, &router{backends: []gateway.Backend{b}}, gateway.Options{WriteTimeout: timeout})
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
			t.Errorf("body = %q, %v, want late", body, err)
		}
	}
}
