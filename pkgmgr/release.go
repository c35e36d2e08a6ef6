package pkgmgr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// releases asks the release API of GitHub, or of a server of its own that answers
// alike: https://docs.github.com/en/rest/releases/releases
type releases struct {
	from *fetcher // its api is https://api.github.com

	mu    sync.Mutex
	known map[string]*release // by repository and tag
}

// release is a release as the API tells it.
type release struct {
	Tag        string         `json:"tag_name"`
	Draft      bool           `json:"draft"`
	Prerelease bool           `json:"prerelease"`
	Code       string         `json:"tarball_url"`
	Published  time.Time      `json:"published_at"` // zero for a draft
	Assets     []releaseAsset `json:"assets"`
}

type releaseAsset struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Digest string `json:"digest"` // "sha256:" and hex; missing for old releases
	URL    string `json:"browser_download_url"`
}

// maxPages bounds how many pages of releases are looked through.
const (
	maxPages = 20
	perPage  = 10 // a release may list hundreds of assets
)

// tagged is the release with a tag.
func (g *releases) tagged(ctx context.Context, repo, tag string) (*release, error) {
	g.mu.Lock()
	have := g.known[repo+" "+tag]
	g.mu.Unlock()
	if have != nil {
		return have, nil
	}
	var r release
	err := g.get(ctx, "/repos/"+repo+"/releases/tags/"+url.PathEscape(tag), &r)
	if errors.Is(err, errNotFound) {
		return nil, fmt.Errorf("%s has no release %s", repo, tag)
	}
	if err != nil {
		return nil, err
	}
	g.remember(repo, &r)
	return &r, nil
}

func (g *releases) remember(repo string, r *release) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known == nil {
		g.known = map[string]*release{}
	}
	g.known[repo+" "+r.Tag] = r
}

// newest is the newest version that a wish allows and that has everything that is
// needed, or, if none of those that are looked through has, that has something of it.
// passed tells of a newer one that was passed over, or of what is missing. The release
// that is marked as the latest may be one that only points to another, so it counts as
// any other does.
func (g *releases) newest(ctx context.Context, v *Versions, wish string, covers func(*release, string) coverage) (version, passed string, err error) {
	f := found{repo: v.GitHub, wish: wish, lacks: map[string]string{}}
	look := func(r *release) {
		if version, ok := v.versionOf(r.Tag); ok && !r.Draft && !r.Prerelease {
			g.remember(v.GitHub, r)
			f.add(version, covers(r, version))
		}
	}
	if wish == Latest {
		var r release
		switch err := g.get(ctx, "/repos/"+v.GitHub+"/releases/latest", &r); {
		case err == nil:
			if look(&r); len(f.whole) > 0 {
				return f.whole[0], "", nil
			}
		case !errors.Is(err, errNotFound):
			return "", "", err
		}
	}
	for page := 1; page <= maxPages; page++ {
		var list []*release
		if err := g.get(ctx, fmt.Sprintf("/repos/%s/releases?per_page=%d&page=%d", v.GitHub, perPage, page), &list); err != nil {
			if errors.Is(err, errNotFound) {
				return "", "", fmt.Errorf("%s has no releases", v.GitHub)
			}
			return "", "", err
		}
		for _, r := range list {
			look(r)
		}
		// They come newest first.
		if best := newest(wish, f.whole); best != "" {
			return best, f.passed(best), nil
		}
		if len(list) < perPage {
			break
		}
	}
	best := newest(wish, f.partly)
	switch {
	case best != "":
		return best, f.passed(best), nil
	case len(f.lacks) == 0 && len(f.whole) == 0:
		return "", "", fmt.Errorf("%s has no release with a tag such as %s", v.GitHub, v.Tag)
	}
	return "", "", fmt.Errorf("none of the newest %d releases of %s is a version %s with the files that the recipe names", len(f.lacks)+len(f.whole), v.GitHub, wish)
}

// found are the versions that were looked at.
type found struct {
	repo, wish    string
	whole, partly []string
	lacks         map[string]string // what those that are not whole lack
}

func (f *found) add(version string, c coverage) {
	if c.lacks == "" {
		f.whole = append(f.whole, version)
		return
	}
	f.lacks[version] = c.lacks
	if c.some {
		f.partly = append(f.partly, version)
	}
}

// passed says that the version which was taken is not the newest, or not whole.
func (f *found) passed(taken string) string {
	top := newest(f.wish, slices.Collect(maps.Keys(f.lacks)))
	switch {
	case f.lacks[taken] != "":
		return fmt.Sprintf("%s %s has %s, and neither has a release before it all that is needed", f.repo, taken, f.lacks[taken])
	case top != "" && CompareVersions(top, taken) > 0:
		return fmt.Sprintf("%s %s has %s: taking %s", f.repo, top, f.lacks[top], taken)
	}
	return ""
}

// exact is the version that a wish names: people write versions as they are tagged
// too, or with the v that the package index takes off as well.
func (v *Versions) exact(wish string) string {
	if v.Package != "" {
		if bare := strings.TrimPrefix(wish, "v"); bare != "" && bare[0] >= '0' && bare[0] <= '9' {
			return bare
		}
		return wish
	}
	if version, ok := v.versionOf(wish); ok {
		return version
	}
	return wish
}

// tag is how a version is tagged, and versionOf what a tag means.
func (v *Versions) tag(version string) string { return strings.ReplaceAll(v.Tag, "{version}", version) }

func (v *Versions) versionOf(tag string) (version string, ok bool) {
	before, after, _ := strings.Cut(v.Tag, "{version}")
	version, ok = strings.CutPrefix(tag, before)
	if !ok {
		return "", false
	}
	version, ok = strings.CutSuffix(version, after)
	return version, ok && ValidVersion(version) && strings.ContainsAny(version, "0123456789")
}

// asset finds the file that a pattern names; of several the one whose name is the
// highest.
func (r *release) asset(pattern string) (a releaseAsset, ok bool) {
	for _, have := range r.Assets {
		if match, err := path.Match(pattern, have.Name); err != nil || !match {
			continue
		}
		if !ok || CompareVersions(have.Name, a.Name) > 0 {
			a, ok = have, true
		}
	}
	return a, ok
}

// artefact is an asset as an install needs it.
func (r *release) artefact(repo, pattern string) (wire.Artefact, error) {
	a, ok := r.asset(pattern)
	if !ok {
		names := make([]string, len(r.Assets))
		for i, have := range r.Assets {
			names[i] = have.Name
		}
		slices.Sort(names)
		const few = 12
		more := ""
		if len(names) > few {
			more = fmt.Sprintf(" and %d more", len(names)-few)
			names = names[:few]
		}
		return wire.Artefact{}, fmt.Errorf("release %s of %s has no asset %s; it has %s%s", r.Tag, repo, pattern, cmp.Or(strings.Join(names, ", "), "none"), more)
	}
	sum, ok := strings.CutPrefix(a.Digest, "sha256:")
	if a.Digest != "" && (!ok || !sha256Regexp.MatchString(sum)) {
		return wire.Artefact{}, fmt.Errorf("release %s of %s has the digest %q for %s, which is no SHA-256", r.Tag, repo, a.Digest, a.Name)
	}
	return wire.Artefact{Name: a.Name, URL: a.URL, SHA256: strings.ToLower(sum), Size: a.Size}, nil
}

// get asks the API and reads its JSON.
func (g *releases) get(ctx context.Context, what string, into any) error {
	header := http.Header{"Accept": {"application/vnd.github+json"}, "X-Github-Api-Version": {"2022-11-28"}}
	return g.from.ask(ctx, strings.TrimSuffix(g.from.api, "/")+what, header, func(resp *http.Response) error {
		return readJSON(resp, into)
	})
}
