package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

// largeBody returns a JSON body with n letters, generated while it is read.
func largeBody(n int64) io.Reader {
	return io.MultiReader(strings.NewReader(`{"model":"m","x":"`), io.LimitReader(repeatedX{}, n), strings.NewReader(`"}`))
}

type repeatedX struct{}

func (repeatedX) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// TestSlowBody checks that a body that arrives too slowly is rejected, although data
// keeps arriving.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	url, samples := startGateway(t, &router{}, gateway.Options{WriteTimeout: 200 * time.Millisecond})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(20 * time.Second); ; {
		select {
		case <-tick.C:
			fmt.Fprint(conn, " ")
			continue
		case s := <-samples:
			if s.Status != 499 || !strings.Contains(s.Err.Error(), "body too slow") {
				t.Errorf("sample = %+v, want status 499 and an error about a slow body", s)
			}
		case <-timeout:
			t.Error("the slow body was not rejected within 20 s")
		}
		return
	}
}

// TestMaxBodyMemory checks that the bodies of all requests count until their responses
// start.
func TestMaxBodyMemory(t *testing.T) {
	t.Parallel()
	finish := make(chan struct{})
	b := worker(t, "w1", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-finish:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	rt := &router{backends: []gateway.Backend{b}, proceed: make(chan struct{}), waiting: make(chan struct{}, 1)}
	url, _ := startGateway(t, rt, gateway.Options{MaxBodyMemory: 100_000})
	large := `{"model":"m","x":"` + strings.Repeat("x", 60_000) + `"}`
	first := make(chan *http.Response, 1)
	go func() { first <- send(t, t.Context(), "POST", url+"/v1/chat/completions", large) }()
	wait(t, rt.waiting, "first request")
	resp, body := do(t, "POST", url+"/v1/chat/completions", large)
	if e := decodeError(t, body); resp.StatusCode != http.StatusServiceUnavailable || *e.Code != "overloaded" || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("second large request = %s %s, want 503 overloaded, Retry-After 1", resp.Status, body)
	}
	// A large body without Content-Length.
	resp, err := http.Post(url+"/v1/chat/completions", "application/json", io.MultiReader(strings.NewReader(large)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("large request without Content-Length = %s, want 503", resp.Status)
	}
	close(rt.proceed)
	streams := []*http.Response{wait(t, first, "response")} // in progress
	for range 3 {
		streams = append(streams, send(t, t.Context(), "POST", url+"/v1/chat/completions", large))
	}
	close(finish)
	for _, s := range streams {
		text, err := io.ReadAll(s.Body)
		s.Body.Close()
		if s.StatusCode != http.StatusOK || err != nil || !strings.HasSuffix(string(text), "[DONE]\n\n") {
			t.Errorf("stream = %s, %q, %v, want 200 and [DONE]", s.Status, text, err)
		}
	}
	if resp, body := do(t, "POST", url+"/v1/chat/completions", `{"model":"m","x":"`+strings.Repeat("x", 120_000)+`"}`); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("request above MaxBodyMemory = %s %s, want 503", resp.Status, body)
	}
}

// TestBodyReleased checks that a request body is freed when the response starts. It is
// not parallel because it measures the memory of the process.
func TestBodyReleased(t *testing.T) {
	const size = 32 << 20
	b := worker(t, "w1", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	b.Name = "another" // must not copy the body
	url, samples := startGateway(t, &router{backends: []gateway.Backend{b}}, gateway.Options{})
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // frees the content of pools
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", largeBody(size))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "data: 1\n" {
		t.Fatalf("first line = %q, %v, want data: 1", line, err)
	}
	if after := heap(); after > before+size/4 {
		t.Errorf("memory grew by %d MiB for a body of %d MiB, want less than a quarter", (after-before)>>20, size>>20)
	}
	cancel()
	samples.next(t)
}

// TestLongModelName checks that names that are too long are rejected and do not appear in
// responses and samples.
func TestLongModelName(t *testing.T) {
	t.Parallel()
	rt := &router{err: &gateway.APIError{Status: 404, Message: "no"}}
	url, samples := startGateway(t, rt, gateway.Options{})
	longest := strings.Repeat("m", 512)
	form := "--B\r\nContent-Disposition: form-data; name=model\r\n\r\n%s\r\n--B--\r\n"
	for name, test := range map[string]struct{ method, path, kind, body string }{
		"JSON":         {"POST", "/v1/embeddings", "application/json", `{"model":"%s"}`},
		"JSON escaped": {"POST", "/v1/embeddings", "application/json", `{"model":"%s"}`},
		"form":         {"POST", "/v1/audio/translations", "multipart/form-data; boundary=B", form},
		"path":         {"GET", "/v1/models/%s", "", ""},
	} {
		for model, status := range map[string]int{longest: 404, longest + "m": 400, strings.Repeat("m", 20_000): 400, strings.Repeat(`\u006d`, 512): 404, strings.Repeat(`\u006d`, 513): 400} {
			if strings.Contains(model, `\`) != strings.Contains(name, "escaped") {
				continue
			}
			path, body := test.path, test.body
			if test.method == "GET" {
				path = fmt.Sprintf(path, model)
			} else {
				body = fmt.Sprintf(body, model)
			}
			resp, text := do(t, test.method, url+path, body, "Content-Type", test.kind)
			e := decodeError(t, text)
			if resp.StatusCode != status || status == 400 && (len(text) > 300 || e.Param == nil || *e.Param != "model" || e.Type != "invalid_request_error") {
				t.Errorf("%s, name of %d bytes: response = %s %.300s, want status %d", name, len(model), resp.Status, text, status)
			}
			if s := samples.next(t); status == 400 && (s.Model != "" || len(s.Err.Error()) > 300) {
				t.Errorf("%s, name of %d bytes: sample has model %.300q, error %.300v, want no model and a short error", name, len(model), s.Model, s.Err)
			}
		}
	}
}

// TestDetail checks which clients receive the detail of an error. The sample always has it.
func TestDetail(t *testing.T) {
	t.Parallel()
	const secret = "ssh me@10.0.0.7:22: no route"
	apiErr := &gateway.APIError{Status: 503, Message: "no hive has it", Detail: "no hive has it: " + secret}
	allow := func(ok bool) func(context.Context) bool { return func(context.Context) bool { return ok } }
	for name, test := range map[string]struct {
		err     error
		show    func(context.Context) bool
		message string
		detail  bool
	}{
		"no ShowDetail":        {apiErr, nil, "no hive has it", false},
		"denied":               {apiErr, allow(false), "no hive has it", false},
		"allowed":              {apiErr, allow(true), "no hive has it", true},
		"wrapped":              {fmt.Errorf("really: %w", apiErr), allow(false), "no hive has it", false},
		"other error, denied":  {errors.New(secret), allow(false), "no worker is available", false},
		"other error, allowed": {errors.New(secret), allow(true), "no worker is available", true},
	} {
		url, samples := startGateway(t, &router{err: test.err}, gateway.Options{ShowDetail: test.show})
		_, body := do(t, "POST", url+"/v1/completions", hello)
		e := decodeError(t, body)
		if strings.Contains(body, secret) != test.detail || !test.detail && e.Message != test.message {
			t.Errorf("%s: message = %q, want %q, detail shown: %t", name, e.Message, test.message, test.detail)
		}
		if s := samples.next(t); !strings.Contains(s.Err.Error(), secret) {
			t.Errorf("%s: sample error = %v, want the detail", name, s.Err)
		}
	}
}

// startClosingServer starts a worker that responds to the first request of a connection and
// closes the connection on the second one. With always set, later connections are closed
// on their first request.
func startClosingServer(t *testing.T, always bool) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	serve := func(conn net.Conn, responses int) {
		defer conn.Close()
		in := bufio.NewReader(conn)
		for range responses {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
		}
		_, _ = in.Peek(1)
	}
	go func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			responses := 1
			if always && n > 0 {
				responses = 0
			}
			go serve(conn, responses)
		}
	}()
	return l.Addr().String()
}

// TestStaleConnection checks that a request on a kept-alive connection that the worker
// closed is retried on the same worker, and that a new connection that the worker closes
// counts as a failure.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	for _, down := range []bool{false, true} {
		b := worker(t, "w1", nil)
		b.URL = "http://" + startClosingServer(t, down)
		rt := &router{backends: []gateway.Backend{b}}
		url, samples := startGateway(t, rt, gateway.Options{})
		want := http.StatusOK
		for i := range 3 {
			resp, body := do(t, "POST", url+"/v1/completions", hello)
			if resp.StatusCode != want || want == http.StatusOK && body != "fine" {
				t.Errorf("request %d, down %t: response = %s %q, want status %d", i, down, resp.Status, body, want)
			}
			if s := samples.next(t); s.Retries != 0 || (s.Err == nil) != (want == http.StatusOK) {
				t.Errorf("request %d, down %t: sample = %+v, want no retries, error only if down", i, down, s)
			}
			if down {
				want = http.StatusServiceUnavailable
			}
		}
		for i, err := range rt.releases() {
			if failed := i > 0 && down; (err != nil) != failed {
				t.Errorf("request %d, down %t: Release(%v), want an error: %t", i, down, err, failed)
			}
		}
	}
}
