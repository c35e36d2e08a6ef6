package pkgmgr

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
)

func TestLimitEnd(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("here", 2*60*60)
	now := time.Date(2026, 11, 29, 23, 30, 0, 0, zone)
	for name, k := range map[string]struct {
		status  int
		headers map[string]string
		limited bool
		want    string // empty: not known
	}{
		"today":                   {403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795988700"}, true, "23:45:00"},
		"tomorrow":                {403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795990500"}, true, "2026-11-30 00:15:00"},
		"seconds":                 {429, map[string]string{"Retry-After": "60"}, true, "23:31:00"},
		"seconds, past midnight":  {429, map[string]string{"Retry-After": "3600"}, true, "2026-11-30 00:30:00"},
		"a date":                  {429, map[string]string{"Retry-After": "Sun, 29 Nov 2026 21:40:00 GMT"}, true, "23:40:00"},
		"a date tomorrow":         {429, map[string]string{"Retry-After": "Mon, 30 Nov 2026 12:00:00 GMT"}, true, "2026-11-30 14:00:00"},
		"a burst":                 {403, map[string]string{"Retry-After": "60", "X-RateLimit-Remaining": "4990", "X-RateLimit-Reset": "1795990500"}, true, "23:31:00"},
		"no headers":              {429, nil, true, ""},
		"garbage":                 {429, map[string]string{"Retry-After": "soon", "X-RateLimit-Reset": "later"}, true, ""},
		"negative":                {429, map[string]string{"Retry-After": "-1", "X-RateLimit-Reset": "-1"}, true, ""},
		"garbage and a good one":  {429, map[string]string{"Retry-After": "soon", "X-RateLimit-Reset": "1795988700"}, true, "23:45:00"},
		"forbidden":               {403, map[string]string{"X-RateLimit-Remaining": "59"}, false, ""},
		"an error with no limits": {500, map[string]string{"X-RateLimit-Remaining": "0"}, false, ""},
	} {
		resp := &http.Response{StatusCode: k.status, Header: http.Header{}}
		for key, value := range k.headers {
			resp.Header.Set(key, value)
		}
		if got := limited(resp); got != k.limited {
			t.Errorf("%s: limited() = %t, want %t", name, got, k.limited)
		}
		if !k.limited {
			continue
		}
		got := ""
		if end, ok := limitEnd(resp.Header, now); ok {
			got = clock(end, now)
		}
		if got != k.want {
			t.Errorf("%s: the limit ends at %q, want %q", name, got, k.want)
		}
	}
}

// TestBurstLimit checks the message on an answer that has only Retry-After.
func TestBurstLimit(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "Fri, 02 Jan 2099 12:00:00 GMT")
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(srv.Close)
	g := &releases{from: &fetcher{api: srv.URL}}
	_, err := g.tagged(t.Context(), "a/b", "v1")
	want := srv.URL + " takes no more requests before " + time.Date(2099, 1, 2, 12, 0, 0, 0, time.UTC).Local().Format(time.DateTime) + ": set GITHUB_TOKEN"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("tagged() = %v, want %q", err, want)
	}
}

func TestMirrored(t *testing.T) {
	t.Parallel()
	const asset = "https://github.com/a/b/releases/download/v1/x.tar.gz"
	for _, k := range []struct{ downloads, api, address, want string }{
		{"", publicGitHubAPI, asset, asset},
		{"https://mirror/gh", publicGitHubAPI, asset, "https://mirror/gh/a/b/releases/download/v1/x.tar.gz"},
		{"https://me:secret@mirror/gh/", publicGitHubAPI, asset, "https://mirror/gh/a/b/releases/download/v1/x.tar.gz"},
		{"https://me:secret%@mirror", publicGitHubAPI, asset, "/a/b/releases/download/v1/x.tar.gz"},
		{"https://mirror", publicGitHubAPI, "https://github.company/a/b", "https://github.company/a/b"},
		{"https://mirror", publicGitHubAPI, "https://example.com/x?u=https://github.com/a", "https://example.com/x?u=https://github.com/a"},
		{"", publicGitHubAPI, "https://api.github.com/repos/a/b/tarball/v1", "https://api.github.com/repos/a/b/tarball/v1"},
		{"", "https://mirror/api", "https://api.github.com/repos/a/b/tarball/v1", "https://mirror/api/repos/a/b/tarball/v1"},
		{"", "https://mirror/api", "https://mirror/a/b/releases/download/v1/x", "https://mirror/a/b/releases/download/v1/x"},
		{"https://mirror", publicGitHubAPI, "", ""},
	} {
		f := &fetcher{api: k.api, downloads: k.downloads}
		if got := f.mirrored(k.address); got != k.want {
			t.Errorf("mirrored(%q) with %q and %q = %q, want %q", k.address, k.downloads, k.api, got, k.want)
		}
	}
}

// TestMirrorCredentials checks that a token goes to the release API and not to files
// beside it, and that a password of a mirror goes to that mirror only.
func TestMirrorCredentials(t *testing.T) {
	t.Parallel()
	f := &fetcher{api: "https://mirror", token: "T", downloads: "https://me:secret@files/gh", index: "https://files/simple"}
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
	// What github.com has is fetched from the mirror with its password, hence only here.
	if !f.alone("https://github.com/a/b/releases/download/v1/x") || f.alone("https://mirror/a/b/releases/download/v1/x") {
		t.Error("alone() is wrong for the mirror")
	}
}

func nightly() *Versions {
	return &Versions{GitHub: "a/b", Tag: "{version}", Prereleases: true, Match: "b[0-9]*", Pointer: &Pointer{"v{version}", "nightly-tag.txt"}}
}

func TestPointerTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"b10811": "b10811", "b10811\n": "b10811", " b10811\r\n": "b10811",
		"": "", "\n": "", "v0.5.0": "", "10811": "", "b": "", "bx1": "", "b1 b2": "", "b1\nb2": "", "b1/../b2": "", "b1\x00": "",
		"https://h/b1": "", "\ufeffb10811": "", "b" + strings.Repeat("1", 64): "",
	} {
		got, ok := nightly().pointerTarget(text)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("pointerTarget(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzPointerTarget(f *testing.F) {
	f.Add("b10811\n")
	f.Add("b1/../../x")
	f.Add("<html>")
	f.Fuzz(func(t *testing.T, text string) {
		v := nightly()
		version, ok := v.pointerTarget(text)
		if !ok {
			return
		}
		if !ValidVersion(version) || !v.matches(version) || v.tag(version) != strings.TrimSpace(text) {
			t.Errorf("pointerTarget(%q) = %q", text, version)
		}
		if tag, pointer := v.pointerTag(version); pointer {
			t.Errorf("%q is a version and the pointer %q", version, tag)
		}
	})
}

func TestReleaseScheme(t *testing.T) {
	t.Parallel()
	recipe := func(versions string) string {
		return "type: x\nversions: {" + versions + "}\nnote: n\n"
	}
	r, err := ParseRecipe("x.yaml", []byte(recipe(`github: a/b, prereleases: true, match: "b[0-9]*", pointer: {tag: "v{version}", asset: nightly-tag.txt}`)))
	if err != nil {
		t.Fatal(err)
	}
	want := nightly()
	if v := r.Versions; !v.Prereleases || v.Match != want.Match || *v.Pointer != *want.Pointer {
		t.Errorf("versions are %+v, want %+v", v, want)
	}
	for _, k := range []struct{ versions, want string }{
		{`package: p, prereleases: true`, "2:37 prereleases does not go with package (it is for releases: github: owner/name)"},
		{`package: p, match: "b*"`, "2:31 match does not go with package"},
		{`github: a/b, match: ""`, `2:32 invalid match "" (expected a pattern such as "b[0-9]*")`},
		{`github: a/b, match: "b["`, `2:32 invalid match "b["`},
		{`github: a/b, prereleases: yes please`, "2:38 prereleases"},
		{`github: a/b, pointer: {tag: "v{version}", asset: t.txt}`, `2:34 pointer needs match (add match: and a pattern of the versions, such as "b[0-9]*")`},
		{`github: a/b, match: "b*", pointer: {tag: v, asset: t.txt}`, `2:53 tag "v" does not have {version} once (such as v{version})`},
		{`github: a/b, match: "b*", pointer: {tag: "v{version}", asset: "*.txt"}`, `2:74 invalid asset "*.txt" (expected the name of a file, such as nightly-tag.txt)`},
		{`github: a/b, match: "b*", pointer: {tag: "v{version}", asset: a/b}`, `2:74 invalid asset "a/b"`},
		{`github: a/b, match: "b*", pointer: {tag: "v{version}"}`, "2:47 pointer has no asset"},
		{`github: a/b, match: "*", pointer: {tag: "v{version}", asset: t.txt}`, `2:52 match "*" also matches v1.2.3, which is a pointer (narrow match)`},
		{`github: a/b, match: "b*", pointer: {tag: "v{version}", asset: t.txt, file: x}`, "2:81 unknown key \"file\""},
	} {
		_, err := ParseRecipe("x.yaml", []byte(recipe(k.versions)))
		if err == nil {
			t.Errorf("%s is accepted", k.versions)
			continue
		}
		if got := lines(t, err); len(got) != 1 || !strings.HasPrefix(got[0], k.want) {
			t.Errorf("%s:\n%s\nwant %s", k.versions, strings.Join(got, "\n"), k.want)
		}
	}
}

// TestLlamaAssets checks that the built-in recipe finds its files among those of a
// build, and that its versions are builds.
func TestLlamaAssets(t *testing.T) {
	t.Parallel()
	r, ok := BuiltinCatalog().Recipe("llama-cpp")
	if !ok {
		t.Fatal("there is no recipe")
	}
	build := &release{Tag: "b11158"}
	for name := range origintest.LlamaAssets("b11158", "#!/bin/sh\n") {
		build.Assets = append(build.Assets, releaseAsset{Name: name})
	}
	for i := range r.Sources {
		s, err := r.Sources[i].fill("b11158", Platform{OS: r.Sources[i].OS, Arch: r.Sources[i].Arch}, "")
		if err != nil {
			t.Fatal(err)
		}
		if lacks := build.lacks(&s); lacks != "" {
			t.Errorf("%s for %s/%s: %s", s.Name, s.OS, s.Arch, lacks)
		}
	}
	for tag, want := range map[string]bool{"b11158": true, "v0.5.0": false, "master-1": false, "nightly": false} {
		if _, got := r.Versions.versionOf(tag); got != want {
			t.Errorf("versionOf(%q) = %t, want %t", tag, got, want)
		}
	}
	if !r.Versions.Prereleases {
		t.Error("builds are prereleases, and the recipe does not accept them")
	}
}
