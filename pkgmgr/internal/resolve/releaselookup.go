package resolve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

const (
	// maxLookupRequests is the maximum number of requests to the release API in one lookup,
	// without downloads of assets. Without a token, GitHub permits 60 requests per hour.
	maxLookupRequests = 3

	// maxPageSize is the maximum number of releases per page of GitHub.
	maxPageSize = 100

	// smallPageSize is the number of releases per page for a repository whose latest release
	// has more than maxPageAssets assets, because a page contains the assets of all its
	// releases.
	smallPageSize = 10
	maxPageAssets = 100
)

// noReleaseError reports that a repository has no release with a tag.
type noReleaseError struct{ repo, tag string }

func (e *noReleaseError) Error() string { return fmt.Sprintf("%s has no release %s", e.repo, e.tag) }

// ErrorCode returns [operations.ReasonUnknownVersion].
func (e *noReleaseError) ErrorCode() string { return string(operations.ReasonUnknownVersion) }

// resolveExact resolves an exact version of a config. If exact names a pointer release, it
// returns the version of the release that the pointer refers to.
func (g *releases) resolveExact(ctx context.Context, v *catalog.Versions, exact string) (string, error) {
	tag, ok := v.PointerTag(exact)
	if !ok {
		version := v.Exact(exact)
		if !v.Matches(version) {
			return "", fmt.Errorf("invalid version %q: want a version of %s such as %s%s", exact, v.GitHub, v.Match, v.PointerHint())
		}
		return version, nil
	}
	r, err := g.byTag(ctx, v.GitHub, tag)
	var noRelease *noReleaseError
	if errors.As(err, &noRelease) {
		return "", fmt.Errorf("%w: want a version such as %s%s", err, v.Match, v.PointerHint())
	}
	if err != nil {
		return "", err
	}
	version, err := g.pointerTarget(ctx, v, r)
	switch {
	case err != nil:
		return "", err
	case version == "":
		return "", fmt.Errorf("release %s of %s has no asset %s with its version: set the version in the config, such as %s", tag, v.GitHub, v.Pointer.Asset, v.Match)
	}
	_, err = g.followPointer(ctx, v, tag, version)
	return version, err
}

// resolveNewest returns the newest version that satisfies a version constraint and has the
// files for all machines. If no version has all files, it returns a version with files for
// some machines. For [version.Latest], versions newer than the target of the latest pointer
// release are ignored if possible. note describes skipped versions or missing files; it may be
// empty. The lookup makes at most maxLookupRequests requests.
func (g *releases) resolveNewest(ctx context.Context, v *catalog.Versions, constraint string, coverageFunc func(*release, string) coverage) (exact, note string, err error) {
	if err := v.CheckRange(constraint); err != nil {
		return "", "", err
	}
	l := releaseLookup{
		releases: g, versions: v, coverage: coverageFunc, requestsLeft: maxLookupRequests, pageSize: maxPageSize,
		candidates: candidates{repo: v.GitHub, constraint: constraint, missing: map[string]string{}},
	}
	if constraint == version.Latest {
		if err := l.considerLatest(ctx); err != nil {
			return "", "", err
		}
		if len(l.candidates.complete) > 0 {
			return l.candidates.complete[0], "", nil
		}
	}
	for page := 1; l.requestsLeft > 0 && !l.exhausted; page++ {
		if err := l.considerPage(ctx, page); err != nil {
			return "", "", err
		}
		// Later pages contain only older releases.
		if best := l.candidates.best(); best != "" {
			return best, l.candidates.skippedNote(best), nil
		}
	}
	if best := l.candidates.fallback(); best != "" {
		return best, l.candidates.skippedNote(best), nil
	}
	return "", "", l.notFoundError()
}

// releaseLookup searches the releases of a repository for a version.
type releaseLookup struct {
	*releases
	versions   *catalog.Versions
	coverage   func(*release, string) coverage
	candidates candidates

	requestsLeft int
	pageSize     int  // number of releases per page
	listed       int  // number of releases read from the list
	skipped      int  // number of versions ignored because they are prereleases
	exhausted    bool // the list has no more releases
}

// consider adds a release to the candidates if its tag names a version.
func (l *releaseLookup) consider(r *release) {
	version, ok := l.versions.VersionOf(r.Tag)
	switch {
	case !ok || r.Draft:
	case r.Prerelease && !l.versions.Prereleases:
		l.skipped++
	default:
		l.addToCache(l.versions.GitHub, r)
		l.candidates.add(version, l.coverage(r, version))
	}
}

// considerLatest considers the release that is marked as the latest. If it is a pointer release,
// considerLatest also considers its target.
func (l *releaseLookup) considerLatest(ctx context.Context) error {
	var r release
	l.requestsLeft--
	err := l.get(ctx, l.versions.GitHub, "/latest", &r)
	switch {
	case errors.Is(err, fetch.ErrNotFound): // all releases are prereleases
		return nil
	case err != nil:
		return err
	case r.Tag == "":
		return l.invalidResponse(l.versions.GitHub, "a release without a tag")
	}
	if len(r.Assets) > maxPageAssets {
		l.pageSize = smallPageSize
	}
	l.consider(&r)
	target, err := l.pointerTarget(ctx, l.versions, &r)
	if err != nil || target == "" {
		return err
	}
	l.candidates.limit = target
	l.requestsLeft--
	targetRelease, err := l.followPointer(ctx, l.versions, r.Tag, target)
	if err != nil {
		return err
	}
	l.consider(targetRelease)
	return nil
}

// considerPage considers the releases on a page of the list. Pages count from 1.
func (l *releaseLookup) considerPage(ctx context.Context, page int) error {
	var list []*release
	l.requestsLeft--
	err := l.get(ctx, l.versions.GitHub, fmt.Sprintf("?per_page=%d&page=%d", l.pageSize, page), &list)
	switch {
	case errors.Is(err, fetch.ErrNotFound) && page == 1:
		return fmt.Errorf("%s has no releases", l.versions.GitHub)
	case errors.Is(err, fetch.ErrNotFound):
		list = nil
	case err != nil:
		return err
	}
	l.exhausted = len(list) < l.pageSize
	for _, r := range list {
		if r == nil || r.Tag == "" {
			return l.invalidResponse(l.versions.GitHub, "a release without a tag")
		}
		l.listed++
		// Use the newest pointer release that has its text file: the latest may not have it yet.
		if l.candidates.constraint == version.Latest && l.candidates.limit == "" && !r.Draft {
			if l.candidates.limit, err = l.pointerTarget(ctx, l.versions, r); err != nil {
				return err
			}
		}
		l.consider(r)
	}
	return nil
}

// notFoundError returns the error for a lookup without a result.
func (l *releaseLookup) notFoundError() error {
	v, count := l.versions, len(l.candidates.missing)+len(l.candidates.complete)
	problem, hint := "", ""
	switch {
	case count == 0 && l.skipped > 0:
		problem = fmt.Sprintf("%s has only prereleases among its newest %d releases: set an exact version, or add prereleases: true to versions in the recipe", v.GitHub, l.listed)
	case count == 0 && v.Match != "":
		problem = fmt.Sprintf("%s has no release with a tag such as %s and a version such as %s", v.GitHub, v.Tag, v.Match)
	case count == 0:
		problem = fmt.Sprintf("%s has no release with a tag such as %s", v.GitHub, v.Tag)
	default:
		problem = fmt.Sprintf("none of the newest %d releases of %s satisfies %s and has the files that the recipe requires", count, v.GitHub, l.candidates.constraint)
	}
	if !l.exhausted {
		hint = fmt.Sprintf(" (checked %d releases; for an older release, set its exact version in the config)", l.listed)
	}
	return errors.New(problem + hint)
}

// candidates contains the versions that a lookup has considered.
type candidates struct {
	repo, constraint  string
	limit             string            // the version that the latest release points to; may be empty
	complete, partial []string          // versions with the files for all consumers, or only for some
	missing           map[string]string // the first missing file of each version that is not complete
}

// add adds a version with the coverage of its release.
func (c *candidates) add(version string, cov coverage) {
	if cov.missing == "" {
		c.complete = append(c.complete, version)
		return
	}
	c.missing[version] = cov.missing
	if cov.partial {
		c.partial = append(c.partial, version)
	}
}

// upToLimit returns the versions that are not newer than the limit.
func (c *candidates) upToLimit(versions []string) []string {
	if c.limit == "" {
		return versions
	}
	return slices.DeleteFunc(slices.Clone(versions), func(v string) bool { return version.Compare(v, c.limit) > 0 })
}

// best returns the newest complete version, or "".
func (c *candidates) best() string { return version.Newest(c.constraint, c.upToLimit(c.complete)) }

// fallback returns the version to use if best returns "" after all requests: the oldest
// complete version above the limit, or else the newest partial version, or "".
func (c *candidates) fallback() string {
	if c.limit != "" && len(c.complete) > 0 {
		return slices.MinFunc(c.complete, version.Compare)
	}
	if best := version.Newest(c.constraint, c.upToLimit(c.partial)); best != "" {
		return best
	}
	return version.Newest(c.constraint, c.partial)
}

// skippedNote returns a note if the chosen version lacks a file, or if a newer version was
// skipped because of missing files. Otherwise it returns "".
func (c *candidates) skippedNote(chosen string) string {
	newest := version.Newest(c.constraint, c.upToLimit(slices.Collect(maps.Keys(c.missing))))
	switch {
	case c.missing[chosen] != "":
		return fmt.Sprintf("%s %s has %s, and no earlier release has all required files", c.repo, chosen, c.missing[chosen])
	case newest != "" && (version.Compare(newest, chosen) > 0 || c.limit != "" && version.Compare(chosen, c.limit) > 0):
		return fmt.Sprintf("%s %s has %s: using %s", c.repo, newest, c.missing[newest], chosen)
	}
	return ""
}

// maxPointer is the maximum size of the text file of a pointer release, in bytes.
const maxPointer = 1 << 10

// pointerTarget returns the version that a pointer release refers to. It returns "" if the
// release is not a pointer or does not have the text file.
func (g *releases) pointerTarget(ctx context.Context, v *catalog.Versions, r *release) (string, error) {
	if v.Pointer == nil {
		return "", nil
	}
	if _, ok := catalog.CutTag(v.Pointer.Tag, r.Tag); !ok {
		return "", nil
	}
	i := slices.IndexFunc(r.Assets, func(a releaseAsset) bool { return a.Name == v.Pointer.Asset })
	if i < 0 {
		return "", nil
	}
	text, err := g.client.Text(ctx, r.Assets[i].URL, maxPointer)
	if err != nil {
		return "", fmt.Errorf("cannot read %s of release %s of %s: %w", v.Pointer.Asset, r.Tag, v.GitHub, err)
	}
	version, ok := v.PointerTarget(text)
	if !ok {
		return "", fmt.Errorf("invalid %s of release %s of %s: got %.60q, want the tag of a release with a version such as %s; set an exact version in the config", v.Pointer.Asset, r.Tag, v.GitHub, text, v.Match)
	}
	return version, nil
}

// followPointer returns the release of the version that a pointer release refers to.
func (g *releases) followPointer(ctx context.Context, v *catalog.Versions, pointer, version string) (*release, error) {
	r, err := g.byTag(ctx, v.GitHub, v.TagOf(version))
	var noRelease *noReleaseError
	if errors.As(err, &noRelease) {
		return nil, fmt.Errorf("cannot resolve release %s of %s to its version: %w; set an exact version in the config", pointer, v.GitHub, err)
	}
	return r, err
}
