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

// letters is a body of JSON with so many letters in it, made on the fly.
func letters(n int64) io.Reader {
	return io.MultiReader(strings.NewReader(`{"model":"m","x":"`), io.LimitReader(endless{}, n), strings.NewReader(`"}`))
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// A body that comes byte by byte is not waited for until its end, though something
// comes all the time.
func TestBodyComesTooSlowly(t *testing.T) {
	t.Parallel()
	url, seen := front(t, &fleet{}, gateway.Options{WriteTimeout: 200 * time.Millisecond})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(20 * time.Second); ; {
		select {
		case <-tick.C:
			fmt.Fprint(conn, " ")
			continue
		case s := <-seen:
			if s.Status != 499 || !strings.Contains(s.Err.Error(), "which is too slow") {
				t.Errorf("%+v", s)
			}
		case <-late:
			t.Error("it goes on for ever")
		}
		return
	}
}

// All bodies together have their limit, and each counts until its answer begins.
func TestMaxBodies(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	b := worker(t, "w1", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-more:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	f := &fleet{backends: []gateway.Backend{b}, hold: make(chan struct{}), came: make(chan struct{}, 1)}
	url, _ := front(t, f, gateway.Options{MaxBodies: 100_000})
	large := `{"model":"m","x":"` + strings.Repeat("x", 60_000) + `"}`
	first := make(chan *http.Response, 1)
	go func() { first <- begin(t, t.Context(), "POST", url+"/v1/chat/completions", large) }()
	wait(t, f.came, "first request")
	resp, body := ask(t, "POST", url+"/v1/chat/completions", large)
	if e := errorIn(t, body); resp.StatusCode != http.StatusServiceUnavailable || *e.Code != "overloaded" || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%s %s", resp.Status, body)
	}
	// Its length need not be known.
	resp, err := http.Post(url+"/v1/chat/completions", "application/json", io.MultiReader(strings.NewReader(large)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("of no stated size: %s", resp.Status)
	}
	close(f.hold)
	streams := []*http.Response{wait(t, first, "answer")} // it has begun, and goes on
	for range 3 {
		streams = append(streams, begin(t, t.Context(), "POST", url+"/v1/chat/completions", large))
	}
	close(more)
	for _, s := range streams {
		text, err := io.ReadAll(s.Body)
		s.Body.Close()
		if s.StatusCode != http.StatusOK || err != nil || !strings.HasSuffix(string(text), "[DONE]\n\n") {
			t.Errorf("%s %q, %v", s.Status, text, err)
		}
	}
	if resp, body := ask(t, "POST", url+"/v1/chat/completions", `{"model":"m","x":"`+strings.Repeat("x", 120_000)+`"}`); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("more than all: %s %s", resp.Status, body)
	}
}

// While an answer goes on, its request takes no memory any more. Not parallel: it looks
// at the memory of the process.
func TestBodyIsLetGo(t *testing.T) {
	const size = 32 << 20
	b := worker(t, "w1", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	b.Name = "another" // which must not take a copy
	url, seen := front(t, &fleet{backends: []gateway.Backend{b}}, gateway.Options{})
	heap := func() uint64 {
		runtime.GC()
		runtime.GC() // what pools hold goes only now
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", letters(size))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); line != "data: 1\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if after := heap(); after > before+size/4 {
		t.Errorf("%d MiB are held for a body of %d MiB", (after-before)>>20, size>>20)
	}
	leave()
	seen.next(t)
}

// A name that is no name does not go into logs and answers.
func TestLongNames(t *testing.T) {
	t.Parallel()
	f := &fleet{err: &gateway.Refusal{Status: 404, Message: "no"}}
	url, seen := front(t, f, gateway.Options{})
	most := strings.Repeat("m", 512)
	form := "--B\r\nContent-Disposition: form-data; name=model\r\n\r\n%s\r\n--B--\r\n"
	for name, test := range map[string]struct{ method, path, kind, body string }{
		"JSON":         {"POST", "/v1/embeddings", "application/json", `{"model":"%s"}`},
		"JSON escaped": {"POST", "/v1/embeddings", "application/json", `{"model":"%s"}`},
		"a form":       {"POST", "/v1/audio/translations", "multipart/form-data; boundary=B", form},
		"an address":   {"GET", "/v1/models/%s", "", ""},
	} {
		for model, status := range map[string]int{most: 404, most + "m": 400, strings.Repeat("m", 20_000): 400, strings.Repeat(`\u006d`, 512): 404, strings.Repeat(`\u006d`, 513): 400} {
			if strings.Contains(model, `\`) != strings.Contains(name, "escaped") {
				continue
			}
			path, body := test.path, test.body
			if test.method == "GET" {
				path = fmt.Sprintf(path, model)
			} else {
				body = fmt.Sprintf(body, model)
			}
			resp, answer := ask(t, test.method, url+path, body, "Content-Type", test.kind)
			e := errorIn(t, answer)
			if resp.StatusCode != status || status == 400 && (len(answer) > 300 || e.Param == nil || *e.Param != "model" || e.Type != "invalid_request_error") {
				t.Errorf("%s of %d bytes: %s %.300s", name, len(model), resp.Status, answer)
			}
			if s := seen.next(t); status == 400 && (s.Model != "" || len(s.Err.Error()) > 300) {
				t.Errorf("%s of %d bytes: told of %.300q, %.300v", name, len(model), s.Model, s.Err)
			}
		}
	}
}

// What is not everybody's business goes to the log, and to those who may know.
func TestDetail(t *testing.T) {
	t.Parallel()
	const secret = "ssh me@10.0.0.7:22: no route"
	refusal := &gateway.Refusal{Status: 503, Message: "no hive has it", Detail: "no hive has it: " + secret}
	may := func(yes bool) func(context.Context) bool { return func(context.Context) bool { return yes } }
	for name, test := range map[string]struct {
		err   error
		may   func(context.Context) bool
		plain string
		told  bool
	}{
		"unasked":               {refusal, nil, "no hive has it", false},
		"somebody":              {refusal, may(false), "no hive has it", false},
		"somebody who may know": {refusal, may(true), "no hive has it", true},
		"wrapped":               {fmt.Errorf("really: %w", refusal), may(false), "no hive has it", false},
		"any other error":       {errors.New(secret), may(false), "no worker could be found", false},
		"any other, who may":    {errors.New(secret), may(true), "no worker could be found", true},
	} {
		url, seen := front(t, &fleet{err: test.err}, gateway.Options{MayKnow: test.may})
		_, body := ask(t, "POST", url+"/v1/completions", hello)
		e := errorIn(t, body)
		if strings.Contains(body, secret) != test.told || !test.told && e.Message != test.plain {
			t.Errorf("%s: told %q", name, e.Message)
		}
		if s := seen.next(t); !strings.Contains(s.Err.Error(), secret) {
			t.Errorf("%s: the log gets %v", name, s.Err)
		}
	}
}

// hangsUp is a worker that answers the first request of a connection, and closes it
// when the second comes, as if it had closed it just before.
func hangsUp(t *testing.T, always bool) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	serve := func(conn net.Conn, answers int) {
		defer conn.Close()
		in := bufio.NewReader(conn)
		for range answers {
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
			answers := 1
			if always && n > 0 {
				answers = 0
			}
			go serve(conn, answers)
		}
	}()
	return l.Addr().String()
}

// A connection that was kept and is closed when it is used says nothing of its worker,
// which is asked again. One that was made for the request does.
func TestKeptConnectionIsClosed(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		b := worker(t, "w1", nil)
		b.URL = "http://" + hangsUp(t, gone)
		f := &fleet{backends: []gateway.Backend{b}}
		url, seen := front(t, f, gateway.Options{})
		want := http.StatusOK
		for i := range 3 {
			resp, body := ask(t, "POST", url+"/v1/completions", hello)
			if resp.StatusCode != want || want == http.StatusOK && body != "fine" {
				t.Errorf("request %d, gone %v: %s %s", i, gone, resp.Status, body)
			}
			if s := seen.next(t); s.Retries != 0 || (s.Err == nil) != (want == http.StatusOK) {
				t.Errorf("request %d, gone %v: %+v", i, gone, s)
			}
			if gone {
				want = http.StatusServiceUnavailable
			}
		}
		for i, err := range f.results() {
			if failed := i > 0 && gone; (err != nil) != failed {
				t.Errorf("request %d, gone %v: given back with %v", i, gone, err)
			}
		}
	}
}
