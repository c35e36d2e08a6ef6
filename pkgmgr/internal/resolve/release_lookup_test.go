package resolve

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/problemtest"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestRetryAfter checks the message for a response with only the header Retry-After.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "Fri, 02 Jan 2099 12:00:00 GMT")
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(srv.Close)
	g := &releases{client: &fetch.Client{API: srv.URL}}
	_, err := g.byTag(t.Context(), "a/b", "v1")
	want := "rate limit of " + srv.URL + " exceeded until " + time.Date(2099, 1, 2, 12, 0, 0, 0, time.UTC).Local().Format(time.DateTime) + ": set GITHUB_TOKEN"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("byTag() = %v, want %q", err, want)
	}
}

func pointerVersions() *catalog.Versions {
	return &catalog.Versions{GitHub: "a/b", Tag: "{version}", Prereleases: true, Match: "b[0-9]*", Pointer: &catalog.Pointer{Tag: "v{version}", Asset: "nightly-tag.txt"}}
}

func TestPointerTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"b10811": "b10811", "b10811\n": "b10811", " b10811\r\n": "b10811",
		"": "", "\n": "", "v0.5.0": "", "10811": "", "b": "", "bx1": "", "b1 b2": "", "b1\nb2": "", "b1/../b2": "", "b1\x00": "",
		"https://h/b1": "", "\ufeffb10811": "", "b" + strings.Repeat("1", 64): "",
	} {
		got, ok := pointerVersions().PointerTarget(text)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("PointerTarget(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzPointerTarget(f *testing.F) {
	f.Add("b10811\n")
	f.Add("b1/../../x")
	f.Add("<html>")
	f.Fuzz(func(t *testing.T, text string) {
		v := pointerVersions()
		got, ok := v.PointerTarget(text)
		if !ok {
			return
		}
		if !version.Valid(got) || !v.Matches(got) || v.TagOf(got) != strings.TrimSpace(text) {
			t.Errorf("PointerTarget(%q) = %q, want a valid version", text, got)
		}
		if tag, pointer := v.PointerTag(got); pointer {
			t.Errorf("PointerTag(%q) = %q, true for a version, want false", got, tag)
		}
	})
}

func TestReleaseScheme(t *testing.T) {
	t.Parallel()
	recipe := func(versions string) string {
		return "type: x\nversions: {" + versions + "}\nnote: n\n"
	}
	r, err := catalog.ParseRecipe("x.yaml", []byte(recipe(`github: a/b, prereleases: true, match: "b[0-9]*", pointer: {tag: "v{version}", asset: nightly-tag.txt}`)))
	if err != nil {
		t.Fatal(err)
	}
	want := pointerVersions()
	if v := r.Versions; !v.Prereleases || v.Match != want.Match || *v.Pointer != *want.Pointer {
		t.Errorf("Versions = %+v, want %+v", v, want)
	}
	for _, k := range []struct{ versions, want string }{
		{`package: p, prereleases: true`, "2:37 cannot combine prereleases with package (it requires github: owner/name)"},
		{`package: p, match: "b*"`, "2:31 cannot combine match with package"},
		{`github: a/b, match: ""`, `2:32 invalid match "" (want a pattern such as "b[0-9]*")`},
		{`github: a/b, match: "b["`, `2:32 invalid match "b["`},
		{`github: a/b, prereleases: yes please`, "2:38 prereleases"},
		{`github: a/b, pointer: {tag: "v{version}", asset: t.txt}`, `2:34 pointer requires match (add match: with a pattern for versions such as "b[0-9]*")`},
		{`github: a/b, match: "b*", pointer: {tag: v, asset: t.txt}`, `2:53 invalid tag "v" (want {version} exactly once, for example v{version})`},
		{`github: a/b, match: "b*", pointer: {tag: "v{version}", asset: "*.txt"}`, `2:74 invalid asset "*.txt" (want a file name such as nightly-tag.txt)`},
		{`github: a/b, match: "b*", pointer: {tag: "v{version}", asset: a/b}`, `2:74 invalid asset "a/b"`},
		{`github: a/b, match: "b*", pointer: {tag: "v{version}"}`, "2:47 pointer has no asset"},
		{`github: a/b, match: "*", pointer: {tag: "v{version}", asset: t.txt}`, `2:52 match "*" also matches v1.2.3, which is a pointer (make match more specific)`},
		{`github: a/b, match: "b*", pointer: {tag: "v{version}", asset: t.txt, file: x}`, "2:81 unknown key \"file\""},
	} {
		_, err := catalog.ParseRecipe("x.yaml", []byte(recipe(k.versions)))
		if err == nil {
			t.Errorf("ParseRecipe(versions: %s) returned no error, want %s", k.versions, k.want)
			continue
		}
		if got := problemtest.Lines(t, err); len(got) != 1 || !strings.HasPrefix(got[0], k.want) {
			t.Errorf("ParseRecipe(versions: %s) reports\n%s\nwant %s", k.versions, strings.Join(got, "\n"), k.want)
		}
	}
}

// TestLlamaAssets checks that a build has the assets of all sources of the built-in recipe,
// and that only builds are versions.
func TestLlamaAssets(t *testing.T) {
	t.Parallel()
	r, ok := catalog.Builtin().Recipe("llama-cpp")
	if !ok {
		t.Fatal("the built-in catalog has no recipe llama-cpp")
	}
	build := &release{Tag: "b11158"}
	for name := range origintest.LlamaAssets("b11158", "#!/bin/sh\n") {
		build.Assets = append(build.Assets, releaseAsset{Name: name})
	}
	for i := range r.Sources {
		s, err := r.Sources[i].Fill("b11158", wire.Platform{OS: r.Sources[i].OS, Arch: r.Sources[i].Arch}, "")
		if err != nil {
			t.Fatal(err)
		}
		if missing := build.missingAsset(&s); missing != "" {
			t.Errorf("missingAsset(%s for %s/%s) = %q, want none", s.Name, s.OS, s.Arch, missing)
		}
	}
	for tag, want := range map[string]bool{"b11158": true, "v0.5.0": false, "master-1": false, "nightly": false} {
		if _, got := r.Versions.VersionOf(tag); got != want {
			t.Errorf("VersionOf(%q) = %t, want %t", tag, got, want)
		}
	}
	if !r.Versions.Prereleases {
		t.Error("the recipe permits no prereleases, want them permitted: all builds are prereleases")
	}
}
