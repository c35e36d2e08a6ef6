package echo

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// startServer starts a server with the handler of the worker and returns the base URL.
func startServer(t *testing.T, o Options) string {
	t.Helper()
	srv := httptest.NewServer(New(o))
	t.Cleanup(srv.Close)
	return srv.URL
}

// send sends a request and returns the status, the header and the body of the response.
func send(t *testing.T, method, url, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(out)
}

// compareJSON compares the JSON objects got and want. Before that, it checks and replaces the
// values of got that differ between runs.
func compareJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w map[string]any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("cannot parse response %s: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("cannot parse expected value %s: %v", want, err)
	}
	if id, ok := g["id"].(string); ok && g["object"] != "model" {
		prefix, random, _ := strings.Cut(id, "-")
		if len(random) < 20 {
			t.Errorf("id = %q, want a random part of at least 20 characters", id)
		}
		g["id"] = prefix
	}
	if created, ok := g["created"].(float64); ok {
		if age := float64(time.Now().Unix()) - created; age < 0 || age > 60 {
			t.Errorf("created = %v, want the current time", created)
		}
		g["created"] = 1.0
	}
	if diff := cmp.Diff(w, g); diff != "" {
		t.Errorf("response = %s, differs (-want +got):\n%s", got, diff)
	}
}

func TestHealthAndModels(t *testing.T) {
	t.Parallel()
	base := startServer(t, Options{Model: "org/parrot"})
	status, header, body := send(t, "GET", base+"/health", "")
	if status != 200 || header.Get("Content-Type") != "application/json" {
		t.Errorf("GET /health = status %d, header %v, want 200 and application/json", status, header)
	}
	compareJSON(t, body, `{"status":"ok"}`)

	_, _, body = send(t, "GET", base+"/v1/models", "")
	var list struct {
		Object string
		Data   []model
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Data) != 1 {
		t.Fatalf("GET /v1/models = %s, %v, want one model", body, err)
	}
	if m := list.Data[0]; list.Object != "list" || m.ID != "org/parrot" || m.Object != "model" || m.OwnedBy != "rbee" {
		t.Errorf("GET /v1/models = %s, want org/parrot", body)
	}
	_, _, body = send(t, "GET", base+"/v1/models/org/parrot", "")
	compareJSON(t, body, `{"id":"org/parrot","object":"model","created":1,"owned_by":"rbee"}`)
}

func TestCompletions(t *testing.T) {
	t.Parallel()
	base := startServer(t, Options{})
	for _, tt := range []struct{ name, path, body, want string }{
		{"chat", "/v1/chat/completions",
			`{"model":"echo","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"one <two>\n three"}]}`,
			`{"id":"chatcmpl","object":"chat.completion","created":1,"model":"echo","choices":[{"index":0,
			"message":{"role":"assistant","content":"one <two>\n three","refusal":null},"logprobs":null,"finish_reason":"stop"}],
			"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}`},
		{"last user message with parts", "/v1/chat/completions",
			`{"model":"echo","max_completion_tokens":3,"max_tokens":1,"messages":[{"role":"user","content":"first"},
			{"role":"user","content":[{"type":"text","text":"a b"},{"type":"image_url","image_url":{"url":"x"}},{"type":"text","text":"c d"}]},
			{"role":"assistant","content":null}]}`,
			`{"id":"chatcmpl","object":"chat.completion","created":1,"model":"echo","choices":[{"index":0,
			"message":{"role":"assistant","content":"a b\nc","refusal":null},"logprobs":null,"finish_reason":"length"}],
			"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}`},
		{"completion", "/v1/completions",
			`{"model":"echo","prompt":"to be or not","stop":["or","x"]}`,
			`{"id":"cmpl","object":"text_completion","created":1,"model":"echo","choices":[{"index":0,
			"text":"to be ","logprobs":null,"finish_reason":"stop"}],
			"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}`},
		{"several prompts", "/v1/completions",
			`{"model":"echo","prompt":["a b c","d"],"max_tokens":2}`,
			`{"id":"cmpl","object":"text_completion","created":1,"model":"echo","choices":[
			{"index":0,"text":"a b","logprobs":null,"finish_reason":"length"},
			{"index":1,"text":"d","logprobs":null,"finish_reason":"stop"}],
			"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			status, _, body := send(t, "POST", base+tt.path, tt.body)
			if status != 200 {
				t.Errorf("status = %d, want 200", status)
			}
			compareJSON(t, body, tt.want)
		})
	}
}

// parseEvents splits a stream into the data of its events.
func parseEvents(t *testing.T, stream string) []string {
	t.Helper()
	var all []string
	for _, e := range strings.SplitAfter(stream, "\n\n") {
		if e == "" {
			continue
		}
		data, ok := strings.CutPrefix(e, "data: ")
		if !ok || !strings.HasSuffix(e, "\n\n") {
			t.Fatalf("invalid event %q, want data: and an empty line", e)
		}
		all = append(all, strings.TrimSuffix(data, "\n\n"))
	}
	return all
}

func TestStreams(t *testing.T) {
	t.Parallel()
	base := startServer(t, Options{})
	chunk := func(usage, choices string) string {
		return `{"id":"chatcmpl","object":"chat.completion.chunk","created":1,"model":"echo"` + usage + `,"choices":` + choices + `}`
	}
	text := func(choices string) string {
		return `{"id":"cmpl","object":"text_completion","created":1,"model":"echo","choices":` + choices + `}`
	}
	for _, tt := range []struct {
		name, path, body string
		want             []string
	}{
		{"chat with usage", "/v1/chat/completions",
			`{"model":"echo","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi  you"}]}`,
			[]string{
				chunk(`,"usage":null`, `[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]`),
				chunk(`,"usage":null`, `[{"index":0,"delta":{"content":"hi"},"logprobs":null,"finish_reason":null}]`),
				chunk(`,"usage":null`, `[{"index":0,"delta":{"content":"  you"},"logprobs":null,"finish_reason":null}]`),
				chunk(`,"usage":null`, `[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]`),
				chunk(`,"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4}`, `[]`),
			}},
		{"completions", "/v1/completions",
			`{"model":"echo","stream":true,"prompt":["a b","c"],"max_tokens":1}`,
			[]string{
				text(`[{"index":0,"text":"a","logprobs":null,"finish_reason":null}]`),
				text(`[{"index":0,"text":"","logprobs":null,"finish_reason":"length"}]`),
				text(`[{"index":1,"text":"c","logprobs":null,"finish_reason":null}]`),
				text(`[{"index":1,"text":"","logprobs":null,"finish_reason":"stop"}]`),
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			status, header, body := send(t, "POST", base+tt.path, tt.body)
			if status != 200 || header.Get("Content-Type") != "text/event-stream" {
				t.Errorf("POST %s = status %d, header %v, want 200 and text/event-stream", tt.path, status, header)
			}
			got := parseEvents(t, body)
			if len(got) != len(tt.want)+1 || got[len(tt.want)] != "[DONE]" {
				t.Fatalf("stream has %d events, want %d and [DONE]: %s", len(got), len(tt.want), body)
			}
			ids := map[string]bool{}
			for i, want := range tt.want {
				var c reply
				if err := json.Unmarshal([]byte(got[i]), &c); err != nil {
					t.Fatal(err)
				}
				ids[c.ID] = true
				compareJSON(t, got[i], want)
			}
			if len(ids) != 1 {
				t.Errorf("IDs of the chunks = %v, want one ID", ids)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	base := startServer(t, Options{})
	const chatPath, textPath = "/v1/chat/completions", "/v1/completions"
	const user = `"messages":[{"role":"user","content":"x"}]`
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		param, code, message     string // message is a substring
	}{
		{"not JSON", "POST", chatPath, `{`, 400, "", "", "parse the JSON"},
		{"two values", "POST", chatPath, `{} {}`, 400, "", "", "parse the JSON"},
		{"empty", "POST", textPath, ``, 400, "", "", "parse the JSON"},
		{"wrong type", "POST", chatPath, `{"model":"echo","max_tokens":"many",` + user + `}`, 400, "max_tokens", "", "an integer"},
		{"no model", "POST", chatPath, `{` + user + `}`, 400, "model", "", "must provide"},
		{"unknown model", "POST", chatPath, `{"model":"gpt",` + user + `}`, 404, "model", "model_not_found", "`gpt`"},
		{"unknown model, GET", "GET", "/v1/models/gpt", ``, 404, "model", "model_not_found", "`gpt`"},
		{"no messages", "POST", chatPath, `{"model":"echo"}`, 400, "messages", "", "at least one"},
		{"role", "POST", chatPath, `{"model":"echo","messages":[{"role":"king","content":"x"}]}`, 400, "messages", "", `"king"`},
		{"content", "POST", chatPath, `{"model":"echo","messages":[{"role":"user","content":7}]}`, 400, "messages", "", "string or an array"},
		{"part without type", "POST", chatPath, `{"model":"echo","messages":[{"role":"user","content":[{}]}]}`, 400, "messages", "", "no 'type'"},
		{"part without text", "POST", chatPath, `{"model":"echo","messages":[{"role":"user","content":[{"type":"text"}]}]}`, 400, "messages", "", "no 'text'"},
		{"no tokens", "POST", chatPath, `{"model":"echo","max_completion_tokens":0,` + user + `}`, 400, "max_completion_tokens", "", "smallest value is 1"},
		{"two choices", "POST", chatPath, `{"model":"echo","n":2,` + user + `}`, 400, "n", "", "one choice"},
		{"stream options alone", "POST", chatPath, `{"model":"echo","stream_options":{},` + user + `}`, 400, "stream_options", "", "only allowed"},
		{"many stops", "POST", chatPath, `{"model":"echo","stop":["` + strings.Repeat(`a","`, 16) + `a"],` + user + `}`, 400, "stop", "", "17"},
		{"no prompt", "POST", textPath, `{"model":"echo"}`, 400, "prompt", "", "string or an array"},
		{"tokens as prompt", "POST", textPath, `{"model":"echo","prompt":[1,2]}`, 400, "", "", "tokens are not supported"},
		{"null prompt", "POST", textPath, `{"model":"echo","prompt":["a",null]}`, 400, "", "", "array of strings"},
		{"many prompts", "POST", textPath, `{"model":"echo","prompt":["` + strings.Repeat(`a","`, 2048) + `a"]}`, 400, "prompt", "", "2049"},
		{"GET", "GET", chatPath, ``, 405, "", "method_not_supported", "allowed methods: POST"},
		{"DELETE", "DELETE", "/v1/models", ``, 405, "", "method_not_supported", "GET, HEAD"},
		{"unknown path", "GET", "/v2", ``, 404, "", "unknown_url", "GET /v2"},
		{"too large", "POST", textPath, strings.Repeat(" ", maxBody+1), 413, "", "request_too_large", bytesize.Format(maxBody)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			status, header, body := send(t, tt.method, base+tt.path, tt.body)
			var got struct{ Error *apiError }
			if err := json.Unmarshal([]byte(body), &got); err != nil || got.Error == nil {
				t.Fatalf("body = %q, %v, want an error object", body, err)
			}
			for _, key := range []string{`"message":`, `"type":"invalid_request_error"`, `"param":`, `"code":`} {
				if !strings.Contains(body, key) {
					t.Errorf("body = %s, want %s in it", body, key)
				}
			}
			text := func(s *string) string {
				if s == nil {
					return ""
				}
				return *s
			}
			if status != tt.status || text(got.Error.Param) != tt.param || text(got.Error.Code) != tt.code ||
				!strings.Contains(got.Error.Message, tt.message) {
				t.Errorf("%s %s = status %d, body %s, want %d, param %q, code %q and message %q", tt.method, tt.path, status, body, tt.status, tt.param, tt.code, tt.message)
			}
			if allow := header.Get("Allow"); (status == 405) != (allow != "") {
				t.Errorf("status %d, Allow = %q, want Allow only with 405", status, allow)
			}
		})
	}
}

// TestClientDisconnects checks that a stream, which would otherwise take hours, stops when
// its client disconnects.
func TestClientDisconnects(t *testing.T) {
	t.Parallel()
	inner := New(Options{Delay: 5 * time.Millisecond})
	returned := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(returned)
		inner.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ctx, disconnect := context.WithCancel(t.Context())
	defer disconnect()
	body := `{"model":"echo","stream":true,"prompt":"` + strings.Repeat("word ", 1_000_000) + `"}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.URL+"/v1/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || !strings.Contains(line, `"text":"word"`) {
		t.Fatalf("first event = %q, %v, want the text word", line, err)
	}
	disconnect()
	select {
	case <-returned:
	case <-time.After(20 * time.Second):
		t.Fatal("the handler has not returned 20s after its client disconnected")
	}
}

// startServe runs Serve and returns its address, a function that stops it, and its result.
func startServe(t *testing.T, o Options) (addr string, stop func(), result <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() { done <- Serve(ctx, o, func(a string) { ready <- a }) }()
	select {
	case addr = <-ready:
	case err := <-done:
		t.Fatalf("Serve() = %v, want it to be ready", err)
	}
	return addr, cancel, done
}

func TestServeStops(t *testing.T) {
	t.Parallel()
	addr, stop, result := startServe(t, Options{})
	if host, port, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" || port == "0" {
		t.Errorf("address = %q, %v, want a port of 127.0.0.1", addr, err)
	}
	if status, _, _ := send(t, "GET", "http://"+addr+"/health", ""); status != 200 {
		t.Errorf("GET /health: status %d, want 200", status)
	}
	stop()
	if err := <-result; err != nil {
		t.Errorf("Serve() = %v, want nil", err)
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		c.Close()
		t.Errorf("Dial(%q) after Serve() returned = nil, want an error", addr)
	}
}

// TestServeGrace checks that a request in flight finishes within the grace period or is
// canceled after it.
func TestServeGrace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		words    int
		grace    time.Duration
		complete bool
	}{
		{"finishes", 20, time.Minute, true},
		{"canceled", 1_000_000, 50 * time.Millisecond, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			addr, stop, result := startServe(t, Options{Delay: 5 * time.Millisecond, Grace: tt.grace})
			body := `{"model":"echo","stream":true,"prompt":"` + strings.Repeat("w ", tt.words) + `"}`
			resp, err := http.Post("http://"+addr+"/v1/completions", "application/json", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			stop()
			rest, err := io.ReadAll(resp.Body)
			if complete := err == nil && strings.HasSuffix(string(rest), "data: [DONE]\n\n"); complete != tt.complete {
				t.Errorf("stream complete = %t (%v), want %t", complete, err, tt.complete)
			}
			if err := <-result; err != nil {
				t.Errorf("Serve() = %v, want nil", err)
			}
		})
	}
}

func TestServePortInUse(t *testing.T) {
	t.Parallel()
	addr, _, _ := startServe(t, Options{})
	_, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	err := Serve(t.Context(), Options{Port: n}, func(string) { t.Error("Serve() called ready on a port in use, want no call") })
	if err == nil || !strings.Contains(err.Error(), addr) {
		t.Errorf("Serve() with the port in use = %v, want an error with %s", err, addr)
	}
}
