package dashboard

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(Handler())
	t.Cleanup(s.Close)
	request := func(method, path, tag string) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequest(method, s.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if tag != "" {
			req.Header.Set("If-None-Match", tag)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body)
	}
	for path, want := range map[string]string{"/": "<!doctype html>", "/dashboard.js": "/v1/fleet", "/dashboard.css": ":root"} {
		resp, body := request(http.MethodGet, path, "")
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, want) || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("GET %s = %s with header %v and %d bytes, want 200, a Content-Security-Policy and a body with %q", path, resp.Status, resp.Header, len(body), want)
		}
		if again, _ := request(http.MethodGet, path, resp.Header.Get("Etag")); again.StatusCode != http.StatusNotModified {
			t.Errorf("GET %s with the same ETag = %s, want 304", path, again.Status)
		}
	}
	for path, want := range map[string]int{"/index.html": 404, "/dashboard.go": 404, "/../dashboard.js": 404, "/x": 404} {
		if resp, _ := request(http.MethodGet, path, ""); resp.StatusCode != want {
			t.Errorf("GET %s = %s, want %d", path, resp.Status, want)
		}
	}
	if resp, _ := request(http.MethodPost, "/", ""); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST / = %s, want 405", resp.Status)
	}
}

// TestDataIsInsertedAsText checks that the script never parses data as HTML or code, and that
// the page has no inline styles or scripts, which the Content-Security-Policy forbids.
func TestDataIsInsertedAsText(t *testing.T) {
	t.Parallel()
	script, err := files.ReadFile("dashboard.js")
	if err != nil {
		t.Fatal(err)
	}
	page, err := files.ReadFile("index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "http://", "https://"} {
		if strings.Contains(strings.ReplaceAll(string(script), "http://www.w3.org/2000/svg", ""), word) {
			t.Errorf("dashboard.js contains %q, want only DOM text functions and relative addresses", word)
		}
	}
	for _, word := range []string{"style=", "onclick", "<style", "http:", "https:"} {
		if strings.Contains(string(page), word) {
			t.Errorf("index.html contains %q, want no inline code and no external address", word)
		}
	}
}
