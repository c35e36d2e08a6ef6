package fetch

import (
	"net/url"
	"strings"
)

// Public base URLs of releases.
const (
	// publicGitHub is the base URL of the files of releases in responses of the release
	// API.
	publicGitHub = "https://github.com"

	// PublicGitHubAPI is the base URL of the release API.
	PublicGitHubAPI = "https://api.github.com"
)

// MirrorURL replaces the public base URLs of GitHub in address with the configured mirrors,
// without their user and password. It returns other URLs unchanged.
func (c *Client) MirrorURL(address string) string {
	for _, m := range []struct{ public, mirror string }{{publicGitHub, c.Downloads}, {PublicGitHubAPI, c.API}} {
		if rest, ok := strings.CutPrefix(address, m.public+"/"); ok && m.mirror != "" {
			return strings.TrimSuffix(withoutUser(m.mirror), "/") + "/" + rest
		}
	}
	return address
}

// withoutUser returns a URL without user and password. It returns an empty string for an
// invalid URL, which may contain a password too.
func withoutUser(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}

// isAPI reports whether u belongs to the release API. If a mirror serves the API and the
// files of releases under the root of one server, only the paths of the API belong to it,
// because the token must not be sent with requests for files.
func (c *Client) isAPI(u *url.URL) bool {
	if !isBelow(u, c.API, true) {
		return false
	}
	api, err := url.Parse(c.API)
	root := err == nil && strings.Trim(api.Path, "/") == ""
	return !root || strings.HasPrefix(u.Path, "/repos/") || strings.HasPrefix(u.Path, "/repositories/")
}
