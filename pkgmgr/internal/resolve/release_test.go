package resolve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// fakeAPI is a release API server with one repository a/b.
type fakeAPI struct {
	releases []release // newest first
	latest   string    // tag of the latest release
	limited  bool      // the rate limit is exceeded for requests without the token "good"
	requests []string  // paths of the requests
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.requests = append(f.requests, r.URL.RequestURI())
	if f.limited && r.Header.Get("Authorization") != "Bearer good" {
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(time.Date(2030, 1, 2, 3, 4, 5, 0, time.Local).Unix(), 10))
		http.Error(w, `{"message": "API rate limit exceeded"}`, http.StatusForbidden)
		return
	}
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	tag := func(want string) {
		i := slices.IndexFunc(f.releases, func(r release) bool { return r.Tag == want })
		if i < 0 {
			http.Error(w, `{"message": "Not Found"}`, http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(f.releases[i])
	}
	switch path := strings.TrimPrefix(r.URL.Path, "/repos/a/b/releases"); {
	case path == "/latest":
		tag(f.latest)
	case strings.HasPrefix(path, "/tags/"):
		tag(strings.TrimPrefix(path, "/tags/"))
	case path == "" && page > 0:
		from := min((page-1)*maxPageSize, len(f.releases))
		_ = json.NewEncoder(w).Encode(f.releases[from:min(from+maxPageSize, len(f.releases))])
	default:
		http.Error(w, `{"message": "Not Found"}`, http.StatusNotFound)
	}
}

func newAPI(t *testing.T, f *fakeAPI) *releases {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return &releases{client: &fetch.Client{API: srv.URL}}
}

func assets(names ...string) []releaseAsset {
	var all []releaseAsset
	for _, n := range names {
		all = append(all, releaseAsset{Name: n, Size: 7, Digest: "sha256:" + sum, URL: "https://h/" + n})
	}
	return all
}

func TestNewestRelease(t *testing.T) {
	t.Parallel()
	f := &fakeAPI{latest: "nightly", releases: []release{
		{Tag: "nightly", Assets: assets("nightly-tag.txt")},
		{Tag: "b30", Prerelease: true, Assets: assets("x-b30.zip")},
		{Tag: "b29", Draft: true, Assets: assets("x-b29.zip")},
		{Tag: "b28"}, // its assets are not uploaded yet
		{Tag: "b27", Assets: assets("x-b27.zip")},
	}}
	for n := 26; n > 0; n-- {
		f.releases = append(f.releases, release{Tag: "b" + strconv.Itoa(n), Assets: assets(fmt.Sprintf("x-b%d.zip", n))})
	}
	g := newAPI(t, f)
	hasAsset := func(r *release, version string) coverage {
		return coverageOf(r, version, []consumer{{"gpu-1", func(v string) ([]catalog.Source, error) {
			return []catalog.Source{{Steps: []catalog.Step{{Origin: catalog.Origin{Asset: "x-" + v + ".zip"}}}}}, nil
		}}})
	}
	for constraint, want := range map[string]string{"latest": "b27", "<=b9": "b9", ">b10, <b12": "b11"} {
		if got, _, err := g.resolveNewest(t.Context(), &catalog.Versions{GitHub: "a/b", Tag: "{version}"}, constraint, hasAsset); got != want || err != nil {
			t.Errorf("resolveNewest(%q) = %q, %v, want %q", constraint, got, err, want)
		}
	}
	for repo, want := range map[string]string{"a/b": "none of the newest 28 releases of a/b satisfies >b90 and has the files that the recipe requires", "no/such": "no/such has no releases"} {
		if _, _, err := g.resolveNewest(t.Context(), &catalog.Versions{GitHub: repo, Tag: "{version}"}, ">b90", hasAsset); err == nil || err.Error() != want {
			t.Errorf("resolveNewest(%s) = %v, want %q", repo, err, want)
		}
	}
	if _, _, err := g.resolveNewest(t.Context(), &catalog.Versions{GitHub: "a/b", Tag: "v{version}"}, version.Latest, hasAsset); err == nil || err.Error() != "a/b has no release with a tag such as v{version}" {
		t.Errorf("resolveNewest() without matching tags = %v, want an error with the form of the tag", err)
	}
	// A latest release that is a version needs one request.
	f.latest, f.requests = "b27", nil
	if got, _, err := g.resolveNewest(t.Context(), &catalog.Versions{GitHub: "a/b", Tag: "b{version}"}, version.Latest, func(*release, string) coverage { return coverage{} }); got != "27" || err != nil || len(f.requests) != 1 {
		t.Errorf("resolveNewest(latest) = %q, %v after requests %q, want 27 after one request", got, err, f.requests)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	f := &fakeAPI{limited: true, releases: []release{{Tag: "v1"}}}
	g := newAPI(t, f)
	if _, err := g.byTag(t.Context(), "a/b", "v1"); err == nil || !strings.Contains(err.Error(), "exceeded until 2030-01-02 03:04:05: set GITHUB_TOKEN") {
		t.Errorf("byTag() without a token = %v, want the time of the reset and a hint", err)
	}
	g.client.Token = "spent"
	if _, err := g.byTag(t.Context(), "a/b", "v1"); err == nil || !strings.Contains(err.Error(), "the token in GITHUB_TOKEN has reached its limit") || strings.Contains(err.Error(), "spent") {
		t.Errorf("byTag() with a limited token = %v, want a hint without the token", err)
	}
	g.client.Token = "good"
	if r, err := g.byTag(t.Context(), "a/b", "v1"); err != nil || r.Tag != "v1" {
		t.Errorf("byTag(v1) = %v, %v, want the release", r, err)
	}
	if _, err := g.byTag(t.Context(), "a/b", "v2"); err == nil || err.Error() != "a/b has no release v2" {
		t.Errorf("byTag(v2) = %v, want no release", err)
	}
}

func TestAsset(t *testing.T) {
	t.Parallel()
	r := &release{Tag: "b1", Assets: assets("x-cuda-12.4.tgz", "x-cuda-12.10.tgz", "x-cuda-13.1.tgz")}
	if a, err := r.artifact("a/b", "x-cuda-12.*.tgz"); err != nil || a != (wire.Artifact{Name: "x-cuda-12.10.tgz", URL: "https://h/x-cuda-12.10.tgz", SHA256: sum, Size: 7}) {
		t.Errorf("artifact(x-cuda-12.*) = %+v, %v, want x-cuda-12.10.tgz", a, err)
	}
	if _, err := r.artifact("a/b", "x-rocm-*.tgz"); err == nil || err.Error() != "release b1 of a/b has no asset x-rocm-*.tgz; assets: x-cuda-12.10.tgz, x-cuda-12.4.tgz, x-cuda-13.1.tgz" {
		t.Errorf("artifact(x-rocm-*) = %v, want the list of assets", err)
	}
	r.Assets[0].Digest = "md5:1"
	if _, err := r.artifact("a/b", "x-cuda-12.4.tgz"); err == nil || !strings.Contains(err.Error(), `invalid digest "md5:1"`) {
		t.Errorf("artifact() with an md5 digest = %v, want an invalid digest", err)
	}
}

func TestExact(t *testing.T) {
	t.Parallel()
	tagged := func(tag string) *catalog.Versions { return &catalog.Versions{GitHub: "a/b", Tag: tag} }
	for _, k := range []struct {
		versions   *catalog.Versions
		text, want string
	}{
		{tagged("v{version}"), "v0.3.1", "0.3.1"},
		{tagged("v{version}"), "0.3.1", "0.3.1"},
		{tagged("{version}"), "b9", "b9"},
		{tagged("release-{version}"), "release-2.0", "2.0"},
		{&catalog.Versions{Package: "x"}, "v0.10.0", "0.10.0"},
		{&catalog.Versions{Package: "x"}, "0.10.0", "0.10.0"},
	} {
		if got := k.versions.Exact(k.text); got != k.want {
			t.Errorf("Exact(%q) of %+v = %q, want %q", k.text, k.versions, got, k.want)
		}
	}
}

const sum = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestAbsoluteURL(t *testing.T) {
	t.Parallel()
	for ref, want := range map[string]string{
		"../../p/x.whl#sha256=1":      "https://h/p/x.whl",
		"https://me:secret@h/p/x.whl": "https://h/p/x.whl",
		"http://other/x.whl":          "http://other/x.whl",
		"file:///etc/x.whl":           "",
	} {
		if got, err := AbsoluteURL("https://me:secret@h/simple/x/", ref); got != want || (err == nil) != (want != "") {
			t.Errorf("AbsoluteURL(%q) = %q, %v, want %q", ref, got, err, want)
		}
	}
}
