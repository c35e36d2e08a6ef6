package model_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
)

// TestHubGetHeader checks that Get accepts a nil header and does not modify the caller's
// header.
func TestHubGetHeader(t *testing.T) {
	t.Parallel()
	var got http.Header
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() }))
	t.Cleanup(server.Close)
	hub := model.Hub{Client: &fetch.Client{HTTP: server.Client(), Hub: server.URL}}
	for _, header := range []http.Header{nil, {}, {"Range": {"bytes=0-3"}}} {
		before := header.Clone()
		err := hub.Get(t.Context(), server.URL, header, func(*http.Response, io.Reader) error { return nil })
		if err != nil {
			t.Errorf("Get(header %v) = %v, want nil", before, err)
		}
		if got.Get("Accept-Encoding") != "identity" || got.Get("Range") != before.Get("Range") {
			t.Errorf("Get(header %v) sent %v, want Accept-Encoding identity and Range %q", before, got, before.Get("Range"))
		}
		if len(header) != len(before) {
			t.Errorf("Get() changed the header to %v, want %v", header, before)
		}
	}
}
