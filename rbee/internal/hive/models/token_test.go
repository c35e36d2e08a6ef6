package models

import (
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
)

// TestTokenOnlyForOwnHub checks that the store's token is sent only to the store's hub, and
// not to a hub that a client names.
func TestTokenOnlyForOwnHub(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		storeEndpoint     string // the store's token is hf_own
		endpoint, token   string // of the download
		wantURL, wantAuth string
	}{
		{"default hub", "", "", "", model.DefaultEndpoint, "hf_own"},
		{"default hub by address", "", model.DefaultEndpoint + "/", "", model.DefaultEndpoint, "hf_own"},
		{"own mirror by address", "https://mirror/", "https://mirror", "", "https://mirror", "hf_own"},
		{"own mirror, other token", "https://mirror", "", "hf_mine", "https://mirror", "hf_mine"},
		{"other hub", "https://mirror", "https://evil", "", "https://evil", ""},
		{"own mirror without TLS", "https://mirror", "http://mirror", "", "http://mirror", ""},
		{"default hub instead of the own mirror", "https://mirror", model.DefaultEndpoint, "", model.DefaultEndpoint, ""},
		{"other hub with token", "", "https://evil", "hf_mine", "https://evil", "hf_mine"},
	} {
		s := &Store{Endpoint: c.storeEndpoint, Token: "hf_own"}
		endpoint, token := s.endpointAndToken(DownloadOptions{Endpoint: c.endpoint, Token: operations.Secret(c.token)})
		if endpoint != c.wantURL || string(token) != c.wantAuth {
			t.Errorf("%s: endpointAndToken() = %s, %q, want %s, %q", c.name, endpoint, string(token), c.wantURL, c.wantAuth)
		}
	}
	own, other := newFixture(t), newFixture(t)
	own.Token, own.Gated["org/gated"], other.Gated["org/gated"] = "hf_own", "hf_own", "hf_own"
	if _, err := own.Download(t.Context(), mustParseRef(t, "org/gated"), DownloadOptions{Endpoint: other.URL}); err == nil {
		t.Error("Download() from another hub = nil, want an error: the token must not be sent there")
	}
	own.mustDownload(t, "org/gated")
}
