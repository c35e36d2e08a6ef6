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
	// lookupRequests is how many requests to the release API one lookup may make.
	// Downloads of assets do not count. Without a token, an hour has 60.
	lookupRequests = 3

	// perPage is how many releases are requested at once: the most that GitHub
	// sends. Where a release has more than manyAssets assets, it is perPageLarge,
	// since the answer lists all assets of every release.
	perPage      = 100
	perPageLarge = 10
	manyAssets   = 100
)

// noReleaseError reports that a repository has no release with a tag.
type noReleaseError struct{ repo, tag string }

func (e *noReleaseError) Error() string { return fmt.Sprintf("%s has no release %s", e.repo, e.tag) }

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *noReleaseError) ErrorCode() string { return string(operations.ReasonUnknownVersion) }

// resolveExact returns the version that an exact version in a config stands for. For a
// pointer release it is the version that this one points to, and that version is a
// release.
func (g *releases) resolveExact(ctx context.Context, v *catalog.Versions, wish string) (string, error) {
	tag, ok := v.PointerTag(wish)
	if !ok {
		version := v.Exact(wish)
		if !v.Matches(version) {
			return "", fmt.Errorf("invalid version %q: want a version of %s such as %s%s", wish, v.GitHub, v.Match, v.PointerHint())
		}
		return version, nil
	}
	r, err := g.byTag(ctx, v.GitHub, tag)
	var missing *noReleaseError
	if errors.As(err, &missing) {
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
		return "", fmt.Errorf("release %s of %s has no asset %s, which contains its version: write the version instead, such as %s", tag, v.GitHub, v.Pointer.Asset, v.Match)
	}
	_, err = g.followPointer(ctx, v, tag, version)
	return version, err
}

// resolveNewest returns the newest version that a version constraint allows and that has
// all files that machines need or, if none has, one that has some of them. A release
// that the latest release points to is the newest for [version.Latest]. passed is a note on
// a version that was passed over, or on what is missing; it may be empty. The lookup
// makes at most lookupRequests requests.
func (g *releases) resolveNewest(ctx context.Context, v *catalog.Versions, wish string, covers func(*release, string) coverage) (exact, passed string, err error) {
	if err := v.CheckRange(wish); err != nil {
		return "", "", err
	}
	l := releaseLookup{
		releases: g, versions: v, coverage: covers, left: lookupRequests, perPage: perPage,
		candidates: candidates{repo: v.GitHub, constraint: wish, missing: map[string]string{}},
	}
	if wish == version.Latest {
		if err := l.considerLatest(ctx); err != nil {
			return "", "", err
		}
		if len(l.candidates.complete) > 0 {
			return l.candidates.complete[0], "", nil
		}
	}
	for page := 1; l.left > 0 && !l.exhausted; page++ {
		if err := l.considerPage(ctx, page); err != nil {
			return "", "", err
		}
		// The list starts with the newest release.
		if best := l.candidates.best(); best != "" {
			return best, l.candidates.skippedNote(best), nil
		}
	}
	if best := l.candidates.fallback(); best != "" {
		return best, l.candidates.skippedNote(best), nil
	}
	return "", "", l.notFoundError()
}

// releaseLookup searches the releases of a repository for one version.
type releaseLookup struct {
	*releases
	versions   *catalog.Versions
	coverage   func(*release, string) coverage
	candidates candidates

	left      int // requests that may still be made
	perPage   int
	listed    int  // releases of the list that were read
	skipped   int  // of those, versions that are prereleases and do not count
	exhausted bool // the list has no further releases
}

// consider takes a release into account if it is a version.
func (l *releaseLookup) consider(r *release) {
	version, ok := l.versions.VersionOf(r.Tag)
	switch {
	case !ok || r.Draft:
	case r.Prerelease && !l.versions.Prereleases:
		l.skipped++
	default:
		l.addKnown(l.versions.GitHub, r)
		l.candidates.add(version, l.coverage(r, version))
	}
}

// considerLatest looks at the release that is marked as the latest and, if that is a pointer,
// at the one that it points to.
func (l *releaseLookup) considerLatest(ctx context.Context) error {
	var r release
	l.left--
	err := l.get(ctx, l.versions.GitHub, "/latest", &r)
	switch {
	case errors.Is(err, fetch.ErrNotFound): // all releases are prereleases
		return nil
	case err != nil:
		return err
	case r.Tag == "":
		return l.invalidResponse(l.versions.GitHub, "a release without a tag")
	}
	if len(r.Assets) > manyAssets {
		l.perPage = perPageLarge
	}
	l.consider(&r)
	target, err := l.pointerTarget(ctx, l.versions, &r)
	if err != nil || target == "" {
		return err
	}
	l.candidates.limit = target
	l.left--
	build, err := l.followPointer(ctx, l.versions, r.Tag, target)
	if err != nil {
		return err
	}
	l.consider(build)
	return nil
}

// considerPage looks at a page of the list of releases; the first is 1.
func (l *releaseLookup) considerPage(ctx context.Context, page int) error {
	var list []*release
	l.left--
	err := l.get(ctx, l.versions.GitHub, fmt.Sprintf("?per_page=%d&page=%d", l.perPage, page), &list)
	switch {
	case errors.Is(err, fetch.ErrNotFound) && page == 1:
		return fmt.Errorf("%s has no releases", l.versions.GitHub)
	case errors.Is(err, fetch.ErrNotFound):
		list = nil
	case err != nil:
		return err
	}
	l.exhausted = len(list) < l.perPage
	for _, r := range list {
		if r == nil || r.Tag == "" {
			return l.invalidResponse(l.versions.GitHub, "a release without a tag")
		}
		l.listed++
		// The latest release may not have its pointer yet: the one before it counts.
		if l.candidates.constraint == version.Latest && l.candidates.limit == "" && !r.Draft {
			if l.candidates.limit, err = l.pointerTarget(ctx, l.versions, r); err != nil {
				return err
			}
		}
		l.consider(r)
	}
	return nil
}

// notFoundError explains why no version was found.
func (l *releaseLookup) notFoundError() error {
	v, n := l.versions, len(l.candidates.missing)+len(l.candidates.complete)
	what, remedy := "", ""
	switch {
	case n == 0 && l.skipped > 0:
		what = fmt.Sprintf("%s has only prereleases among its newest %d releases: write an exact version, or add prereleases: true to versions in the recipe", v.GitHub, l.listed)
	case n == 0 && v.Match != "":
		what = fmt.Sprintf("%s has no release with a tag such as %s and a version such as %s", v.GitHub, v.Tag, v.Match)
	case n == 0:
		what = fmt.Sprintf("%s has no release with a tag such as %s", v.GitHub, v.Tag)
	default:
		what = fmt.Sprintf("none of the newest %d releases of %s is a version %s with the files that the recipe names", n, v.GitHub, l.candidates.constraint)
	}
	if !l.exhausted {
		remedy = fmt.Sprintf(" (read %d releases; for an older one, write its exact version in the config)", l.listed)
	}
	return errors.New(what + remedy)
}

// candidates are the versions that a lookup has seen.
type candidates struct {
	repo, constraint  string
	limit             string            // the version that the latest release points to; empty for none
	complete, partial []string          // versions with all files that are needed, and with some
	missing           map[string]string // what versions lack that are not whole
}

func (f *candidates) add(version string, c coverage) {
	if c.missing == "" {
		f.complete = append(f.complete, version)
		return
	}
	f.missing[version] = c.missing
	if c.partial {
		f.partial = append(f.partial, version)
	}
}

// notAboveLimit returns the versions that are not newer than the limit.
func (f *candidates) notAboveLimit(versions []string) []string {
	if f.limit == "" {
		return versions
	}
	return slices.DeleteFunc(slices.Clone(versions), func(v string) bool { return version.Compare(v, f.limit) > 0 })
}

// best returns the newest version that has all files; empty for none.
func (f *candidates) best() string { return version.Newest(f.constraint, f.notAboveLimit(f.complete)) }

// fallback returns the version to take if [found.best] finds none in all releases
// that may be read: the oldest one with all files after the limit, or the newest one
// with some of them. It is empty for none.
func (f *candidates) fallback() string {
	if f.limit != "" && len(f.complete) > 0 {
		return slices.MinFunc(f.complete, version.Compare)
	}
	if best := version.Newest(f.constraint, f.notAboveLimit(f.partial)); best != "" {
		return best
	}
	return version.Newest(f.constraint, f.partial)
}

// skippedNote returns a note if the version that was taken lacks a file, or is not the
// one that would be taken if all files were there; otherwise it is empty.
func (f *candidates) skippedNote(taken string) string {
	top := version.Newest(f.constraint, f.notAboveLimit(slices.Collect(maps.Keys(f.missing))))
	switch {
	case f.missing[taken] != "":
		return fmt.Sprintf("%s %s has %s, and neither has a release before it all that is needed", f.repo, taken, f.missing[taken])
	case top != "" && (version.Compare(top, taken) > 0 || f.limit != "" && version.Compare(taken, f.limit) > 0):
		return fmt.Sprintf("%s %s has %s: taking %s", f.repo, top, f.missing[top], taken)
	}
	return ""
}

// maxPointer bounds the text file of a pointer release, in bytes.
const maxPointer = 1 << 10

// pointerTarget returns the version that a pointer release stands for. It is empty if the
// release is no pointer, or does not have its text file.
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
		return "", fmt.Errorf("invalid %s of release %s of %s: %.60q, want the tag of a release with a version such as %s; write an exact version in the config", v.Pointer.Asset, r.Tag, v.GitHub, text, v.Match)
	}
	return version, nil
}

// followPointer returns the release of a version that the pointer release with a tag
// stands for.
func (g *releases) followPointer(ctx context.Context, v *catalog.Versions, pointer, version string) (*release, error) {
	r, err := g.byTag(ctx, v.GitHub, v.TagOf(version))
	var missing *noReleaseError
	if errors.As(err, &missing) {
		return nil, fmt.Errorf("cannot follow release %s of %s to its version: %w; write an exact version in the config", pointer, v.GitHub, err)
	}
	return r, err
}
