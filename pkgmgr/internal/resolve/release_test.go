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

// fakeAPI answers as the release API does, for one repository a/b.
type fakeAPI struct {
	releases []release // newest first
	latest   string    // the tag that is marked as the latest
	limited  bool      // but for those with the token
	asked    []string
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.asked = append(f.asked, r.URL.RequestURI())
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
		from := min((page-1)*perPage, len(f.releases))
		_ = json.NewEncoder(w).Encode(f.releases[from:min(from+perPage, len(f.releases))])
	default:
		http.Error(w, `{"message": "Not Found"}`, http.StatusNotFound)
	}
}

func newAPI(t *testing.T, f *fakeAPI) *releases {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	return &releases{from: &fetch.Client{API: srv.URL}}
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
		{Tag: "b28"}, // not all is there yet
		{Tag: "b27", Assets: assets("x-b27.zip")},
	}}
	for n := 26; n > 0; n-- {
		f.releases = append(f.releases, release{Tag: "b" + strconv.Itoa(n), Assets: assets(fmt.Sprintf("x-b%d.zip", n))})
	}
	g := newAPI(t, f)
	has := func(r *release, version string) coverage {
		return cover(r, version, []need{{"gpu-1", func(v string) ([]catalog.Source, error) {
			return []catalog.Source{{Steps: []catalog.Step{{Origin: catalog.Origin{Asset: "x-" + v + ".zip"}}}}}, nil
		}}})
	}
	for wish, want := range map[string]string{"latest": "b27", "<=b9": "b9", ">b10, <b12": "b11"} {
		if got, _, err := g.newest(t.Context(), &catalog.Versions{GitHub: "a/b", Tag: "{version}"}, wish, has); got != want || err != nil {
			t.Errorf("%s is %q, %v", wish, got, err)
		}
	}
	for repo, want := range map[string]string{"a/b": "none of the newest 28 releases of a/b is a version >b90 with the files that the recipe names", "no/such": "no/such has no releases"} {
		if _, _, err := g.newest(t.Context(), &catalog.Versions{GitHub: repo, Tag: "{version}"}, ">b90", has); err == nil || err.Error() != want {
			t.Errorf("%s: %v", repo, err)
		}
	}
	if _, _, err := g.newest(t.Context(), &catalog.Versions{GitHub: "a/b", Tag: "v{version}"}, version.Latest, has); err == nil || err.Error() != "a/b has no release with a tag such as v{version}" {
		t.Errorf("%v", err)
	}
	// A release that is the latest, and is one, costs one request.
	f.latest, f.asked = "b27", nil
	if got, _, err := g.newest(t.Context(), &catalog.Versions{GitHub: "a/b", Tag: "b{version}"}, version.Latest, func(*release, string) coverage { return coverage{} }); got != "27" || err != nil || len(f.asked) != 1 {
		t.Errorf("%q, %v, %q", got, err, f.asked)
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	f := &fakeAPI{limited: true, releases: []release{{Tag: "v1"}}}
	g := newAPI(t, f)
	if _, err := g.tagged(t.Context(), "a/b", "v1"); err == nil || !strings.Contains(err.Error(), "exceeded until 2030-01-02 03:04:05: set GITHUB_TOKEN") {
		t.Errorf("%v", err)
	}
	g.from.Token = "spent"
	if _, err := g.tagged(t.Context(), "a/b", "v1"); err == nil || !strings.Contains(err.Error(), "the token in GITHUB_TOKEN has reached its limit") || strings.Contains(err.Error(), "spent") {
		t.Errorf("%v", err)
	}
	g.from.Token = "good"
	if r, err := g.tagged(t.Context(), "a/b", "v1"); err != nil || r.Tag != "v1" {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := g.tagged(t.Context(), "a/b", "v2"); err == nil || err.Error() != "a/b has no release v2" {
		t.Errorf("%v", err)
	}
}

func TestAsset(t *testing.T) {
	t.Parallel()
	r := &release{Tag: "b1", Assets: assets("x-cuda-12.4.tgz", "x-cuda-12.10.tgz", "x-cuda-13.1.tgz")}
	if a, err := r.artifact("a/b", "x-cuda-12.*.tgz"); err != nil || a != (wire.Artifact{Name: "x-cuda-12.10.tgz", URL: "https://h/x-cuda-12.10.tgz", SHA256: sum, Size: 7}) {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := r.artifact("a/b", "x-rocm-*.tgz"); err == nil || err.Error() != "release b1 of a/b has no asset x-rocm-*.tgz; it has x-cuda-12.10.tgz, x-cuda-12.4.tgz, x-cuda-13.1.tgz" {
		t.Errorf("%v", err)
	}
	r.Assets[0].Digest = "md5:1"
	if _, err := r.artifact("a/b", "x-cuda-12.4.tgz"); err == nil || !strings.Contains(err.Error(), "which is no SHA-256") {
		t.Errorf("%v", err)
	}
}

func TestExact(t *testing.T) {
	t.Parallel()
	tagged := func(tag string) *catalog.Versions { return &catalog.Versions{GitHub: "a/b", Tag: tag} }
	for _, k := range []struct {
		of         *catalog.Versions
		wish, want string
	}{
		{tagged("v{version}"), "v0.3.1", "0.3.1"},
		{tagged("v{version}"), "0.3.1", "0.3.1"},
		{tagged("{version}"), "b9", "b9"},
		{tagged("release-{version}"), "release-2.0", "2.0"},
		{&catalog.Versions{Package: "x"}, "v0.10.0", "0.10.0"},
		{&catalog.Versions{Package: "x"}, "0.10.0", "0.10.0"},
	} {
		if got := k.of.Exact(k.wish); got != k.want {
			t.Errorf("%s of %+v is %s, want %s", k.wish, k.of, got, k.want)
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
			t.Errorf("%s is %q, %v", ref, got, err)
		}
	}
}
