package models

import (
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
)

// TestTokenStaysHome holds that the store's own token goes to the store's own hub,
// and to no other that a caller names.
func TestTokenStaysHome(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		own          string // the store's endpoint; its token is hf_own
		named, token string // by the caller
		asked, shown string
	}{
		{"", "", "", model.DefaultEndpoint, "hf_own"},
		{"", model.DefaultEndpoint + "/", "", model.DefaultEndpoint, "hf_own"},
		{"https://mirror/", "https://mirror", "", "https://mirror", "hf_own"},
		{"https://mirror", "", "hf_mine", "https://mirror", "hf_mine"},
		{"https://mirror", "https://evil", "", "https://evil", ""},
		{"https://mirror", "http://mirror", "", "http://mirror", ""},
		{"https://mirror", model.DefaultEndpoint, "", model.DefaultEndpoint, ""},
		{"", "https://evil", "hf_mine", "https://evil", "hf_mine"},
	} {
		s := &Store{Endpoint: c.own, Token: "hf_own"}
		asked, shown := s.access(DownloadOptions{Endpoint: c.named, Token: operations.Secret(c.token)})
		if asked != c.asked || string(shown) != c.shown {
			t.Errorf("%+v: asked %s with %q", c, asked, string(shown))
		}
	}
	own, other := newWorld(t), newWorld(t)
	own.Token, own.Gated["org/gated"], other.Gated["org/gated"] = "hf_own", "hf_own", "hf_own"
	if _, err := own.Download(t.Context(), ref(t, "org/gated"), DownloadOptions{Endpoint: other.URL}); err == nil {
		t.Error("the token came to another hub")
	}
	own.fetch(t, "org/gated")
}
