package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// releases is a client of GitHub's release API, or of a compatible server:
// https://docs.github.com/en/rest/releases/releases
type releases struct {
	client   *fetch.Client // its API is the URL of the API, such as https://api.github.com
	cacheDir string        // directory of cached responses, see [releases.get]; empty for no cache

	mu          sync.Mutex
	cache       map[string]*release // fetched releases, by repository and tag
	cleanupOnce sync.Once           // removes old files from the cache
}

// release is a release in a response of the API.
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
	Digest string `json:"digest"` // "sha256:" and hexadecimal digits; missing for old releases
	URL    string `json:"browser_download_url"`
}

// byTag returns the release with a tag. The error is a [*noReleaseError] if the
// repository has no such release.
func (g *releases) byTag(ctx context.Context, repo, tag string) (*release, error) {
	g.mu.Lock()
	cached := g.cache[repo+" "+tag]
	g.mu.Unlock()
	if cached != nil {
		return cached, nil
	}
	var r release
	err := g.get(ctx, repo, "/tags/"+url.PathEscape(tag), &r)
	switch {
	case errors.Is(err, fetch.ErrNotFound):
		return nil, &noReleaseError{repo, tag}
	case err != nil:
		return nil, err
	case r.Tag != tag:
		return nil, g.invalidResponse(repo, fmt.Sprintf("release %q for the tag %s", r.Tag, tag))
	}
	g.addToCache(repo, &r)
	return &r, nil
}

// addToCache adds a release to the cache in memory.
func (g *releases) addToCache(repo string, r *release) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cache == nil {
		g.cache = map[string]*release{}
	}
	g.cache[repo+" "+r.Tag] = r
}

// asset returns the asset that matches a pattern. If several assets match, it returns the
// asset with the highest version in its name.
func (r *release) asset(pattern string) (a releaseAsset, ok bool) {
	for _, candidate := range r.Assets {
		if match, err := path.Match(pattern, candidate.Name); err != nil || !match {
			continue
		}
		if !ok || version.Compare(candidate.Name, a.Name) > 0 {
			a, ok = candidate, true
		}
	}
	return a, ok
}

// artifact returns the asset that matches a pattern as an artifact. Its SHA256 is empty if the
// API does not report a digest.
func (r *release) artifact(repo, pattern string) (wire.Artifact, error) {
	a, ok := r.asset(pattern)
	if !ok && len(r.Assets) == 0 {
		return wire.Artifact{}, fmt.Errorf("release %s of %s has no files yet: try again later, or set another version in the config", r.Tag, repo)
	}
	if !ok {
		names := make([]string, len(r.Assets))
		for i, asset := range r.Assets {
			names[i] = asset.Name
		}
		slices.Sort(names)
		const maxNames = 12
		more := ""
		if len(names) > maxNames {
			more = fmt.Sprintf(" and %d more", len(names)-maxNames)
			names = names[:maxNames]
		}
		return wire.Artifact{}, fmt.Errorf("release %s of %s has no asset %s; assets: %s%s", r.Tag, repo, pattern, strings.Join(names, ", "), more)
	}
	sum, ok := strings.CutPrefix(a.Digest, "sha256:")
	if a.Digest != "" && (!ok || !wire.ValidSHA256(sum)) {
		return wire.Artifact{}, fmt.Errorf("invalid digest %q of %s in release %s of %s: want a SHA-256", a.Digest, a.Name, r.Tag, repo)
	}
	return wire.Artifact{Name: a.Name, URL: a.URL, SHA256: strings.ToLower(sum), Size: a.Size}, nil
}
