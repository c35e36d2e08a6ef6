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
	ask := func(method, path, tag string) (*http.Response, string) {
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
		resp, body := ask(http.MethodGet, path, "")
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, want) || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %s, %v", path, resp.Status, resp.Header)
		}
		if again, _ := ask(http.MethodGet, path, resp.Header.Get("Etag")); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s again: %s", path, again.Status)
		}
	}
	for path, want := range map[string]int{"/index.html": 404, "/dashboard.go": 404, "/../dashboard.js": 404, "/x": 404} {
		if resp, _ := ask(http.MethodGet, path, ""); resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if resp, _ := ask(http.MethodPost, "/", ""); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}

// TestNothingIsHTML holds that what comes from machines never becomes part of the
// page but as text, and that nothing is written into it which the policy forbids.
func TestNothingIsHTML(t *testing.T) {
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
			t.Errorf("the script has %s", word)
		}
	}
	for _, word := range []string{"style=", "onclick", "<style", "http:", "https:"} {
		if strings.Contains(string(page), word) {
			t.Errorf("the page has %s", word)
		}
	}
}
