package fetch

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestGetHeader checks that Get accepts a nil header and does not modify the caller's header.
func TestGetHeader(t *testing.T) {
	t.Parallel()
	var got http.Header
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() }))
	t.Cleanup(server.Close)
	client := &Client{HTTP: server.Client(), Hub: server.URL, HubToken: "secret"}
	for _, c := range []struct {
		name   string
		header http.Header
	}{{"nil", nil}, {"empty", http.Header{}}, {"with a value", http.Header{"Accept": {"text/plain"}}}} {
		before := c.header.Clone()
		for method, get := range map[string]func() error{
			"Get": func() error {
				return client.Get(t.Context(), "request", server.URL, c.header, func(*http.Response, io.Reader) error { return nil })
			},
			"GetOK": func() error {
				return client.GetOK(t.Context(), server.URL, c.header, func(*http.Response) error { return nil })
			},
		} {
			if err := get(); err != nil {
				t.Errorf("%s, header %s: %s() = %v, want nil", c.name, before, method, err)
			}
			if got.Get("Authorization") != "Bearer secret" || got.Get("Accept") != before.Get("Accept") {
				t.Errorf("%s: %s() sent %v, want the token and Accept %q", c.name, method, got, before.Get("Accept"))
			}
			if !maps.EqualFunc(c.header, before, func(a, b []string) bool { return len(a) == len(b) }) {
				t.Errorf("%s: %s() changed the header to %v, want %v", c.name, method, c.header, before)
			}
		}
	}
}
