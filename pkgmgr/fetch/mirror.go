package fetch

import (
	"net/url"
	"strings"
)

// The public places of releases.
const (
	// publicGitHub is where the release API says that files of releases are.
	publicGitHub = "https://github.com"

	// PublicGitHubAPI is the base address of the release API.
	PublicGitHubAPI = "https://api.github.com"
)

// MirrorURL returns where to fetch what has an address: the public addresses of
// GitHub are replaced by those of the configured mirrors. The result has no user and
// no password. Other addresses are returned as they are.
func (f *Client) MirrorURL(address string) string {
	for _, m := range []struct{ public, mirror string }{{publicGitHub, f.Downloads}, {PublicGitHubAPI, f.API}} {
		if rest, ok := strings.CutPrefix(address, m.public+"/"); ok && m.mirror != "" {
			return strings.TrimSuffix(withoutUser(m.mirror), "/") + "/" + rest
		}
	}
	return address
}

// withoutUser returns an address without the user and the password in it; empty for
// what is not an address, since it may contain a password all the same.
func withoutUser(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}

// ofAPI reports whether an address belongs to the release API. A mirror may have the
// API at the root of its server and the files of releases beside it: a token is not
// for those.
func (f *Client) ofAPI(u *url.URL) bool {
	if !below(u, f.API, true) {
		return false
	}
	api, err := url.Parse(f.API)
	root := err == nil && strings.Trim(api.Path, "/") == ""
	return !root || strings.HasPrefix(u.Path, "/repos/") || strings.HasPrefix(u.Path, "/repositories/")
}
