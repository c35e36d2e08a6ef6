package pkgmgr

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// releases asks the release API of GitHub, or of a server of its own that answers
// alike: https://docs.github.com/en/rest/releases/releases
type releases struct {
	http  *http.Client
	base  string // https://api.github.com
	token string

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

// maxAnswer bounds an answer of an API, and maxPages how many pages of releases
// are looked through.
const (
	maxAPIAnswer = 64 << 20
	maxPages     = 20
	perPage      = 10 // a release may list hundreds of assets
)

var errNotFound = errors.New("not found")

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
	ctx, cancel := context.WithTimeoutCause(ctx, fetchStall, fmt.Errorf("no answer within %s", fetchStall))
	defer cancel()
	address := strings.TrimSuffix(g.base, "/") + what
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("asking %s: %w", shown(address), withoutAddress(ctx, err))
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	req.Header.Set("User-Agent", "rbee")
	if g.token != "" {
		req.Header.Set("Authorization", "Bearer "+g.token)
	}
	resp, err := cmp.Or(g.http, http.DefaultClient).Do(req)
	if err != nil {
		return fmt.Errorf("asking %s: %w", shown(address), withoutAddress(ctx, err))
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return errNotFound
	default:
		return g.refused(address, resp)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAPIAnswer)).Decode(into); err != nil {
		return fmt.Errorf("asking %s: its answer cannot be read: %w", shown(address), withoutAddress(ctx, err))
	}
	return nil
}

// refused words an answer that is none, and what would help.
func (g *releases) refused(address string, resp *http.Response) error {
	h := resp.Header
	limited := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusForbidden && h.Get("X-RateLimit-Remaining") == "0"
	switch {
	case limited:
		until := "for now"
		if at, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil {
			until = "before " + time.Unix(at, 0).Format("15:04:05")
		} else if wait, err := strconv.Atoi(h.Get("Retry-After")); err == nil {
			until = fmt.Sprintf("for %d s", wait)
		}
		help := "set GITHUB_TOKEN to a token of yours, which may ask more often"
		if g.token != "" {
			help = "the token in GITHUB_TOKEN has used up its share"
		}
		return fmt.Errorf("%s takes no more requests %s: %s", shown(g.base), until, help)
	case resp.StatusCode == http.StatusUnauthorized && g.token != "":
		return fmt.Errorf("%s does not accept the token in GITHUB_TOKEN", shown(g.base))
	}
	return fmt.Errorf("asking %s: the server answers %s", shown(address), resp.Status)
}
