package fetch

import (
	"net/url"
	"testing"
)

func TestMirrorURL(t *testing.T) {
	t.Parallel()
	const asset = "https://github.com/a/b/releases/download/v1/x.tar.gz"
	for _, k := range []struct{ downloads, api, address, want string }{
		{"", PublicGitHubAPI, asset, asset},
		{"https://mirror/gh", PublicGitHubAPI, asset, "https://mirror/gh/a/b/releases/download/v1/x.tar.gz"},
		{"https://me:secret@mirror/gh/", PublicGitHubAPI, asset, "https://mirror/gh/a/b/releases/download/v1/x.tar.gz"},
		{"https://me:secret%@mirror", PublicGitHubAPI, asset, "/a/b/releases/download/v1/x.tar.gz"},
		{"https://mirror", PublicGitHubAPI, "https://github.company/a/b", "https://github.company/a/b"},
		{"https://mirror", PublicGitHubAPI, "https://example.com/x?u=https://github.com/a", "https://example.com/x?u=https://github.com/a"},
		{"", PublicGitHubAPI, "https://api.github.com/repos/a/b/tarball/v1", "https://api.github.com/repos/a/b/tarball/v1"},
		{"", "https://mirror/api", "https://api.github.com/repos/a/b/tarball/v1", "https://mirror/api/repos/a/b/tarball/v1"},
		{"", "https://mirror/api", "https://mirror/a/b/releases/download/v1/x", "https://mirror/a/b/releases/download/v1/x"},
		{"https://mirror", PublicGitHubAPI, "", ""},
	} {
		f := &Client{API: k.api, Downloads: k.downloads}
		if got := f.MirrorURL(k.address); got != k.want {
			t.Errorf("MirrorURL(%q) with mirrors %q and %q = %q, want %q", k.address, k.downloads, k.api, got, k.want)
		}
	}
}

// TestMirrorCredentials checks that the token is used for the release API but not for files
// on the same server, and that the password of a mirror is used only for that mirror.
func TestMirrorCredentials(t *testing.T) {
	t.Parallel()
	f := &Client{API: "https://mirror", Token: "T", Downloads: "https://me:secret@files/gh", Index: "https://files/simple"}
	for address, want := range map[string]string{
		"https://mirror/repos/a/b/releases/latest":        "Bearer T",
		"https://mirror/repositories/1/releases?page=2":   "Bearer T",
		"https://mirror/a/b/releases/download/v1/x":       "",
		"https://mirror/production-asset/1/x?sig=1":       "",
		"https://files/gh/a/b/releases/download/v1/x":     "Basic bWU6c2VjcmV0",
		"https://files/other":                             "",
		"https://github.com/a/b/releases/download/v1/x":   "",
		"https://api.github.com/repos/a/b/releases/tag/1": "",
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.credentials(u); got != want {
			t.Errorf("credentials(%s) = %q, want %q", address, got, want)
		}
	}
	// Files of github.com are downloaded from the mirror, with its password.
	for address, want := range map[string]bool{
		"https://github.com/a/b/releases/download/v1/x": true,
		"https://mirror/a/b/releases/download/v1/x":     false,
	} {
		if got := f.HasCredentials(address); got != want {
			t.Errorf("HasCredentials(%s) = %t, want %t", address, got, want)
		}
	}
}
