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

// router is a [gateway.Router] that returns the first backend that is not excluded.
type router struct {
	backends []gateway.Backend
	models   []gateway.ModelInfo
	err      error         // returned by Acquire; may be nil
	proceed  chan struct{} // if not nil, Acquire blocks until it is closed
	waiting  chan struct{} // receives when Acquire blocks

	mu       sync.Mutex
	requests []gateway.RouteRequest
	released []error
}

func (rt *router) Models(context.Context) []gateway.ModelInfo { return rt.models }

func (rt *router) Acquire(ctx context.Context, req gateway.RouteRequest) (*gateway.Lease, error) {
	rt.mu.Lock()
	req.Exclude = slices.Clone(req.Exclude)
	rt.requests = append(rt.requests, req)
	rt.mu.Unlock()
	if rt.proceed != nil {
		select {
		case rt.waiting <- struct{}{}:
		default:
		}
		select {
		case <-rt.proceed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if rt.err != nil {
		return nil, rt.err
	}
	for _, b := range rt.backends {
		if !slices.Contains(req.Exclude, b.Worker) {
			return &gateway.Lease{Backend: b, Release: rt.release}, nil
		}
	}
	return nil, &gateway.APIError{Status: 503, Message: "no other worker"}
}

func (rt *router) release(err error) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.released = append(rt.released, err)
}

// releases returns the arguments of the Release calls.
func (rt *router) releases() []error {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return slices.Clone(rt.released)
}

func (rt *router) requested() []gateway.RouteRequest {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return slices.Clone(rt.requests)
}

// sampleChan is an observer that stores samples.
type sampleChan chan gateway.Sample

func (s sampleChan) Observe(sample gateway.Sample) { s <- sample }

// next returns the sample of the next request that completes.
func (s sampleChan) next(t testing.TB) gateway.Sample {
	t.Helper()
	return wait(t, s, "sample")
}

func wait[T any](t testing.TB, c <-chan T, name string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("timed out after 20 s waiting for the %s", name)
		panic("unreachable")
	}
}

// worker starts a worker and returns its backend.
func worker(t testing.TB, name string, h http.HandlerFunc) gateway.Backend {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	return gateway.Backend{Worker: name, Hive: "gpu-1", URL: s.URL, Transport: transport}
}

// startGateway starts a gateway with the given router.
func startGateway(t testing.TB, rt *router, o gateway.Options) (url string, samples sampleChan) {
	t.Helper()
	samples = make(sampleChan, 100)
	o.Router, o.Observer = rt, samples
	s := httptest.NewServer(gateway.New(o))
	t.Cleanup(s.Close)
	return s.URL, samples
}

const hello = `{"model":"m","messages":[{"role":"user","content":"hello"}]}`

func do(t testing.TB, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	resp := send(t, t.Context(), method, url, body, header...)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("cannot read the response: %v", err)
	}
	return resp, string(data)
}

func send(t testing.TB, ctx context.Context, method, url, body string, header ...string) *http.Response {
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

// apiError is the error object of a response.
type apiError struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func decodeError(t testing.TB, body string) apiError {
	t.Helper()
	var v struct {
		Error *apiError `json:"error"`
	}
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil || v.Error == nil || v.Error.Message == "" || v.Error.Type == "" {
		t.Fatalf("body = %q, want an error object: %v", body, err)
	}
	return *v.Error
}

// request is a request as the worker received it.
type request struct {
	*http.Request
	body string
}

// recordRequests returns the handler of a worker that sends each request to a channel and then
// calls respond.
func recordRequests(requests chan<- request, respond func(w http.ResponseWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- request{r, string(body)}
		respond(w)
	}
}

func TestForward(t *testing.T) {
	t.Parallel()
	requests := make(chan request, 1)
	response := "\x00 {\"not\": json }\n" + strings.Repeat("x", 100_000) + `{"usage":{"prompt_tokens":3,"completion_tokens":4}}`
	b := worker(t, "w1", recordRequests(requests, func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", fmt.Sprint(len(response)))
		w.Header().Set("X-Engine", "e")
		w.Header()["X-Many"] = []string{"1", "2"}
		w.Header().Set("Keep-Alive", "timeout=5")
		w.Header().Set("X-Request-Id", "the engine's")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, response)
	}))
	b.Header = http.Header{"Authorization": {"Bearer ours"}, "x-hive": {"h"}}
	rt := &router{backends: []gateway.Backend{b}}
	url, samples := startGateway(t, rt, gateway.Options{})
	sent := " {\"x\": [1,{\"model\":\"no\"}], \"model\": \"org/m\",\n\"é\":\"\\u00e9\", \"messages\":[] } "
	resp, body := do(t, "POST", url+"/v1/embeddings?a=b%2Fc&a=%20;", sent, "Authorization", "Bearer theirs", "X-Api-Key", "k", "Cookie", "c=d",
		"Connection", "X-Hop", "X-Hop", "h", "Te", "trailers", "X-Mine", "m", "User-Agent", "", "X-Request-Id", "id-7", "Accept-Encoding", "br")
	r := wait(t, requests, "request")
	if r.Method != http.MethodPost || r.RequestURI != "/v1/embeddings?a=b%2Fc&a=%20;" || r.body != sent || r.ContentLength != int64(len(sent)) {
		t.Errorf("worker received %s %s with body %q, want POST with body %q", r.Method, r.RequestURI, r.body, sent)
	}
	want := http.Header{"Accept-Encoding": {"br"}, "Authorization": {"Bearer ours"}, "Content-Length": {fmt.Sprint(len(sent))},
		"Content-Type": {"application/json"}, "X-Hive": {"h"}, "X-Mine": {"m"}, "X-Request-Id": {"id-7"}}
	if fmt.Sprint(r.Header) != fmt.Sprint(want) {
		t.Errorf("worker received headers %v, want %v", r.Header, want)
	}
	h := resp.Header
	if resp.StatusCode != http.StatusTeapot || body != response || resp.ContentLength != int64(len(response)) {
		t.Errorf("response = %s with %d bytes, want 418 with %d bytes", resp.Status, len(body), len(response))
	}
	if h.Get("X-Engine") != "e" || fmt.Sprint(h["X-Many"]) != "[1 2]" || h.Get("Keep-Alive") != "" || fmt.Sprint(h["X-Request-Id"]) != "[id-7]" {
		t.Errorf("client received headers %v, want X-Engine e, X-Many [1 2], X-Request-Id id-7, no Keep-Alive", h)
	}
	s := samples.next(t)
	if s.Path != "/v1/embeddings" || s.Model != "org/m" || s.Hive != "gpu-1" || s.Worker != "w1" || s.RequestID != "id-7" || s.Status != http.StatusTeapot ||
		s.Stream || s.FirstByte <= 0 || s.Duration < s.FirstByte || s.BytesIn != int64(len(sent)) || s.BytesOut != int64(len(response)) ||
		s.PromptTokens != 3 || s.CompletionTokens != 4 || s.Retries != 0 || s.Err != nil {
		t.Errorf("sample = %+v, want all fields of the request", s)
	}
	if released := rt.releases(); len(released) != 1 || released[0] != nil {
		t.Errorf("Release() errors = %v, want one nil", released)
	}
	if req := rt.requested()[0]; req.Model != "org/m" || req.Path != "/v1/embeddings" || req.Affinity == 0 {
		t.Errorf("Acquire() request = %+v, want model org/m, path /v1/embeddings, an affinity", req)
	}
}

// TestUnknownLength checks that request and response bodies without a Content-Length are
// forwarded.
func TestUnknownLength(t *testing.T) {
	t.Parallel()
	requests := make(chan request, 1)
	b := worker(t, "w1", recordRequests(requests, func(w http.ResponseWriter) {
		for range 3 {
			_, _ = io.WriteString(w, strings.Repeat("y", 50_000))
			w.(http.Flusher).Flush()
		}
	}))
	url, _ := startGateway(t, &router{backends: []gateway.Backend{b}}, gateway.Options{})
	sent := `{"model":"m","x":"` + strings.Repeat("z", 3_000_000) + `"}`
	resp, err := http.Post(url+"/v1/rerank", "application/json", io.MultiReader(strings.NewReader(sent)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if r := wait(t, requests, "request"); r.body != sent || r.ContentLength != int64(len(sent)) {
		t.Errorf("worker received %d bytes, want %d", len(r.body), len(sent))
	}
	if err != nil || string(body) != strings.Repeat("y", 150_000) {
		t.Errorf("response has %d bytes, %v, want 150000", len(body), err)
	}
}

// TestStream checks that each piece of a stream is forwarded immediately.
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
	rt := &router{backends: []gateway.Backend{b}}
	url, samples := startGateway(t, rt, gateway.Options{})
	list := []string{": hi\n\n", "data: {\"a\"", ":1}\n\n", "data: " + strings.Repeat("x", 20_000) + "\n\n",
		"data: {\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":22}}\n\n", "data: [DONE]\n\n"}
	read := make(chan *http.Response)
	go func() {
		read <- send(t, t.Context(), "POST", url+"/v1/chat/completions", `{"model":"m","stream":true}`)
	}()
	var resp *http.Response
	for _, p := range list {
		select {
		case pieces <- p:
		case <-time.After(20 * time.Second):
			t.Fatal("the worker did not send a piece within 20 s")
		}
		if resp == nil {
			resp = wait(t, read, "response")
			defer resp.Body.Close()
		}
		buf := make([]byte, len(p))
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != p {
			t.Fatalf("client received %q, %v, want %q", buf, err, p)
		}
	}
	close(pieces)
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("after the last piece, client received %q, %v, want EOF", rest, err)
	}
	if s := samples.next(t); !s.Stream || s.Status != 200 || s.PromptTokens != 11 || s.CompletionTokens != 22 || s.Err != nil {
		t.Errorf("sample = %+v, want a stream with status 200, 11 and 22 tokens", s)
	}
}

func TestRequestID(t *testing.T) {
	t.Parallel()
	requests := make(chan request, 1)
	b := worker(t, "w1", recordRequests(requests, func(http.ResponseWriter) {}))
	url, samples := startGateway(t, &router{backends: []gateway.Backend{b}}, gateway.Options{})
	for sent, valid := range map[string]bool{
		"a": true, "~!" + strings.Repeat("x", 126): true, "": false, "a b": false, "é": false, strings.Repeat("x", 129): false,
	} {
		resp, _ := do(t, "POST", url+"/v1/completions", hello, "X-Request-Id", sent)
		id, forwarded, sample := resp.Header.Get("X-Request-Id"), wait(t, requests, "request").Header.Get("X-Request-Id"), samples.next(t).RequestID
		if id != forwarded || id != sample || valid && id != sent || !valid && (len(id) != 16 || strings.Trim(id, "0123456789abcdef") != "") {
			t.Errorf("request ID %q: client received %q, worker %q, observer %q, want the same valid ID", sent, id, forwarded, sample)
		}
	}
	if resp, _ := do(t, "GET", url+"/nowhere", "", "X-Request-Id", "a"); resp.Header.Get("X-Request-Id") != "a" {
		t.Errorf("X-Request-Id of an error = %q, want a", resp.Header.Get("X-Request-Id"))
	}
}

func TestBackendName(t *testing.T) {
	t.Parallel()
	requests := make(chan request, 1)
	b := worker(t, "w1", recordRequests(requests, func(http.ResponseWriter) {}))
	b.Name = `/models/"m".gguf`
	url, _ := startGateway(t, &router{backends: []gateway.Backend{b}}, gateway.Options{})
	do(t, "POST", url+"/v1/chat/completions", `{ "model" :"m","x":"model"}`)
	if r := wait(t, requests, "request"); r.body != `{ "model" :"/models/\"m\".gguf","x":"model"}` || r.ContentLength != int64(len(r.body)) {
		t.Errorf("worker received body %q, want the name of the backend", r.body)
	}
	form := "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nm\r\n--B\r\ncontent-disposition: form-data; name=model\r\n\r\n%s\r\n--B--\r\n"
	do(t, "POST", url+"/v1/audio/transcriptions", fmt.Sprintf(form, "m"), "Content-Type", "multipart/form-data; boundary=B")
	if r := wait(t, requests, "request"); r.body != fmt.Sprintf(form, b.Name) {
		t.Errorf("worker received form %q, want the name of the backend", r.body)
	}
}

func TestForwardForm(t *testing.T) {
	t.Parallel()
	requests := make(chan request, 1)
	b := worker(t, "w1", recordRequests(requests, func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"text":"hi"}`) }))
	rt := &router{backends: []gateway.Backend{b}}
	url, _ := startGateway(t, rt, gateway.Options{})
	form := "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n\x00\xff\r\n--B\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\norg/whisper\r\n--B--\r\n"
	const kind = `multipart/form-data; boundary="B"`
	_, body := do(t, "POST", url+"/v1/audio/translations", form, "Content-Type", kind)
	if r := wait(t, requests, "request"); r.body != form || r.Header.Get("Content-Type") != kind || body != `{"text":"hi"}` {
		t.Errorf("worker received %q, client received %q, want the form and {\"text\":\"hi\"}", r.body, body)
	}
	if m := rt.requested()[0].Model; m != "org/whisper" {
		t.Errorf("model = %q, want org/whisper", m)
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	rt := &router{}
	url, samples := startGateway(t, rt, gateway.Options{})
	if _, body := do(t, "GET", url+"/v1/models", ""); body != `{"object":"list","data":[]}` {
		t.Errorf("GET /v1/models = %s, want an empty list", body)
	}
	rt.models = []gateway.ModelInfo{{ID: "m"}, {ID: "org/m:7b", Created: time.Unix(1700000000, 0), Loaded: true, Workers: []string{"w1"}}}
	const first = `{"id":"m","object":"model","created":0,"owned_by":"rbee","loaded":false,"workers":[]}`
	const second = `{"id":"org/m:7b","object":"model","created":1700000000,"owned_by":"rbee","loaded":true,"workers":["w1"]}`
	for path, want := range map[string]string{
		"/v1/models":              `{"object":"list","data":[` + first + `,` + second + `]}`,
		"/v1/models/m":            first,
		"/v1/models/org/m:7b":     second,
		"/v1/models/org%2Fm%3A7b": second,
	} {
		if resp, body := do(t, "GET", url+path, ""); resp.StatusCode != http.StatusOK || body != want || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("GET %s = %s %s, want %s", path, resp.Status, body, want)
		}
	}
	if resp, body := do(t, "HEAD", url+"/v1/models", ""); resp.StatusCode != http.StatusOK || body != "" || resp.ContentLength <= 0 {
		t.Errorf("HEAD /v1/models = %s %q, want 200 and a Content-Length", resp.Status, body)
	}
	resp, body := do(t, "GET", url+"/v1/models/org/n", "")
	if e := decodeError(t, body); resp.StatusCode != http.StatusNotFound || e.Type != "not_found_error" || *e.Code != "model_not_found" || !strings.Contains(e.Message, `"org/n"`) {
		t.Errorf("GET /v1/models/org/n = %s %s, want 404 model_not_found", resp.Status, body)
	}
	notFound := 0
	for range 7 { // the order of the samples is that in which the requests completed
		if s := samples.next(t); s.Status == http.StatusNotFound {
			notFound++
			if s.Path != "/v1/models/{id}" || s.Model != "org/n" || s.Err == nil {
				t.Errorf("sample = %+v, want path /v1/models/{id}, model org/n, an error", s)
			}
		}
	}
	if notFound != 1 {
		t.Errorf("samples have status 404 %d times, want once", notFound)
	}
}

func TestRequestErrors(t *testing.T) {
	t.Parallel()
	rt := &router{}
	url, samples := startGateway(t, rt, gateway.Options{MaxBody: 1000})
	long := `{"model":"` + strings.Repeat("m", 2000) + `"}`
	for name, test := range map[string]struct {
		method, path, body, header string
		status                     int
		kind, code, param, allow   string
	}{
		"root":           {"GET", "/", "", "", 404, "not_found_error", "path_not_found", "", ""},
		"unknown path":   {"POST", "/v1/chat", hello, "", 404, "not_found_error", "path_not_found", "", ""},
		"two slashes":    {"POST", "//v1/chat/completions", hello, "", 404, "not_found_error", "path_not_found", "", ""},
		"trailing slash": {"POST", "/v1/chat/completions/", hello, "", 404, "not_found_error", "path_not_found", "", ""},
		"dot segments":   {"POST", "/v1/x/../completions", hello, "", 404, "not_found_error", "path_not_found", "", ""},
		"empty model ID": {"GET", "/v1/models/", "", "", 404, "not_found_error", "path_not_found", "", ""},
		"GET":            {"GET", "/v1/chat/completions", "", "", 405, "invalid_request_error", "method_not_allowed", "", "POST"},
		"POST":           {"POST", "/v1/models", "{}", "", 405, "invalid_request_error", "method_not_allowed", "", "GET, HEAD"},
		"DELETE":         {"DELETE", "/v1/models/m", "", "", 405, "invalid_request_error", "method_not_allowed", "", "GET, HEAD"},
		"no model":       {"POST", "/v1/embeddings", "{}", "", 400, "invalid_request_error", "", "model", ""},
		"no body":        {"POST", "/v1/embeddings", "", "", 400, "invalid_request_error", "", "model", ""},
		"not a form":     {"POST", "/v1/audio/translations", hello, "", 400, "invalid_request_error", "", "", ""},
		"body too large": {"POST", "/v1/responses", long, "", 413, "invalid_request_error", "body_too_large", "", ""},
		"compressed":     {"POST", "/v1/responses", "x", "gzip", 415, "invalid_request_error", "", "", ""},
	} {
		resp, body := do(t, test.method, url+test.path, test.body, "Content-Encoding", test.header)
		e := decodeError(t, body)
		orEmpty := func(s *string) string {
			if s == nil {
				return ""
			}
			return *s
		}
		if resp.StatusCode != test.status || e.Type != test.kind || orEmpty(e.Code) != test.code || orEmpty(e.Param) != test.param || resp.Header.Get("Allow") != test.allow {
			t.Errorf("%s: response = %s %v %s, want %+v", name, resp.Status, resp.Header, body, test)
		}
		if s := samples.next(t); s.Status != test.status || s.Err == nil || s.BytesOut != int64(len(body)) || s.Worker != "" {
			t.Errorf("%s: sample = %+v, want status %d, an error, no worker", name, s, test.status)
		}
	}
	// A body without Content-Length that is too large.
	resp, err := http.Post(url+"/v1/responses", "application/json", io.MultiReader(strings.NewReader(long)))
	if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Fatalf("Post() = %v, %v, want status 413", resp, err)
	}
	resp.Body.Close()
	if n := len(rt.requested()); n != 0 {
		t.Errorf("Acquire() was called %d times, want 0", n)
	}
}

func TestRouterErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err    error
		status int
		kind   string
		after  string
	}{
		"unknown model": {&gateway.APIError{Status: 404, Code: "model_not_found", Message: "no"}, 404, "not_found_error", ""},
		"many requests": {&gateway.APIError{Status: 429, Message: "no", RetryAfter: 1500 * time.Millisecond}, 429, "rate_limit_error", "2"},
		"loading":       {fmt.Errorf("wrapped: %w", &gateway.APIError{Status: 503, Message: "no", RetryAfter: time.Millisecond}), 503, "server_error", "1"},
		"explicit type": {&gateway.APIError{Status: 402, Type: "insufficient_quota", Message: "no"}, 402, "insufficient_quota", ""},
		"other error":   {errors.New("failed"), 503, "server_error", ""},
		"canceled":      {context.Canceled, 503, "server_error", ""},
	} {
		url, samples := startGateway(t, &router{err: test.err}, gateway.Options{})
		resp, body := do(t, "POST", url+"/v1/completions", hello)
		if e := decodeError(t, body); resp.StatusCode != test.status || e.Type != test.kind || resp.Header.Get("Retry-After") != test.after {
			t.Errorf("%s: response = %s %v %s, want status %d, type %s, Retry-After %q", name, resp.Status, resp.Header, body, test.status, test.kind, test.after)
		}
		if s := samples.next(t); s.Status != test.status || !errors.Is(s.Err, test.err) || s.Model != "m" {
			t.Errorf("%s: sample = %+v, want status %d and error %v", name, s, test.status, test.err)
		}
	}
}

func TestMaxInFlight(t *testing.T) {
	t.Parallel()
	b := worker(t, "w1", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	rt := &router{backends: []gateway.Backend{b}, proceed: make(chan struct{})}
	url, samples := startGateway(t, rt, gateway.Options{MaxInFlight: 2})
	statuses := make(chan int)
	for range 3 {
		go func() {
			resp := send(t, t.Context(), "POST", url+"/v1/completions", hello)
			resp.Body.Close()
			statuses <- resp.StatusCode
		}()
	}
	if s := wait(t, statuses, "response"); s != 503 { // the other two block
		t.Errorf("status of the third request = %d, want 503", s)
	}
	resp, body := do(t, "POST", url+"/v1/completions", hello)
	if e := decodeError(t, body); resp.StatusCode != http.StatusServiceUnavailable || *e.Code != "overloaded" || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("response at the limit = %s %s, want 503 overloaded, Retry-After 1", resp.Status, body)
	}
	if resp, _ := do(t, "GET", url+"/v1/models", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("GET /v1/models at the limit = %s, want 200", resp.Status)
	}
	close(rt.proceed)
	for range 2 {
		if s := wait(t, statuses, "response"); s != 200 {
			t.Errorf("status of a blocked request = %d, want 200", s)
		}
	}
	for range 5 {
		samples.next(t) // waits until all requests have completed
	}
	if resp, _ := do(t, "POST", url+"/v1/completions", hello); resp.StatusCode != http.StatusOK {
		t.Errorf("response after the other requests completed = %s, want 200", resp.Status)
	}
}

// TestSampleModel checks that a sample has the model of the worker and not the name in
// the request.
func TestSampleModel(t *testing.T) {
	t.Parallel()
	b := worker(t, "w1", respondWith(nil, "{}"))
	b.Model, b.Name = "org/m:Q4", "org/m"
	url, samples := startGateway(t, &router{backends: []gateway.Backend{b}}, gateway.Options{})
	do(t, "POST", url+"/v1/chat/completions", hello)
	if s := <-samples; s.Model != "org/m:Q4" || s.Worker != "w1" {
		t.Errorf("sample = %+v, want model org/m:Q4 and worker w1", s)
	}
}
