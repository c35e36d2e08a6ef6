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

// scopeByPath returns the scopes that requests to a queen need.
func scopeByPath(r *http.Request) access.Scope {
	switch {
	case r.URL.Path == "/" || r.URL.Path == "/health":
		return ""
	case strings.HasPrefix(r.URL.Path, "/v1/jobs"):
		return access.ScopeAdmin
	}
	return access.ScopeInfer
}

// newGuardedServer starts a server behind a guard. The server responds with the name of the
// key and the size of the body, or with the code of the denial.
func newGuardedServer(t testing.TB, o access.Options) *httptest.Server {
	t.Helper()
	if o.Addr == "" {
		o.Addr = "127.0.0.1:8080"
	}
	o.Scope = scopeByPath
	o.WriteDenial = func(w http.ResponseWriter, _ *http.Request, status int, code, _ string) {
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
			t.Errorf("KeyFrom() = %+v, %t, want true only with a name", key, ok)
		}
		_, _ = fmt.Fprintf(w, "%s:%d", key.Name, n)
	})))
	t.Cleanup(s.Close)
	return s
}

// send sends a request with the given header names and values; the name "Host" sets the host
// of the request.
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

func TestHostHeader(t *testing.T) {
	t.Parallel()
	hosts := []string{"Queen.example.com"}
	keys, _ := newKeys(t)
	_, secret := add(t, keys, "one", access.ScopeAdmin)
	local := newGuardedServer(t, access.Options{Keys: keys, Hosts: hosts})
	public := newGuardedServer(t, access.Options{Keys: keys, Addr: ":8080", Hosts: hosts})
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
		badRequest := resp.StatusCode == http.StatusBadRequest // net/http itself rejects some invalid hosts
		if test.ok && body != "one:0" || !test.ok && !badRequest && (resp.StatusCode != http.StatusForbidden || body != "host_refused") {
			t.Errorf("Host %q on loopback: response = %s %q, want accepted = %t", test.host, resp.Status, body, test.ok)
		}
		if resp, body := send(t, "GET", public.URL+"/v1/models", nil, "Host", test.host, "X-Api-Key", secret); body != "one:0" && !badRequest {
			t.Errorf("Host %q on all interfaces: response = %s %q, want one:0", test.host, resp.Status, body)
		}
	}
	// The Host header is also checked for requests that need no key.
	if resp, body := send(t, "GET", local.URL+"/health", nil, "Host", "evil.example.com"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("GET /health with another host: response = %s %q, want 403", resp.Status, body)
	}
}

func TestOriginHeader(t *testing.T) {
	t.Parallel()
	listed := newGuardedServer(t, access.Options{Origins: []string{"https://chat.example.com/", "http://localhost:3000", "https://Port.example.com:443", "nonsense"}})
	all := newGuardedServer(t, access.Options{Origins: []string{"*"}})
	none := newGuardedServer(t, access.Options{})
	const own = "localhost:8080"
	for _, test := range []struct {
		name   string
		server *httptest.Server
		header []string
		status int
		allow  string // Access-Control-Allow-Origin
	}{
		{"no browser", none, nil, 200, ""},
		{"own page", none, []string{"Origin", "http://localhost:8080", "Sec-Fetch-Site", "same-origin"}, 200, ""},
		{"own page behind TLS", none, []string{"Origin", "https://localhost:8080"}, 200, ""},
		{"entered address", none, []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate"}, 200, ""},
		{"other port", none, []string{"Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site"}, 403, ""},
		{"other name of this machine", none, []string{"Origin", "http://127.0.0.1:8080"}, 403, ""},
		{"other site", none, []string{"Origin", "https://evil.example.com", "Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"other site, old browser", none, []string{"Origin", "https://evil.example.com"}, 403, ""},
		{"null", none, []string{"Origin", "null"}, 403, ""},
		{"empty", none, []string{"Origin", ""}, 403, ""},
		{"two origins", none, []string{"Origin", "http://localhost:8080", "Origin", "http://localhost:8080"}, 403, ""},
		{"origin with user", none, []string{"Origin", "http://evil@localhost:8080"}, 403, ""},
		{"origin with path", none, []string{"Origin", "http://localhost:8080/x"}, 403, ""},
		{"other scheme", none, []string{"Origin", "ftp://localhost:8080"}, 403, ""},
		{"image", none, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"}, 403, ""},
		{"unknown Sec-Fetch-Site", none, []string{"Sec-Fetch-Site", "galaxy"}, 403, ""},
		{"link to an API path", none, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, 403, ""},
		{"no listed origins", none, []string{"Origin", "https://chat.example.com"}, 403, ""},

		{"listed", listed, []string{"Origin", "https://chat.example.com", "Sec-Fetch-Site", "cross-site"}, 200, "https://chat.example.com"},
		{"listed, other port", listed, []string{"Origin", "http://localhost:3000", "Sec-Fetch-Site", "same-site"}, 200, "http://localhost:3000"},
		{"listed with default port", listed, []string{"Origin", "https://port.example.com"}, 200, "https://port.example.com"},
		{"scheme not listed", listed, []string{"Origin", "http://chat.example.com"}, 403, ""},
		{"port not listed", listed, []string{"Origin", "https://chat.example.com:8443"}, 403, ""},
		{"subdomain of listed", listed, []string{"Origin", "https://x.chat.example.com"}, 403, ""},
		{"listed as prefix", listed, []string{"Origin", "https://chat.example.com.evil.example"}, 403, ""},
		{"listed, no Origin header", listed, []string{"Sec-Fetch-Site", "cross-site"}, 403, ""},
		{"own page, others listed", listed, []string{"Origin", "http://localhost:8080"}, 200, ""},

		{"all, other site", all, []string{"Origin", "https://evil.example.com", "Sec-Fetch-Site", "cross-site"}, 200, "https://evil.example.com"},
		{"all, own page", all, []string{"Origin", "http://localhost:8080"}, 200, ""},
		{"all, null", all, []string{"Origin", "null"}, 403, ""},
	} {
		resp, body := send(t, "GET", test.server.URL+"/v1/models", nil, append(test.header, "Host", own)...)
		if resp.StatusCode != test.status || test.status == 403 && body != "origin_refused" {
			t.Errorf("%s: response = %s %q, want status %d", test.name, resp.Status, body, test.status)
		}
		h := resp.Header
		policy := "same-origin"
		if test.allow != "" {
			policy = ""
		}
		if h.Get("Access-Control-Allow-Origin") != test.allow || h.Get("Cross-Origin-Resource-Policy") != policy || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: headers %v, want Access-Control-Allow-Origin %q and Cross-Origin-Resource-Policy %q", test.name, h, test.allow, policy)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("X-Frame-Options") != "SAMEORIGIN" {
			t.Errorf("%s: headers %v, want the security headers", test.name, h)
		}
		if varies := h.Get("Vary") == "Origin"; varies != (test.server != none) {
			t.Errorf("%s: Vary = %q, want Origin: %t", test.name, h.Get("Vary"), test.server != none)
		}
	}
}

// TestLink checks that a link to the front page, and no other request, is allowed from any page.
func TestLink(t *testing.T) {
	t.Parallel()
	s := newGuardedServer(t, access.Options{})
	for _, test := range []struct {
		name, method, path, mode, dest string
		status                         int
	}{
		{"link", "GET", "/", "navigate", "document", 200},
		{"link in old browser", "GET", "/", "navigate", "", 200},
		{"frame", "GET", "/", "navigate", "iframe", 403},
		{"script", "GET", "/", "no-cors", "script", 403},
		{"form", "POST", "/", "navigate", "document", 403},
		{"link to API path", "GET", "/v1/models", "navigate", "document", 403},
	} {
		header := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", test.mode, "Content-Type", "application/json"}
		if test.dest != "" {
			header = append(header, "Sec-Fetch-Dest", test.dest)
		}
		if resp, body := send(t, test.method, s.URL+test.path, nil, header...); resp.StatusCode != test.status {
			t.Errorf("%s: response = %s %q, want status %d", test.name, resp.Status, body, test.status)
		}
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	keys, _ := newKeys(t)
	s := newGuardedServer(t, access.Options{Keys: keys, Addr: ":8080", Origins: []string{"https://chat.example.com"}})
	preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type"}
	resp, body := send(t, "OPTIONS", s.URL+"/v1/chat/completions", nil, append(preflight, "Origin", "https://chat.example.com")...)
	if resp.StatusCode != http.StatusNoContent || body != "" {
		t.Errorf("preflight of an allowed origin: response = %s %q, want 204", resp.Status, body)
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
			t.Errorf("preflight of an allowed origin: %s = %q, want %q", name, got, want)
		}
	}
	for name, test := range map[string]struct {
		header []string
		status int
	}{
		"other origin": {append(preflight, "Origin", "https://evil.example.com"), 403},
		"null":         {append(preflight, "Origin", "null"), 403},
		"own page":     {append(preflight, "Origin", s.URL), 401}, // not a preflight request, so it needs a key
		"no method":    {[]string{"Origin", "https://chat.example.com"}, 401},
		"no Origin":    {preflight, 401},
	} {
		resp, body := send(t, "OPTIONS", s.URL+"/v1/chat/completions", nil, test.header...)
		if resp.StatusCode != test.status || resp.Header.Get("Access-Control-Allow-Methods") != "" {
			t.Errorf("%s: response = %s %q, headers %v, want status %d and no allowed methods", name, resp.Status, body, resp.Header, test.status)
		}
	}
}

func TestRequestBody(t *testing.T) {
	t.Parallel()
	s := newGuardedServer(t, access.Options{MaxBody: 100})
	small, large := strings.Repeat("x", 100), strings.Repeat("x", 101)
	unsized := func(s string) io.Reader { return io.MultiReader(strings.NewReader(s)) }
	for _, test := range []struct {
		name, method, path, kind string
		body                     io.Reader
		status                   int
		want                     string
	}{
		{"JSON", "POST", "/v1/x", "application/json", strings.NewReader(small), 200, ":100"},
		{"JSON with charset", "PUT", "/v1/x", "Application/JSON; charset=utf-8", strings.NewReader("{}"), 200, ":2"},
		{"unknown size", "POST", "/v1/x", "application/json", unsized(small), 200, ":100"},
		{"too large", "POST", "/v1/x", "application/json", strings.NewReader(large), 413, "body_too_large"},
		{"too large, unknown size", "POST", "/v1/x", "application/json", unsized(large), 200, "cut at 100"},
		{"too large, DELETE", "DELETE", "/v1/x", "", strings.NewReader(large), 413, "body_too_large"},
		{"no type", "POST", "/v1/x", "", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"no type, no body", "POST", "/v1/x", "", nil, 415, "unsupported_media_type"},
		{"text", "PATCH", "/v1/x", "text/plain", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"text with JSON parameter", "POST", "/v1/x", "text/plain; application/json", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"URL-encoded form", "POST", "/v1/x", "application/x-www-form-urlencoded", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"multipart form", "POST", "/v1/x", "multipart/form-data; boundary=x", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"audio upload", "POST", "/v1/audio/transcriptions", "multipart/form-data; boundary=x", strings.NewReader("{}"), 200, ":2"},
		{"image upload", "POST", "/v1/images/edits", "multipart/form-data; boundary=x", strings.NewReader("{}"), 200, ":2"},
		{"JSON for images", "POST", "/v1/images/generations", "application/json", strings.NewReader("{}"), 200, ":2"},
		{"text for images", "POST", "/v1/images/generations", "text/plain", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"form, path with ..", "POST", "/v1/audio/../jobs", "multipart/form-data; boundary=x", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"form, path with escaped ..", "POST", "/v1/audio/%2e%2e/jobs", "multipart/form-data; boundary=x", strings.NewReader("{}"), 415, "unsupported_media_type"},
		{"DELETE", "DELETE", "/v1/x", "", nil, 200, ":0"},
		{"GET", "GET", "/v1/x", "", nil, 200, ":0"},
	} {
		var header []string
		if test.kind != "" {
			header = []string{"Content-Type", test.kind}
		}
		if resp, body := send(t, test.method, s.URL+test.path, test.body, header...); resp.StatusCode != test.status || body != test.want {
			t.Errorf("%s: response = %s %q, want %d %q", test.name, resp.Status, body, test.status, test.want)
		}
	}
}

// TestForgedRequest checks that each protection alone denies a request that a page of
// another site can send.
func TestForgedRequest(t *testing.T) {
	t.Parallel()
	s := newGuardedServer(t, access.Options{})
	for _, test := range []struct {
		name   string
		header []string
		want   string
	}{
		{"all headers of a browser", []string{"Content-Type", "text/plain", "Origin", "https://evil.example.com", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}, "origin_refused"},
		{"Content-Type only", []string{"Content-Type", "text/plain;charset=UTF-8"}, "unsupported_media_type"},
		{"Origin only", []string{"Content-Type", "application/json", "Origin", "https://evil.example.com"}, "origin_refused"},
		{"Sec-Fetch-Site only", []string{"Content-Type", "application/json", "Sec-Fetch-Site", "cross-site"}, "origin_refused"},
		{"DNS rebinding", []string{"Content-Type", "application/json", "Host", "evil.example.com", "Origin", "http://evil.example.com", "Sec-Fetch-Site", "same-origin"}, "host_refused"},
		{"sandboxed frame", []string{"Content-Type", "text/plain", "Origin", "null", "Sec-Fetch-Site", "cross-site"}, "origin_refused"},
	} {
		resp, body := send(t, "POST", s.URL+"/v1/jobs", strings.NewReader(`{"operation":"hive_list"}`), test.header...)
		if resp.StatusCode < 400 || body != test.want {
			t.Errorf("%s: response = %s %q, want %q", test.name, resp.Status, body, test.want)
		}
	}
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	keys, path := newKeys(t)
	_, infer := add(t, keys, "laptop", access.ScopeInfer)
	_, admin := add(t, keys, "me", access.ScopeAdmin)
	var lines bytes.Buffer
	s := newGuardedServer(t, access.Options{Keys: keys, Addr: "0.0.0.0:8080", Origins: []string{"https://chat.example.com"}, Log: slog.New(slog.NewTextHandler(&lines, nil))})
	cookie := func(secret string, more ...string) []string {
		return append([]string{"Cookie", "other=1; " + access.Cookie + "=" + secret}, more...)
	}
	for _, test := range []struct {
		name, method, path string
		header             []string
		status             int
		want               string
	}{
		{"no key needed", "GET", "/health", nil, 200, ":0"},
		{"no key", "GET", "/v1/models", nil, 401, "missing_api_key"},
		{"bearer", "GET", "/v1/models", []string{"Authorization", "Bearer " + infer}, 200, "laptop:0"},
		{"bearer in lower case", "GET", "/v1/models", []string{"Authorization", "bearer  " + infer}, 200, "laptop:0"},
		{"x-api-key", "GET", "/v1/models", []string{"X-Api-Key", infer}, 200, "laptop:0"},
		{"basic", "GET", "/v1/models", []string{"Authorization", "Basic " + infer}, 401, "missing_api_key"},
		{"basic for a proxy, x-api-key", "GET", "/v1/models", []string{"Authorization", "Basic eDp5", "X-Api-Key", infer}, 200, "laptop:0"},
		{"no scheme", "GET", "/v1/models", []string{"Authorization", infer}, 401, "missing_api_key"},
		{"no secret", "GET", "/v1/models", []string{"Authorization", "Bearer "}, 401, "missing_api_key"},
		{"unknown key", "GET", "/v1/models", []string{"Authorization", "Bearer sk-1234"}, 401, "invalid_api_key"},
		{"unknown key, valid cookie", "GET", "/v1/models", cookie(infer, "Authorization", "Bearer sk-1234"), 401, "invalid_api_key"},
		{"key in the URL", "GET", "/v1/models?key=" + infer, nil, 401, "missing_api_key"},
		{"insufficient scope", "GET", "/v1/jobs", []string{"Authorization", "Bearer " + infer}, 403, "insufficient_scope"},
		{"admin", "GET", "/v1/jobs", []string{"Authorization", "Bearer " + admin}, 200, "me:0"},
		{"admin, model request", "GET", "/v1/models", []string{"Authorization", "Bearer " + admin}, 200, "me:0"},
		{"allowed origin", "GET", "/v1/models", []string{"Authorization", "Bearer " + infer, "Origin", "https://chat.example.com", "Sec-Fetch-Site", "cross-site"}, 200, "laptop:0"},

		{"cookie", "GET", "/v1/jobs", cookie(admin, "Sec-Fetch-Site", "same-origin"), 200, "me:0"},
		{"cookie, entered address", "GET", "/v1/jobs", cookie(admin, "Sec-Fetch-Site", "none"), 200, "me:0"},
		{"cookie, no browser headers without TLS", "GET", "/v1/jobs", cookie(admin), 200, "me:0"},
		{"cookie, POST", "POST", "/v1/jobs", cookie(admin, "Origin", s.URL, "Sec-Fetch-Site", "same-origin"), 200, "me:0"},
		{"cookie, DELETE, Origin only", "DELETE", "/v1/jobs/1", cookie(admin, "Origin", s.URL), 200, "me:0"},
		{"cookie, POST, no browser headers", "POST", "/v1/jobs", cookie(admin), 401, "missing_api_key"},
		{"cookie, insufficient scope", "GET", "/v1/jobs", cookie(infer), 403, "insufficient_scope"},
		{"cookie, unknown key", "GET", "/v1/jobs", cookie("x"), 401, "invalid_api_key"},
		{"cookie, same site", "GET", "/v1/jobs", cookie(admin, "Sec-Fetch-Site", "same-site"), 401, "missing_api_key"},
		{"cookie, contradictory headers", "GET", "/v1/jobs", cookie(admin, "Origin", s.URL, "Sec-Fetch-Site", "same-site"), 401, "missing_api_key"},
		{"cookie, allowed origin", "GET", "/v1/jobs", cookie(admin, "Origin", "https://chat.example.com"), 401, "missing_api_key"},
		{"cookie, other origin", "GET", "/v1/jobs", cookie(admin, "Origin", "https://evil.example.com"), 403, "origin_refused"},
	} {
		resp, body := send(t, test.method, s.URL+test.path, nil, append(test.header, "Content-Type", "application/json")...)
		if resp.StatusCode != test.status || body != test.want {
			t.Errorf("%s: response = %s %q, want %d %q", test.name, resp.Status, body, test.status, test.want)
		}
		if challenged := resp.Header.Get("Www-Authenticate") == "Bearer"; challenged != (test.status == 401) {
			t.Errorf("%s: WWW-Authenticate: Bearer = %t, want %t", test.name, challenged, test.status == 401)
		}
		if allowed := strings.Contains(test.name, "allowed origin"); allowed != (resp.Header.Get("Access-Control-Allow-Origin") != "") {
			t.Errorf("%s: headers %v, want Access-Control-Allow-Origin: %t", test.name, resp.Header, allowed)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := newGuardedServer(t, access.Options{Keys: access.OpenKeys(path)})
	if resp, body := send(t, "GET", broken.URL+"/v1/models", nil, "X-Api-Key", admin); resp.StatusCode != http.StatusInternalServerError || body != "keys_unreadable" {
		t.Errorf("GET /v1/models with an invalid key file: response = %s %q, want keys_unreadable", resp.Status, body)
	}
	s.Close() // waits until all requests are logged
	for _, want := range []string{"code=invalid_api_key", "status=403", "path=/v1/jobs", "remote=127.0.0.1"} {
		if !strings.Contains(lines.String(), want) {
			t.Errorf("log = %s, want %s in it", lines.String(), want)
		}
	}
	if strings.Contains(lines.String(), infer) || strings.Contains(lines.String(), admin) {
		t.Errorf("log = %s, want no secret in it", lines.String())
	}
}

// TestNoKeys checks that a server without keys allows requests only on loopback.
func TestNoKeys(t *testing.T) {
	t.Parallel()
	for addr, open := range map[string]bool{
		"127.0.0.1:8080": true, "127.9.9.9:1": true, "localhost:8080": true, "[::1]:8080": true, "127.0.0.1": true,
		":8080": false, "0.0.0.0:8080": false, "[::]:8080": false, "192.168.1.5:8080": false, "queen.example.com:80": false, "x y": false,
	} {
		s := newGuardedServer(t, access.Options{Addr: addr})
		resp, body := send(t, "GET", s.URL+"/v1/jobs", nil)
		if open && resp.StatusCode != http.StatusOK || !open && body != "keys_required" {
			t.Errorf("Addr %q: response = %s %q, want allowed = %t", addr, resp.Status, body, open)
		}
		if resp, body := send(t, "GET", s.URL+"/health", nil); resp.StatusCode != http.StatusOK {
			t.Errorf("Addr %q: GET /health: response = %s %q, want 200", addr, resp.Status, body)
		}
	}
}

// TestAllowedOriginWithoutKeys checks that, if no key is required, a page of an allowed
// origin may only use models.
func TestAllowedOriginWithoutKeys(t *testing.T) {
	t.Parallel()
	var got access.Scope
	s := httptest.NewServer(access.Guard(access.Options{Addr: "127.0.0.1:8080", Scope: scopeByPath, Origins: []string{"https://chat.example.com"}})(
		http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = access.ScopeFrom(r.Context()) })))
	t.Cleanup(s.Close)
	page := []string{"Origin", "https://chat.example.com", "Sec-Fetch-Site", "cross-site"}
	for _, test := range []struct {
		name, method, path string
		header             []string
		status             int
		want               access.Scope
	}{
		{"no browser, model", "POST", "/v1/chat/completions", nil, 200, access.ScopeAdmin},
		{"no browser, job", "POST", "/v1/jobs", nil, 200, access.ScopeAdmin},
		{"page, model", "POST", "/v1/chat/completions", page, 200, access.ScopeInfer},
		{"page, create job", "POST", "/v1/jobs", page, 403, ""},
		{"page, cancel job", "DELETE", "/v1/jobs/1", page, 403, ""},
		{"page, list jobs", "GET", "/v1/jobs", page, 403, ""},
		{"page, no scope needed", "GET", "/health", page, 200, ""},
		{"own page, job", "POST", "/v1/jobs", []string{"Origin", s.URL, "Sec-Fetch-Site", "same-origin"}, 200, access.ScopeAdmin},
	} {
		got = ""
		resp, body := send(t, test.method, s.URL+test.path, nil, append(test.header, "Content-Type", "application/json")...)
		if resp.StatusCode != test.status || got != test.want || test.status == 403 && !strings.Contains(body, "may only use models") {
			t.Errorf("%s: response = %s %q, scope %q, want status %d and scope %q", test.name, resp.Status, body, got, test.status, test.want)
		}
	}
}

// TestNoKeysBehindProxy checks that a server with additional host names requires keys: a
// proxy may use these names, and its requests appear to come from this machine.
func TestNoKeysBehindProxy(t *testing.T) {
	t.Parallel()
	s := newGuardedServer(t, access.Options{Hosts: []string{"queen.example.com"}})
	for _, host := range []string{"queen.example.com", "localhost"} {
		if resp, body := send(t, "GET", s.URL+"/v1/models", nil, "Host", host); resp.StatusCode != http.StatusForbidden || body != "keys_required" {
			t.Errorf("Host %q: response = %s %q, want keys_required", host, resp.Status, body)
		}
	}
}

// TestZeroOptions checks that the zero Options deny all requests.
func TestZeroOptions(t *testing.T) {
	t.Parallel()
	keys, _ := newKeys(t)
	_, infer := add(t, keys, "one", access.ScopeInfer)
	for name, o := range map[string]access.Options{"zero": {}, "with keys": {Keys: keys}} {
		s := httptest.NewServer(access.Guard(o)(http.NotFoundHandler()))
		t.Cleanup(s.Close)
		if resp, body := send(t, "GET", s.URL, nil, "X-Api-Key", infer); resp.StatusCode != http.StatusForbidden || len(body) < 20 {
			t.Errorf("%s Options: response = %s %q, want 403 with a message", name, resp.Status, body)
		}
	}
}

// FuzzGuard checks that only requests with a valid Host and an allowed Origin pass the guard.
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
				t.Fatalf("status = %d, want %d", w.Code, http.StatusForbidden)
			}
			return
		}
		// A request that passes has the name of this server as Host, and as Origin either the
		// origin of this server or the allowed origin.
		lower := strings.ToLower(host)
		if !strings.HasPrefix(lower, "localhost") && !strings.HasPrefix(lower, "queen") && !strings.HasPrefix(lower, "127.") && !strings.HasPrefix(lower, "[::") && !strings.HasPrefix(lower, "[0") {
			t.Errorf("Guard() passed Host %q, want it denied", host)
		}
		_, originHost, _ := strings.Cut(strings.ToLower(origin), "://")
		trimPort := func(s string) string { return strings.TrimSuffix(strings.TrimSuffix(s, ":80"), ":443") }
		if trimPort(originHost) != trimPort(lower) && trimPort(originHost) != "chat.example.com" {
			t.Errorf("Guard() passed Origin %q with Host %q, want it denied", origin, host)
		}
	})
}

func BenchmarkGuard(b *testing.B) {
	keys, _ := newKeys(b)
	_, secret := add(b, keys, "one", access.ScopeInfer)
	handler := access.Guard(access.Options{Keys: keys, Addr: "127.0.0.1:8080", Scope: scopeByPath})(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1:8080/v1/chat/completions", strings.NewReader("{}"))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+secret)
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatalf("status = %d (%s), want 200", w.Code, w.Body)
		}
	}
}
