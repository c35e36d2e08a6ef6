package pkgmgr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"

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

// newest is the newest version that a wish allows and that has what is looked
// for. The release that is marked as the latest may be one that only points to
// another, so it counts as any other does.
func (g *releases) newest(ctx context.Context, v *Versions, wish string, has func(*release, string) bool) (string, error) {
	if wish == Latest {
		var r release
		err := g.get(ctx, "/repos/"+v.GitHub+"/releases/latest", &r)
		if err == nil {
			if version, ok := v.versionOf(r.Tag); ok && has(&r, version) {
				g.remember(v.GitHub, &r)
				return version, nil
			}
		} else if !errors.Is(err, errNotFound) {
			return "", err
		}
	}
	var versions []string
	seen := 0
	for page := 1; page <= maxPages; page++ {
		var list []*release
		if err := g.get(ctx, fmt.Sprintf("/repos/%s/releases?per_page=%d&page=%d", v.GitHub, perPage, page), &list); err != nil {
			if errors.Is(err, errNotFound) {
				return "", fmt.Errorf("%s has no releases", v.GitHub)
			}
			return "", err
		}
		for _, r := range list {
			version, ok := v.versionOf(r.Tag)
			if r.Draft || r.Prerelease || !ok {
				continue
			}
			seen++
			if has(r, version) {
				g.remember(v.GitHub, r)
				versions = append(versions, version)
			}
		}
		// They come newest first.
		if best := newest(wish, versions); best != "" {
			return best, nil
		}
		if len(list) < perPage {
			break
		}
	}
	if seen == 0 {
		return "", fmt.Errorf("%s has no release with a tag such as %s", v.GitHub, v.Tag)
	}
	return "", fmt.Errorf("none of the newest %d releases of %s is a version %s with the files that the recipe names", seen, v.GitHub, wish)
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
