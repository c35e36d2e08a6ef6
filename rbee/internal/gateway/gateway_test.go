package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

// fleet hands out its backends in order, without those to avoid.
type fleet struct {
	backends []gateway.Backend
	models   []gateway.ModelInfo
	err      error         // instead of a backend
	hold     chan struct{} // closed: Acquire may go on
	came     chan struct{} // told when Acquire waits for it

	mu     sync.Mutex
	wishes []gateway.Wish
	done   []error
}

func (f *fleet) Models(context.Context) []gateway.ModelInfo { return f.models }

func (f *fleet) Acquire(ctx context.Context, w gateway.Wish) (*gateway.Lease, error) {
	f.mu.Lock()
	w.Avoid = slices.Clone(w.Avoid)
	f.wishes = append(f.wishes, w)
	f.mu.Unlock()
	if f.hold != nil {
		select {
		case f.came <- struct{}{}:
		default:
		}
		select {
		case <-f.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if f.err != nil {
		return nil, f.err
	}
	for _, b := range f.backends {
		if !slices.Contains(w.Avoid, b.Worker) {
			return &gateway.Lease{Backend: b, Done: f.gaveBack}, nil
		}
	}
	return nil, &gateway.Refusal{Status: 503, Message: "no other worker"}
}

func (f *fleet) gaveBack(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done = append(f.done, err)
}

// results are the errors that workers were given back with.
func (f *fleet) results() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.done)
}

func (f *fleet) asked() []gateway.Wish {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.wishes)
}

// samples is an observer that remembers.
type samples chan gateway.Sample

func (s samples) Observe(sample gateway.Sample) { s <- sample }

// next is what became of the next request that ended.
func (s samples) next(t testing.TB) gateway.Sample {
	t.Helper()
	return wait(t, s, "a sample")
}

func wait[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("no %s came", what)
		panic("unreachable")
	}
}

// worker starts a worker and returns the way to it.
func worker(t testing.TB, name string, h http.HandlerFunc) gateway.Backend {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	return gateway.Backend{Worker: name, Hive: "gpu-1", URL: s.URL, Transport: transport}
}

// front starts a gateway.
func front(t testing.TB, f *fleet, o gateway.Options) (url string, seen samples) {
	t.Helper()
	seen = make(samples, 100)
	o.Fleet, o.Observer = f, seen
	s := httptest.NewServer(gateway.New(o))
	t.Cleanup(s.Close)
	return s.URL, seen
}

const hello = `{"model":"m","messages":[{"role":"user","content":"hello"}]}`

func ask(t testing.TB, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	resp := begin(t, t.Context(), method, url, body, header...)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading: %v", err)
	}
	return resp, string(data)
}

func begin(t testing.TB, ctx context.Context, method, url, body string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := (&http.Transport{DisableCompression: true, DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// told is the error in an answer.
type told struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func errorIn(t testing.TB, body string) told {
	t.Helper()
	var v struct {
		Error *told `json:"error"`
	}
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || v.Error == nil || v.Error.Message == "" || v.Error.Type == "" {
		t.Fatalf("%q is no error: %v", body, err)
	}
	return *v.Error
}

// got is a request as it reached the worker.
type got struct {
	*http.Request
	body string
}

// catching answers with text and hands over what it was asked.
func catching(requests chan<- got, answer func(w http.ResponseWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- got{r, string(body)}
		answer(w)
	}
}

func TestPassOn(t *testing.T) {
	t.Parallel()
	requests := make(chan got, 1)
	answer := "\x00 {\"not\": json }\n" + strings.Repeat("x", 100_000) + `{"usage":{"prompt_tokens":3,"completion_tokens":4}}`
	b := worker(t, "w1", catching(requests, func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
		w.Header().Set("X-Engine", "e")
		w.Header()["X-Many"] = []string{"1", "2"}
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("X-Request-Id", "the engine's")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, answer)
	}))
	b.Header = http.Header{"Authorization": {"Bearer ours"}, "x-hive": {"h"}}
	f := &fleet{backends: []gateway.Backend{b}}
	url, seen := front(t, f, gateway.Options{})
	sent := " {\"x\": [1,{\"model\":\"no\"}], \"model\": \"org/m\",\n\"é\":\"\\u00e9\", \"messages\":[] } "
	resp, body := ask(t, "POST", url+"/v1/embeddings?a=b%2Fc&a=%20;", sent, "Authorization", "Bearer theirs", "X-Api-Key", "k", "Cookie", "c=d",
		"Connection", "X-Hop", "X-Hop", "h", "Te", "trailers", "X-Mine", "m", "User-Agent", "", "X-Request-Id", "id-7", "Accept-Encoding", "br")
	r := wait(t, requests, "request")
	if r.Method != http.MethodPost || r.RequestURI != "/v1/embeddings?a=b%2Fc&a=%20;" || r.body != sent || r.ContentLength != int64(len(sent)) {
		t.Errorf("%s %s with %q", r.Method, r.RequestURI, r.body)
	}
	want := http.Header{"Accept-Encoding": {"br"}, "Authorization": {"Bearer ours"}, "Content-Length": {fmt.Sprint(len(sent))},
		"Content-Type": {"application/json"}, "X-Hive": {"h"}, "X-Mine": {"m"}, "X-Request-Id": {"id-7"}}
	if fmt.Sprint(r.Header) != fmt.Sprint(want) {
		t.Errorf("the worker got %v, want %v", r.Header, want)
	}
	h := resp.Header
	if resp.StatusCode != http.StatusTeapot || body != answer || resp.ContentLength != int64(len(answer)) {
		t.Errorf("%s, %d of %d bytes", resp.Status, len(body), len(answer))
	}
	if h.Get("X-Engine") != "e" || fmt.Sprint(h["X-Many"]) != "[1 2]" || h.Get("Keep-Alive") != "" || fmt.Sprint(h["X-Request-Id"]) != "[id-7]" {
		t.Errorf("the client got %v", h)
	}
	s := seen.next(t)
	if s.Path != "/v1/embeddings" || s.Model != "org/m" || s.Hive != "gpu-1" || s.Worker != "w1" || s.RequestID != "id-7" || s.Status != http.StatusTeapot ||
		s.Stream || s.FirstByte <= 0 || s.Duration < s.FirstByte || s.BytesIn != int64(len(sent)) || s.BytesOut != int64(len(answer)) ||
		s.PromptTokens != 3 || s.CompletionTokens != 4 || s.Retries != 0 || s.Err != nil {
		t.Errorf("%+v", s)
	}
	if done := f.results(); len(done) != 1 || done[0] != nil {
		t.Errorf("given back with %v", done)
	}
	if w := f.asked()[0]; w.Model != "org/m" || w.Path != "/v1/embeddings" || w.Affinity == 0 {
		t.Errorf("%+v", w)
	}
}

// A body without a known length goes through, both ways.
func TestUnknownLength(t *testing.T) {
	t.Parallel()
	requests := make(chan got, 1)
	b := worker(t, "w1", catching(requests, func(w http.ResponseWriter) {
		for range 3 {
			_, _ = io.WriteString(w, strings.Repeat("y", 50_000))
			w.(http.Flusher).Flush()
		}
	}))
	url, _ := front(t, &fleet{backends: []gateway.Backend{b}}, gateway.Options{})
	sent := `{"model":"m","x":"` + strings.Repeat("z", 3_000_000) + `"}`
	resp, err := http.Post(url+"/v1/rerank", "application/json", io.MultiReader(strings.NewReader(sent)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if r := wait(t, requests, "request"); r.body != sent || r.ContentLength != int64(len(sent)) {
		t.Errorf("the worker got %d bytes of %d", len(r.body), len(sent))
	}
	if err != nil || string(body) != strings.Repeat("y", 150_000) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

// Each piece of a stream is there before the next is sent.
func TestStream(t *testing.T) {
	t.Parallel()
	pieces := make(chan string)
	b := worker(t, "w1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for p := range pieces {
			_, _ = io.WriteString(w, p)
			w.(http.Flusher).Flush()
		}
	})
	f := &fleet{backends: []gateway.Backend{b}}
	url, seen := front(t, f, gateway.Options{})
	list := []string{": hi\n\n", "data: {\"a\"", ":1}\n\n", "data: " + strings.Repeat("x", 20_000) + "\n\n",
		"data: {\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":22}}\n\n", "data: [DONE]\n\n"}
	read := make(chan *http.Response)
	go func() {
		read <- begin(t, t.Context(), "POST", url+"/v1/chat/completions", `{"model":"m","stream":true}`)
	}()
	var resp *http.Response
	for _, p := range list {
		select {
		case pieces <- p:
		case <-time.After(20 * time.Second):
			t.Fatal("the worker does not take more")
		}
		if resp == nil {
			resp = wait(t, read, "answer")
			defer resp.Body.Close()
		}
		buf := make([]byte, len(p))
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != p {
			t.Fatalf("%q, %v; want %q", buf, err, p)
		}
	}
	close(pieces)
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if s := seen.next(t); !s.Stream || s.Status != 200 || s.PromptTokens != 11 || s.CompletionTokens != 22 || s.Err != nil {
		t.Errorf("%+v", s)
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	requests := make(chan got, 1)
	b := worker(t, "w1", catching(requests, func(http.ResponseWriter) {}))
	url, seen := front(t, &fleet{backends: []gateway.Backend{b}}, gateway.Options{})
	for theirs, kept := range map[string]bool{
		"a": true, "~!" + strings.Repeat("x", 126): true, "": false, "a b": false, "é": false, strings.Repeat("x", 129): false,
	} {
		resp, _ := ask(t, "POST", url+"/v1/completions", hello, "X-Request-Id", theirs)
		id, there, sample := resp.Header.Get("X-Request-Id"), wait(t, requests, "request").Header.Get("X-Request-Id"), seen.next(t).RequestID
		if id != there || id != sample || kept && id != theirs || !kept && (len(id) != 16 || strings.Trim(id, "0123456789abcdef") != "") {
			t.Errorf("%q: the client got %q, the worker %q, the observer %q", theirs, id, there, sample)
		}
	}
	if resp, _ := ask(t, "GET", url+"/nowhere", "", "X-Request-Id", "a"); resp.Header.Get("X-Request-Id") != "a" {
		t.Errorf("an error has %q", resp.Header.Get("X-Request-Id"))
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	requests := make(chan got, 1)
	b := worker(t, "w1", catching(requests, func(http.ResponseWriter) {}))
	b.Name = `/models/"m".gguf`
	url, _ := front(t, &fleet{backends: []gateway.Backend{b}}, gateway.Options{})
	ask(t, "POST", url+"/v1/chat/completions", `{ "model" :"m","x":"model"}`)
	if r := wait(t, requests, "request"); r.body != `{ "model" :"/models/\"m\".gguf","x":"model"}` || r.ContentLength != int64(len(r.body)) {
		t.Errorf("%q", r.body)
	}
	form := "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nm\r\n--B\r\ncontent-disposition: form-data; name=model\r\n\r\n%s\r\n--B--\r\n"
	ask(t, "POST", url+"/v1/audio/transcriptions", fmt.Sprintf(form, "m"), "Content-Type", "multipart/form-data; boundary=B")
	if r := wait(t, requests, "request"); r.body != fmt.Sprintf(form, b.Name) {
		t.Errorf("%q", r.body)
	}
}

func TestForm(t *testing.T) {
	t.Parallel()
	requests := make(chan got, 1)
	b := worker(t, "w1", catching(requests, func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"text":"hi"}`) }))
	f := &fleet{backends: []gateway.Backend{b}}
	url, _ := front(t, f, gateway.Options{})
	form := "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n\x00\xff\r\n--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\norg/whisper\r\n--B--\r\n"
	const kind = `multipart/form-data; boundary="B"`
	_, body := ask(t, "POST", url+"/v1/audio/translations", form, "Content-Type", kind)
	if r := wait(t, requests, "request"); r.body != form || r.Header.Get("Content-Type") != kind || body != `{"text":"hi"}` {
		t.Errorf("%q got %q", r.body, body)
	}
	if m := f.asked()[0].Model; m != "org/whisper" {
		t.Errorf("model %q", m)
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	f := &fleet{}
	url, seen := front(t, f, gateway.Options{})
	if _, body := ask(t, "GET", url+"/v1/models", ""); body != `{"object":"list","data":[]}` {
		t.Errorf("%s", body)
	}
	f.models = []gateway.ModelInfo{{ID: "m"}, {ID: "org/m:7b", Created: time.Unix(1700000000, 0), Loaded: true, Workers: []string{"w1"}}}
	const first = `{"id":"m","object":"model","created":0,"owned_by":"rbee","loaded":false,"workers":[]}`
	const second = `{"id":"org/m:7b","object":"model","created":1700000000,"owned_by":"rbee","loaded":true,"workers":["w1"]}`
	for path, want := range map[string]string{
		"/v1/models":              `{"object":"list","data":[` + first + `,` + second + `]}`,
		"/v1/models/m":            first,
		"/v1/models/org/m:7b":     second,
		"/v1/models/org%2Fm%3A7b": second,
	} {
		if resp, body := ask(t, "GET", url+path, ""); resp.StatusCode != http.StatusOK || body != want || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	if resp, body := ask(t, "HEAD", url+"/v1/models", ""); resp.StatusCode != http.StatusOK || body != "" || resp.ContentLength <= 0 {
		t.Errorf("HEAD: %s %q", resp.Status, body)
	}
	resp, body := ask(t, "GET", url+"/v1/models/org/n", "")
	if e := errorIn(t, body); resp.StatusCode != http.StatusNotFound || e.Type != "not_found_error" || *e.Code != "model_not_found" || !strings.Contains(e.Message, `"org/n"`) {
		t.Errorf("%s %s", resp.Status, body)
	}
	refused := 0
	for range 7 { // in the order in which they ended
		if s := seen.next(t); s.Status == http.StatusNotFound {
			refused++
			if s.Path != "/v1/models/{id}" || s.Model != "org/n" || s.Err == nil {
				t.Errorf("%+v", s)
			}
		}
	}
	if refused != 1 {
		t.Errorf("%d of the requests were refused", refused)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	f := &fleet{}
	url, seen := front(t, f, gateway.Options{MaxBody: 1000})
	long := `{"model":"` + strings.Repeat("m", 2000) + `"}`
	for name, test := range map[string]struct {
		method, path, body, header string
		status                     int
		kind, code, param, allow   string
	}{
		"nowhere":            {"GET", "/", "", "", 404, "not_found_error", "path_not_found", "", ""},
		"beside":             {"POST", "/v1/chat", hello, "", 404, "not_found_error", "path_not_found", "", ""},
		"two slashes":        {"POST", "//v1/chat/completions", hello, "", 404, "not_found_error", "path_not_found", "", ""},
		"a slash at the end": {"POST", "/v1/chat/completions/", hello, "", 404, "not_found_error", "path_not_found", "", ""},
		"dots":               {"POST", "/v1/x/../completions", hello, "", 404, "not_found_error", "path_not_found", "", ""},
		"no id":              {"GET", "/v1/models/", "", "", 404, "not_found_error", "path_not_found", "", ""},
		"GET":                {"GET", "/v1/chat/completions", "", "", 405, "invalid_request_error", "method_not_allowed", "", "POST"},
		"POST":               {"POST", "/v1/models", "{}", "", 405, "invalid_request_error", "method_not_allowed", "", "GET, HEAD"},
		"DELETE":             {"DELETE", "/v1/models/m", "", "", 405, "invalid_request_error", "method_not_allowed", "", "GET, HEAD"},
		"no model":           {"POST", "/v1/embeddings", "{}", "", 400, "invalid_request_error", "", "model", ""},
		"no body":            {"POST", "/v1/embeddings", "", "", 400, "invalid_request_error", "", "model", ""},
		"no form":            {"POST", "/v1/audio/translations", hello, "", 400, "invalid_request_error", "", "", ""},
		"too long":           {"POST", "/v1/responses", long, "", 413, "invalid_request_error", "body_too_large", "", ""},
		"packed":             {"POST", "/v1/responses", "x", "gzip", 415, "invalid_request_error", "", "", ""},
	} {
		resp, body := ask(t, test.method, url+test.path, test.body, "Content-Encoding", test.header)
		e := errorIn(t, body)
		orEmpty := func(s *string) string {
			if s == nil {
				return ""
			}
			return *s
		}
		if resp.StatusCode != test.status || e.Type != test.kind || orEmpty(e.Code) != test.code || orEmpty(e.Param) != test.param || resp.Header.Get("Allow") != test.allow {
			t.Errorf("%s: %s %v %s", name, resp.Status, resp.Header, body)
		}
		if s := seen.next(t); s.Status != test.status || s.Err == nil || s.BytesOut != int64(len(body)) || s.Worker != "" {
			t.Errorf("%s: %+v", name, s)
		}
	}
	// The length is found out while reading.
	resp, err := http.Post(url+"/v1/responses", "application/json", io.MultiReader(strings.NewReader(long)))
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	if n := len(f.asked()); n != 0 {
		t.Errorf("%d workers were asked for", n)
	}
}

func TestFleetRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err    error
		status int
		kind   string
		after  string
	}{
		"unknown model": {&gateway.Refusal{Status: 404, Code: "model_not_found", Message: "no"}, 404, "not_found_error", ""},
		"too many":      {&gateway.Refusal{Status: 429, Message: "no", RetryAfter: 1500 * time.Millisecond}, 429, "rate_limit_error", "2"},
		"loading":       {fmt.Errorf("wrapped: %w", &gateway.Refusal{Status: 503, Message: "no", RetryAfter: time.Millisecond}), 503, "server_error", "1"},
		"its own type":  {&gateway.Refusal{Status: 402, Type: "insufficient_quota", Message: "no"}, 402, "insufficient_quota", ""},
		"anything else": {errors.New("the queen sleeps"), 503, "server_error", ""},
		"its own end":   {context.Canceled, 503, "server_error", ""},
	} {
		url, seen := front(t, &fleet{err: test.err}, gateway.Options{})
		resp, body := ask(t, "POST", url+"/v1/completions", hello)
		if e := errorIn(t, body); resp.StatusCode != test.status || e.Type != test.kind || resp.Header.Get("Retry-After") != test.after {
			t.Errorf("%s: %s %v %s", name, resp.Status, resp.Header, body)
		}
		if s := seen.next(t); s.Status != test.status || !errors.Is(s.Err, test.err) || s.Model != "m" {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	b := worker(t, "w1", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	f := &fleet{backends: []gateway.Backend{b}, hold: make(chan struct{})}
	url, seen := front(t, f, gateway.Options{MaxInFlight: 2})
	statuses := make(chan int)
	for range 3 {
		go func() {
			resp := begin(t, t.Context(), "POST", url+"/v1/completions", hello)
			resp.Body.Close()
			statuses <- resp.StatusCode
		}()
	}
	if s := wait(t, statuses, "answer"); s != 503 { // the others wait
		t.Errorf("status %d", s)
	}
	resp, body := ask(t, "POST", url+"/v1/completions", hello)
	if e := errorIn(t, body); resp.StatusCode != http.StatusServiceUnavailable || *e.Code != "overloaded" || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%s %s", resp.Status, body)
	}
	if resp, _ := ask(t, "GET", url+"/v1/models", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("the models: %s", resp.Status)
	}
	close(f.hold)
	for range 2 {
		if s := wait(t, statuses, "answer"); s != 200 {
			t.Errorf("status %d", s)
		}
	}
	for range 5 {
		seen.next(t) // all have ended
	}
	if resp, _ := ask(t, "POST", url+"/v1/completions", hello); resp.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %s", resp.Status)
	}
}

// A request counts by the model that its worker serves, whatever its client calls it.
func TestCountsByTheModel(t *testing.T) {
	t.Parallel()
	b := worker(t, "w1", plain(nil, "{}"))
	b.Model, b.Name = "org/m:Q4", "org/m"
	url, seen := front(t, &fleet{backends: []gateway.Backend{b}}, gateway.Options{})
	ask(t, "POST", url+"/v1/chat/completions", hello)
	if s := <-seen; s.Model != "org/m:Q4" || s.Worker != "w1" {
		t.Errorf("%+v", s)
	}
}
