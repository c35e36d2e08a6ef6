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

// releases asks the release API of GitHub, or of a server of its own that answers
// alike: https://docs.github.com/en/rest/releases/releases
type releases struct {
	client   *fetch.Client // its api is https://api.github.com
	cacheDir string        // directory of answers, see [releases.get]; empty for none

	mu          sync.Mutex
	known       map[string]*release // by repository and tag
	cleanupOnce sync.Once           // the cache
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

// byTag is the release with a tag.
func (g *releases) byTag(ctx context.Context, repo, tag string) (*release, error) {
	g.mu.Lock()
	have := g.known[repo+" "+tag]
	g.mu.Unlock()
	if have != nil {
		return have, nil
	}
	var r release
	err := g.get(ctx, repo, "/tags/"+url.PathEscape(tag), &r)
	switch {
	case errors.Is(err, fetch.ErrNotFound):
		return nil, &noReleaseError{repo, tag}
	case err != nil:
		return nil, err
	case r.Tag != tag:
		return nil, g.invalidResponse(repo, fmt.Sprintf("the release %q where %s was requested", r.Tag, tag))
	}
	g.addKnown(repo, &r)
	return &r, nil
}

func (g *releases) addKnown(repo string, r *release) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known == nil {
		g.known = map[string]*release{}
	}
	g.known[repo+" "+r.Tag] = r
}

// asset finds the file that a pattern names; of several the one whose name is the
// highest.
func (r *release) asset(pattern string) (a releaseAsset, ok bool) {
	for _, have := range r.Assets {
		if match, err := path.Match(pattern, have.Name); err != nil || !match {
			continue
		}
		if !ok || version.Compare(have.Name, a.Name) > 0 {
			a, ok = have, true
		}
	}
	return a, ok
}

// artifact is an asset as an install needs it.
func (r *release) artifact(repo, pattern string) (wire.Artifact, error) {
	a, ok := r.asset(pattern)
	if !ok && len(r.Assets) == 0 {
		return wire.Artifact{}, fmt.Errorf("release %s of %s has no files (yet): try again later, or write another version in the config", r.Tag, repo)
	}
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
		return wire.Artifact{}, fmt.Errorf("release %s of %s has no asset %s; it has %s%s", r.Tag, repo, pattern, strings.Join(names, ", "), more)
	}
	sum, ok := strings.CutPrefix(a.Digest, "sha256:")
	if a.Digest != "" && (!ok || !wire.ValidSHA256(sum)) {
		return wire.Artifact{}, fmt.Errorf("release %s of %s has the digest %q for %s, which is no SHA-256", r.Tag, repo, a.Digest, a.Name)
	}
	return wire.Artifact{Name: a.Name, URL: a.URL, SHA256: strings.ToLower(sum), Size: a.Size}, nil
}
