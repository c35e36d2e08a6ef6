package access_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/rbee/internal/access"
)

// byPath is what requests to a queen take.
func byPath(r *http.Request) access.Scope {
	switch {
	case r.URL.Path == "/" || r.URL.Path == "/health":
		return ""
	case strings.HasPrefix(r.URL.Path, "/v1/jobs"):
		return access.ScopeAdmin
	}
	return access.ScopeInfer
}

// guarded is a server behind a guard. It answers with the key's name and the size of
// the body, refusals with their code.
func guarded(t testing.TB, o access.Options) *httptest.Server {
	t.Helper()
	if o.Addr == "" {
		o.Addr = "127.0.0.1:8080"
	}
	o.Scope = byPath
	o.Refuse = func(w http.ResponseWriter, _ *http.Request, status int, code, _ string) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, code)
	}
	s := httptest.NewServer(access.Guard(o)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if large := new(http.MaxBytesError); errors.As(err, &large) {
			_, _ = fmt.Fprintf(w, "cut at %d", large.Limit)
			return
		}
		key, ok := access.KeyFrom(r.Context())
		if ok != (key.Name != "") {
			t.Errorf("key %+v, %v", key, ok)
		}
		_, _ = fmt.Fprintf(w, "%s:%d", key.Name, n)
	})))
	t.Cleanup(s.Close)
	return s
}

// send sends a request with these headers; the header "Host" is the host.
func send(t testing.TB, method, url string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
			continue
		}
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

func TestHost(t *testing.T) {
	t.Parallel()
	hosts := []string{"Queen.example.com"}
	keys, _ := newKeys(t)
	_, secret := add(t, keys, "one", access.ScopeAdmin)
	local := guarded(t, access.Options{Keys: keys, Hosts: hosts})
	public := guarded(t, access.Options{Keys: keys, Addr: ":8080", Hosts: hosts})
	for _, test := range []struct {
		host string
		ok   bool
	}{
		{"localhost", true},
		{"LocalHost:8080", true},
		{"127.0.0.1", true},
		{"127.0.0.1:8080", true},
		{"127.1.2.3:1", true},
		{"[::1]", true},
		{"[::1]:8080", true},
		{"queen.example.com", true},
		{"QUEEN.example.com:8080", true},
		{"evil.example.com", false},
		{"evil.example.com:8080", false},
		{"localhost.evil.example.com", false},
		{"127.0.0.1.evil.example.com", false},
		{"evil.queen.example.com", false},
		{"localhost.", false},
		{"192.168.1.5:8080", false},
		{"0.0.0.0:8080", false},
		{"[::]:8080", false},
		{"[2001:db8::1]", false},
		{"localhost@evil", false},
		{"evil@localhost:8080", false},
		{"localhost:8080:8080", false},
	} {
		resp, body := send(t, "GET", local.URL+"/v1/models", nil, "Host", test.host, "X-Api-Key", secret)
		bad := resp.StatusCode == http.StatusBadRequest // net/http itself knows some that are none
		if test.ok && body != "one:0" || !test.ok && !bad && (resp.StatusCode != http.StatusForbidden || body != "host_refused") {
			t.Errorf("%q: %s %q", test.host, resp.Status, body)
		}
		if resp, body := send(t, "GET", public.URL+"/v1/models", nil, "Host", test.host, "X-Api-Key", secret); body != "one:0" && !bad {
			t.Errorf("%q, from outside: %s %q", test.host, resp.Status, body)
		}
	}
	// Also what is open to all is not open to pages.
	if resp, body := send(t, "GET", local.URL+"/health", nil, "Host", "evil.example.com"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("/health: %s %q", resp.Status, body)
	}
}

func TestOrigin(t *testing.T) {
	t.Parallel()
	named := guarded(t, access.Options{Origins: []string{"https://chat.example.com/", "http://localhost:3000", "https://Port.example.com:443", "nonsense"}})
	all := guarded(t, access.Options{Origins: []string{"*"}})
	none := guarded(t, access.Options{})
	const own = "localhost:8080"
	for _, test := range []struct {
		name   string
		server *httptest.Server
		header []string
		status int
		allow  string // Access-Control-Allow-Origin
	}{
		{"a program", none, nil, 200, ""},
		{"own page", none, []string{"Origin", "http://localhost:8080", "Sec-Fetch-Site", "same-origin"}, 200, ""},
		{"own page behind TLS", none, []string{"Origin", "https://localhost:8080"}, 200, ""},
		{"typed", none, []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, 200, ""},
		{"another port", none, []string{"Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site"}, 403, ""},
		{"another name of this machine", none, []string{"Origin", "http://127.0.0.1:8080"}, 403, ""},
		{"another site", none, []string{"Origin", "https://evil.example.com", "Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"another site in an old browser", none, []string{"Origin", "https://evil.example.com"}, 403, ""},
		{"null", none, []string{"Origin", "null"}, 403, ""},
		{"empty", none, []string{"Origin", ""}, 403, ""},
		{"two", none, []string{"Origin", "http://localhost:8080", "Origin", "http://localhost:8080"}, 403, ""},
		{"a user", none, []string{"Origin", "http://evil@localhost:8080"}, 403, ""},
		{"a path", none, []string{"Origin", "http://localhost:8080/x"}, 403, ""},
		{"another scheme", none, []string{"Origin", "ftp://localhost:8080"}, 403, ""},
		{"a picture", none, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 403, ""},
		{"a site unheard of", none, []string{"Sec-Fetch-Site", "galaxy"}, 403, ""},
		{"a link to anything", none, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 403, ""},
		{"other than the named", none, []string{"Origin", "https://chat.example.com"}, 403, ""},

		{"named", named, []string{"Origin", "https://chat.example.com", "Sec-Fetch-Site", "cross-site"}, 200, "https://chat.example.com"},
		{"named, another port", named, []string{"Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site"}, 200, "http://localhost:3000"},
		{"named with the usual port", named, []string{"Origin", "https://port.example.com"}, 200, "https://port.example.com"},
		{"named, by another scheme", named, []string{"Origin", "http://chat.example.com"}, 403, ""},
		{"named, with a port", named, []string{"Origin", "https://chat.example.com:8443"}, 403, ""},
		{"below a named one", named, []string{"Origin", "https://x.chat.example.com"}, 403, ""},
		{"longer than a named one", named, []string{"Origin", "https://chat.example.com.evil.example"}, 403, ""},
		{"named, without saying so", named, []string{"Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"own, beside named ones", named, []string{"Origin", "http://localhost:8080"}, 200, ""},

		{"any", all, []string{"Origin", "https://evil.example.com", "Sec-Fetch-Site", "cross-site"}, 200, "https://evil.example.com"},
		{"any, own", all, []string{"Origin", "http://localhost:8080"}, 200, ""},
		{"any, null", all, []string{"Origin", "null"}, 403, ""},
	} {
		resp, body := send(t, "GET", test.server.URL+"/v1/models", nil, append(test.header, "Host", own)...)
		if resp.StatusCode != test.status || test.status == 403 && body != "origin_refused" {
			t.Errorf("%s: %s %q", test.name, resp.Status, body)
		}
		h := resp.Header
		policy := "same-origin"
		if test.allow != "" {
			policy = ""
		}
		if h.Get("Access-Control-Allow-Origin") != test.allow || h.Get("Cross-Origin-Resource-Policy") != policy || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %v", test.name, h)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("X-Frame-Options") != "SAMEORIGIN" {
			t.Errorf("%s: %v", test.name, h)
		}
		if varies := h.Get("Vary") == "Origin"; varies != (test.server != none) {
			t.Errorf("%s: Vary %q", test.name, h.Get("Vary"))
		}
	}
}

// A link to the front page can be followed from anywhere; nothing else is a link.
func TestLink(t *testing.T) {
	t.Parallel()
	s := guarded(t, access.Options{})
	for _, test := range []struct {
		name, method, path, mode, dest string
		status                         int
	}{
		{"a link", "GET", "/", "navigate", "document", 200},
		{"a link in an old browser", "GET", "/", "navigate", "", 200},
		{"a frame", "GET", "/", "navigate", "iframe", 403},
		{"a script", "GET", "/", "no-cors", "script", 403},
		{"a form", "POST", "/", "navigate", "document", 403},
		{"a deep link", "GET", "/v1/models", "navigate", "document", 403},
	} {
		header := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", test.mode, "Content-Type", "application/json"}
		if test.dest != "" {
			header = append(header, "Sec-Fetch-Dest", test.dest)
		}
		if resp, body := send(t, test.method, s.URL+test.path, nil, header...); resp.StatusCode != test.status {
			t.Errorf("%s: %s %q", test.name, resp.Status, body)
		}
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	keys, _ := newKeys(t)
	s := guarded(t, access.Options{Keys: keys, Addr: ":8080", Origins: []string{"https://chat.example.com"}})
	ask := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type"}
	resp, body := send(t, "OPTIONS", s.URL+"/v1/chat/completions", nil, append(ask, "Origin", "https://chat.example.com")...)
	if resp.StatusCode != http.StatusNoContent || body != "" {
		t.Errorf("named: %s %q", resp.Status, body)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin":      "https://chat.example.com",
		"Access-Control-Allow-Methods":     "GET, POST, DELETE",
		"Access-Control-Allow-Headers":     "Authorization, Content-Type, X-Request-Id",
		"Access-Control-Max-Age":           "600",
		"Access-Control-Allow-Credentials": "",
		"Vary":                             "Origin",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for name, test := range map[string]struct {
		header []string
		status int
	}{
		"another":                 {append(ask, "Origin", "https://evil.example.com"), 403},
		"null":                    {append(ask, "Origin", "null"), 403},
		"own":                     {append(ask, "Origin", s.URL), 401}, // is none, and takes a key
		"without a method":        {[]string{"Origin", "https://chat.example.com"}, 401},
		"what is no page's, none": {ask, 401},
	} {
		resp, body := send(t, "OPTIONS", s.URL+"/v1/chat/completions", nil, test.header...)
		if resp.StatusCode != test.status || resp.Header.Get("Access-Control-Allow-Methods") != "" {
			t.Errorf("%s: %s %q %v", name, resp.Status, body, resp.Header)
		}
	}
}

func TestBody(t *testing.T) {
	t.Parallel()
	s := guarded(t, access.Options{MaxBody: 100})
	small, large := strings.Repeat("x", 100), strings.Repeat("x", 101)
	unsized := func(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }
	for _, test := range []struct {
		name, method, path, kind string
		body                     io.Reader
		status                   int
		want                     string
	}{
		{"JSON", "POST", "/v1/x", "application/json", strings.NewReader(small), 200, ":100"},
		{"JSON with a charset", "PUT", "/v1/x", "Application/JSON; charset=utf-8", strings.NewReader("{}"), 200, ":2"},
		{"of no stated size", "POST", "/v1/x", "application/json", unsized(small), 200, ":100"},
		{"too large", "POST", "/v1/x", "application/json", strings.NewReader(large), 413, "body_too_large"},
		{"too large, of no stated size", "POST", "/v1/x", "application/json", unsized(large), 200, "cut at 100"},
		{"too large for another method", "DELETE", "/v1/x", "", strings.NewReader(large), 413, "body_too_large"},
		{"no type", "POST", "/v1/x", "", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"no type and no body", "POST", "/v1/x", "", nil, 415, "unsupported_media_type"},
		{"text", "PATCH", "/v1/x", "text/plain", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"text that looks like JSON", "POST", "/v1/x", "text/plain; application/json", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"a form's fields", "POST", "/v1/x", "application/x-www-form-urlencoded", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"a form", "POST", "/v1/x", "multipart/form-data; boundary=x", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"audio", "POST", "/v1/audio/transcriptions", "multipart/form-data; boundary=x", strings.NewReader("{}"), 200, ":2"},
		{"a picture", "POST", "/v1/images/edits", "multipart/form-data; boundary=x", strings.NewReader("{}"), 200, ":2"},
		{"JSON for pictures", "POST", "/v1/images/generations", "application/json", strings.NewReader("{}"), 200, ":2"},
		{"text for pictures", "POST", "/v1/images/generations", "text/plain", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"a form by a detour", "POST", "/v1/audio/../jobs", "multipart/form-data; boundary=x", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"a form by a hidden detour", "POST", "/v1/audio/%2e%2e/jobs", "multipart/form-data; boundary=x", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"DELETE", "DELETE", "/v1/x", "", nil, 200, ":0"},
		{"GET", "GET", "/v1/x", "", nil, 200, ":0"},
	} {
		var header []string
		if test.kind != "" {
			header = []string{"Content-Type", test.kind}
		}
		if resp, body := send(t, test.method, s.URL+test.path, test.body, header...); resp.StatusCode != test.status || body != test.want {
			t.Errorf("%s: %s %q, want %d %q", test.name, resp.Status, body, test.status, test.want)
		}
	}
}

// What a page on another site can send without asking is refused at each of the
// fences by itself.
func TestForgedRequest(t *testing.T) {
	t.Parallel()
	s := guarded(t, access.Options{})
	for _, test := range []struct {
		name   string
		header []string
		want   string
	}{
		{"as browsers send it", []string{"Content-Type", "text/plain", "Origin", "https://evil.example.com", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, "origin_refused"},
		{"only the type", []string{"Content-Type", "text/plain;charset=UTF-8"}, "unsupported_media_type"},
		{"only the origin", []string{"Content-Type", "application/json", "Origin", "https://evil.example.com"}, "origin_refused"},
		{"only the site", []string{"Content-Type", "application/json", "Sec-Fetch-Site", "cross-site"}, "origin_refused"},
		{"by rebinding", []string{"Content-Type", "application/json", "Host", "evil.example.com", "Origin", "http://evil.example.com", "Sec-Fetch-Site", "same-origin"}, "host_refused"},
		{"from a sandboxed frame", []string{"Content-Type", "text/plain", "Origin", "null", "Sec-Fetch-Site", "cross-site"}, "origin_refused"},
	} {
		resp, body := send(t, "POST", s.URL+"/v1/jobs", strings.NewReader(`{"operation":"hive_list"}`), test.header...)
		if resp.StatusCode < 400 || body != test.want {
			t.Errorf("%s: %s %q, want %q", test.name, resp.Status, body, test.want)
		}
	}
}

func TestKeyNeeded(t *testing.T) {
	t.Parallel()
	keys, path := newKeys(t)
	_, infer := add(t, keys, "laptop", access.ScopeInfer)
	_, admin := add(t, keys, "me", access.ScopeAdmin)
	var lines bytes.Buffer
	s := guarded(t, access.Options{Keys: keys, Addr: "0.0.0.0:8080", Origins: []string{"https://chat.example.com"}, Log: slog.New(slog.NewTextHandler(&lines, nil))})
	cookie := func(secret string, more ...string) []string {
		return append([]string{"Cookie", "other=1; " + access.Cookie + "=" + secret}, more...)
	}
	for _, test := range []struct {
		name, method, path string
		header             []string
		status             int
		want               string
	}{
		{"open to all", "GET", "/health", nil, 200, ":0"},
		{"none", "GET", "/v1/models", nil, 401, "missing_api_key"},
		{"bearer", "GET", "/v1/models", []string{"Authorization", "Bearer " + infer}, 200, "laptop:0"},
		{"bearer in small letters", "GET", "/v1/models", []string{"Authorization", "bearer  " + infer}, 200, "laptop:0"},
		{"x-api-key", "GET", "/v1/models", []string{"X-Api-Key", infer}, 200, "laptop:0"},
		{"basic", "GET", "/v1/models", []string{"Authorization", "Basic " + infer}, 401, "missing_api_key"},
		{"a proxy's own and ours", "GET", "/v1/models", []string{"Authorization", "Basic eDp5", "X-Api-Key", infer}, 200, "laptop:0"},
		{"no scheme", "GET", "/v1/models", []string{"Authorization", infer}, 401, "missing_api_key"},
		{"no secret", "GET", "/v1/models", []string{"Authorization", "Bearer "}, 401, "missing_api_key"},
		{"wrong", "GET", "/v1/models", []string{"Authorization", "Bearer sk-1234"}, 401, "invalid_api_key"},
		{"wrong, and right elsewhere", "GET", "/v1/models", cookie(infer, "Authorization", "Bearer sk-1234"), 401, "invalid_api_key"},
		{"in the address", "GET", "/v1/models?key=" + infer, nil, 401, "missing_api_key"},
		{"too little", "GET", "/v1/jobs", []string{"Authorization", "Bearer " + infer}, 403, "insufficient_scope"},
		{"admin", "GET", "/v1/jobs", []string{"Authorization", "Bearer " + admin}, 200, "me:0"},
		{"admin asks a model", "GET", "/v1/models", []string{"Authorization", "Bearer " + admin}, 200, "me:0"},
		{"a named page", "GET", "/v1/models", []string{"Authorization", "Bearer " + infer, "Origin", "https://chat.example.com", "Sec-Fetch-Site", "cross-site"}, 200, "laptop:0"},

		{"cookie", "GET", "/v1/jobs", cookie(admin, "Sec-Fetch-Site", "same-origin"), 200, "me:0"},
		{"cookie, typed address", "GET", "/v1/jobs", cookie(admin, "Sec-Fetch-Site", "none"), 200, "me:0"},
		{"cookie without TLS, where browsers say less", "GET", "/v1/jobs", cookie(admin), 200, "me:0"},
		{"cookie, changing", "POST", "/v1/jobs", cookie(admin, "Origin", s.URL, "Sec-Fetch-Site", "same-origin"), 200, "me:0"},
		{"cookie, changing, without TLS", "DELETE", "/v1/jobs/1", cookie(admin, "Origin", s.URL), 200, "me:0"},
		{"cookie, changing, from nowhere", "POST", "/v1/jobs", cookie(admin), 401, "missing_api_key"},
		{"cookie, too little", "GET", "/v1/jobs", cookie(infer), 403, "insufficient_scope"},
		{"cookie, wrong", "GET", "/v1/jobs", cookie("x"), 401, "invalid_api_key"},
		{"cookie from the same site", "GET", "/v1/jobs", cookie(admin, "Sec-Fetch-Site", "same-site"), 401, "missing_api_key"},
		{"cookie, and a browser of two minds", "GET", "/v1/jobs", cookie(admin, "Origin", s.URL, "Sec-Fetch-Site", "same-site"), 401, "missing_api_key"},
		{"cookie from a named page", "GET", "/v1/jobs", cookie(admin, "Origin", "https://chat.example.com"), 401, "missing_api_key"},
		{"cookie from another page", "GET", "/v1/jobs", cookie(admin, "Origin", "https://evil.example.com"), 403, "origin_refused"},
	} {
		resp, body := send(t, test.method, s.URL+test.path, nil, append(test.header, "Content-Type", "application/json")...)
		if resp.StatusCode != test.status || body != test.want {
			t.Errorf("%s: %s %q, want %d %q", test.name, resp.Status, body, test.status, test.want)
		}
		if challenged := resp.Header.Get("Www-Authenticate") == "Bearer"; challenged != (test.status == 401) {
			t.Errorf("%s: WWW-Authenticate %v", test.name, challenged)
		}
		if named := strings.Contains(test.name, "named"); named != (resp.Header.Get("Access-Control-Allow-Origin") != "") {
			t.Errorf("%s: a page could not read this: %v", test.name, resp.Header)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := guarded(t, access.Options{Keys: access.OpenKeys(path)})
	if resp, body := send(t, "GET", broken.URL+"/v1/models", nil, "X-Api-Key", admin); resp.StatusCode != http.StatusInternalServerError || body != "keys_unreadable" {
		t.Errorf("broken: %s %q", resp.Status, body)
	}
	s.Close() // the log is written
	for _, want := range []string{"code=invalid_api_key", "status=403", "path=/v1/jobs", "remote=127.0.0.1"} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("the log lacks %s: %s", want, lines.String())
		}
	}
	if strings.Contains(lines.String(), infer) || strings.Contains(lines.String(), admin) {
		t.Errorf("the log holds a secret: %s", lines.String())
	}
}

// Without keys only loopback is served.
func TestNoKeys(t *testing.T) {
	t.Parallel()
	for addr, open := range map[string]bool{
		"127.0.0.1:8080": true, "127.9.9.9:1": true, "localhost:8080": true, "[::1]:8080": true, "127.0.0.1": true,
		":8080": false, "0.0.0.0:8080": false, "[::]:8080": false, "192.168.1.5:8080": false, "queen.example.com:80": false, "x y": false,
	} {
		s := guarded(t, access.Options{Addr: addr})
		resp, body := send(t, "GET", s.URL+"/v1/jobs", nil)
		if open && resp.StatusCode != http.StatusOK || !open && body != "keys_required" {
			t.Errorf("%s: %s %q", addr, resp.Status, body)
		}
		if resp, body := send(t, "GET", s.URL+"/health", nil); resp.StatusCode != http.StatusOK {
			t.Errorf("%s, open to all: %s %q", addr, resp.Status, body)
		}
	}
}

// Where no key is asked for, a page that was named to ask models does nothing else.
func TestNamedPageWithoutKeys(t *testing.T) {
	t.Parallel()
	var told access.Scope
	s := httptest.NewServer(access.Guard(access.Options{Addr: "127.0.0.1:8080", Scope: byPath, Origins: []string{"https://chat.example.com"}})(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { told = access.ScopeFrom(r.Context()) })))
	t.Cleanup(s.Close)
	page := []string{"Origin", "https://chat.example.com", "Sec-Fetch-Site", "cross-site"}
	for _, test := range []struct {
		name, method, path string
		header             []string
		status             int
		told               access.Scope
	}{
		{"a program, a model", "POST", "/v1/chat/completions", nil, 200, access.ScopeAdmin},
		{"a program, a job", "POST", "/v1/jobs", nil, 200, access.ScopeAdmin},
		{"the page, a model", "POST", "/v1/chat/completions", page, 200, access.ScopeInfer},
		{"the page, a job", "POST", "/v1/jobs", page, 403, ""},
		{"the page, a job's end", "DELETE", "/v1/jobs/1", page, 403, ""},
		{"the page, the jobs", "GET", "/v1/jobs", page, 403, ""},
		{"the page, what is open to all", "GET", "/health", page, 200, ""},
		{"the own page, a job", "POST", "/v1/jobs", []string{"Origin", s.URL, "Sec-Fetch-Site", "same-origin"}, 200, access.ScopeAdmin},
	} {
		told = ""
		resp, body := send(t, test.method, s.URL+test.path, nil, append(test.header, "Content-Type", "application/json")...)
		if resp.StatusCode != test.status || told != test.told || test.status == 403 && !strings.Contains(body, "may ask models and no more") {
			t.Errorf("%s: %s %q, with the scope %q", test.name, resp.Status, body, told)
		}
	}
}

// A proxy makes everybody look like this machine, so a server that goes by the names of
// one asks for keys.
func TestNoKeysBehindProxy(t *testing.T) {
	t.Parallel()
	s := guarded(t, access.Options{Hosts: []string{"queen.example.com"}})
	for _, host := range []string{"queen.example.com", "localhost"} {
		if resp, body := send(t, "GET", s.URL+"/v1/models", nil, "Host", host); resp.StatusCode != http.StatusForbidden || body != "keys_required" {
			t.Errorf("%s: %s %q", host, resp.Status, body)
		}
	}
}

// The zero Options let nobody in.
func TestZeroOptions(t *testing.T) {
	t.Parallel()
	keys, _ := newKeys(t)
	_, infer := add(t, keys, "one", access.ScopeInfer)
	for name, o := range map[string]access.Options{"zero": {}, "with keys": {Keys: keys}} {
		s := httptest.NewServer(access.Guard(o)(http.NotFoundHandler()))
		t.Cleanup(s.Close)
		if resp, body := send(t, "GET", s.URL, nil, "X-Api-Key", infer); resp.StatusCode != http.StatusForbidden || len(body) < 20 {
			t.Errorf("%s: %s %q", name, resp.Status, body)
		}
	}
}

// FuzzGuard looks for a Host and an Origin that break the guard or pass it.
func FuzzGuard(f *testing.F) {
	for _, s := range []string{"localhost", "localhost:8080", "[::1]:80", "http://localhost", "https://evil.example.com", "null", "*", "[", "://", "%", "::1", "[::1%25lo]", "//", "http://[::1", "http://localhost:", "\x00", "ſ", "http://K"} {
		f.Add(s, s, s)
		f.Add("localhost", "http://"+s, "cross-site")
		f.Add("evil@"+s, "http://evil@"+s, "same-origin")
	}
	open := func(*http.Request) access.Scope { return "" }
	handler := access.Guard(access.Options{Addr: "[::1]:8080", Hosts: []string{"queen"}, Origins: []string{"https://chat.example.com"}, Scope: open})(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	f.Fuzz(func(t *testing.T, host, origin, site string) {
		r := httptest.NewRequest(http.MethodGet, "/v1/models", http.NoBody)
		r.Host = host
		r.Header["Origin"], r.Header["Sec-Fetch-Site"] = []string{origin}, []string{site}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusTeapot {
			if w.Code != http.StatusForbidden {
				t.Fatalf("status %d", w.Code)
			}
			return
		}
		// What passes is a name of this server, and its own page or the named one.
		low := strings.ToLower(host)
		if !strings.HasPrefix(low, "localhost") && !strings.HasPrefix(low, "queen") && !strings.HasPrefix(low, "127.") && !strings.HasPrefix(low, "[::") && !strings.HasPrefix(low, "[0") {
			t.Errorf("the host %q passed", host)
		}
		_, from, _ := strings.Cut(strings.ToLower(origin), "://")
		trim := func(s string) string { return strings.TrimSuffix(strings.TrimSuffix(s, ":80"), ":443") }
		if trim(from) != trim(low) && trim(from) != "chat.example.com" {
			t.Errorf("the origin %q passed at the host %q", origin, host)
		}
	})
}

func BenchmarkGuard(b *testing.B) {
	keys, _ := newKeys(b)
	_, secret := add(b, keys, "one", access.ScopeInfer)
	handler := access.Guard(access.Options{Keys: keys, Addr: "127.0.0.1:8080", Scope: byPath})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8080/v1/chat/completions", strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+secret)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
