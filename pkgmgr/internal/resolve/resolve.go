// Package resolve finds the versions and files that the version constraints of a config
// stand for: from the lock where it has them, otherwise from release APIs and package
// indexes.
package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/text"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// PublicPythonIndex is the public package index.
const PublicPythonIndex = "https://pypi.org/simple"

// Resolver finds out what sources consist of.
type Resolver struct {
	releases releases
	index    index
	cache    *artifact.Cache
	lock     *lockfile.Lock
	cacheDir string
	note     func(string)

	tools         map[string]*catalog.Recipe
	versions      map[toolKey]versionOrErr // of tools, as this plan has asked for them
	reportedTools map[toolKey]bool         // those of which this plan has told that the newest cannot be had
	platforms     []wire.Platform          // of the machines that the plan is for
	warned        map[string]bool          // what the plan has warned of

	pagesMu sync.Mutex
	pages   map[string]*project // of the index, by normal name
}

// New returns a resolver. It takes from the lock what the lock has, keeps downloaded
// files in the cache, and other answers in cacheDir. note receives messages for
// people.
func New(from *fetch.Client, lock *lockfile.Lock, cache *artifact.Cache, cacheDir string, note func(string)) *Resolver {
	return &Resolver{
		releases: releases{client: from, cacheDir: filepath.Join(cacheDir, "releases")}, index: index{client: from},
		cache: cache, lock: lock, cacheDir: cacheDir, note: note, tools: catalog.ToolRecipes(),
		versions: map[toolKey]versionOrErr{}, reportedTools: map[toolKey]bool{}, warned: map[string]bool{},
	}
}

// startPlan begins a plan, for which tools are asked anew.
func (r *Resolver) startPlan(platforms []wire.Platform) {
	r.versions, r.reportedTools, r.platforms = map[toolKey]versionOrErr{}, map[toolKey]bool{}, platforms
	r.warned, r.pages = map[string]bool{}, nil
}

// maxSkippedVersions limits how many versions without a solution are passed over.
const maxSkippedVersions = 10

// resolveVersion asks for the newest version that a wish allows, and that has what machines
// need. solvable resolves the packages of a version; one whose error is a
// [*NoSolutionError] is passed over, with a note.
func (r *Resolver) resolveVersion(ctx context.Context, recipe *catalog.Recipe, wish string, needs []consumer, solvable func(version string) error) (string, error) {
	if version.IsExact(wish) {
		set, err := version.ParseRange(wish)
		if err != nil {
			return "", err
		}
		if recipe.Versions.Indirect(wish) {
			r.note(fmt.Sprintf("looking for %s %s", recipe.Type, wish))
		}
		return r.releases.resolveExact(ctx, recipe.Versions, set.Exact())
	}
	r.note(fmt.Sprintf("looking for the newest %s", recipe.Type))
	v := recipe.Versions
	if v.Package != "" {
		page, err := r.page(ctx, v.Package)
		if err != nil {
			return "", packageError(err, r.index.client.Index, v.Package)
		}
		return r.resolvePackageVersion(recipe.Type, wish, page.versions(), solvable)
	}
	return r.resolveRelease(ctx, recipe, wish, needs, solvable)
}

// resolveRelease is the newest release that a wish allows, that has the files which
// machines need, and whose packages have a solution; solvable may be nil.
func (r *Resolver) resolveRelease(ctx context.Context, recipe *catalog.Recipe, wish string, needs []consumer, solvable func(version string) error) (string, error) {
	without := map[string]string{} // versions without a solution, and why
	var first error
	for range maxSkippedVersions {
		version, passed, err := r.releases.resolveNewest(ctx, recipe.Versions, wish, func(rel *release, version string) coverage {
			if why := without[version]; why != "" {
				return coverage{missing: why}
			}
			return coverageOf(rel, version, needs)
		})
		if err != nil {
			return "", cmp.Or(first, err)
		}
		if solvable != nil {
			err = solvable(version)
		}
		var none *NoSolutionError
		switch {
		case err == nil:
			if passed != "" {
				r.note(passed)
			}
			return version, nil
		case !errors.As(err, &none) || without[version] != "":
			return "", err
		}
		first = cmp.Or(first, err)
		without[version] = "no solution (" + none.Err.Cause + ")"
	}
	return "", first
}

// resolvePackageVersion is the newest of versions that a wish allows and that has a solution.
func (r *Resolver) resolvePackageVersion(typ, wish string, versions []string, solvable func(version string) error) (string, error) {
	var first error
	var passed []string
	for range maxSkippedVersions {
		best := version.Newest(wish, versions)
		if best == "" {
			break
		}
		err := solvable(best)
		var none *NoSolutionError
		switch {
		case err == nil && first != nil:
			r.warn(fmt.Sprintf("taking %s %s: %v%s", typ, best, first, text.After(", and neither has ", strings.Join(passed[1:], ", "))))
			return best, nil
		case err == nil:
			return best, nil
		case !errors.As(err, &none):
			return "", err
		case first == nil:
			first = err
		}
		passed = append(passed, best)
		versions = slices.DeleteFunc(versions, func(v string) bool { return v == best })
	}
	if first != nil {
		return "", fmt.Errorf("none of the newest %d versions of %s has a solution: %w", len(passed), typ, first)
	}
	return "", fmt.Errorf("the package index has no version %s of %s", wish, typ)
}

// resolveSteps finds out what a chosen source consists of; fresh asks for the newest tools.
// Packages are resolved for glibc 2.start or the next newer one that has a solution,
// which is the floor; it is nil where nothing depends on glibc.
func (r *Resolver) resolveSteps(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, p wire.Platform, start int, fresh bool) (out []wire.InstallStep, floor *lockfile.GlibcFloor, err error) {
	r.note(fmt.Sprintf("resolving %s %s%s", recipe.Type, c.Version, text.After(", ", c.Source.Name)))
	for i, step := range c.Source.Steps {
		ws := wire.InstallStep{Kind: step.Kind, Builtin: step.Builtin, Format: step.Format, Strip: step.Strip, Into: step.Into}
		if step.Kind == wire.StepPython {
			var needs *lockfile.GlibcFloor
			ws.Python, needs, err = r.resolvePython(ctx, recipe, c, p, start, i, out, fresh)
			floor = lockfile.MaxFloor(floor, needs)
		} else {
			ws.Artifact, err = r.artifact(ctx, recipe.Versions, step.Origin, c.Version)
		}
		if err != nil {
			return nil, nil, withLocation(recipe, step.Pos, err)
		}
		out = append(out, ws)
	}
	return out, floor, nil
}

// resolvePython finds out what the environment of the i-th step of a source consists of.
func (r *Resolver) resolvePython(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, p wire.Platform, start, i int, done []wire.InstallStep, fresh bool) (*wire.Python, *lockfile.GlibcFloor, error) {
	want, env := c.Source.Steps[i].Python, &wire.Python{}
	if err := r.setTools(ctx, env, want.Version, p, fresh); err != nil {
		return nil, nil, err
	}
	job, err := r.newPythonJob(ctx, recipe, c, p, want, c.Source.Steps[:i], done)
	if err != nil {
		return nil, nil, err
	}
	wheels, floor, err := r.resolvePackages(ctx, job, start)
	if err != nil {
		return nil, nil, err
	}
	env.Wheels = wheels
	return env, floor, r.makeURLsAbsolute(wheels)
}

// recipeSteps are the steps of a source that the recipe says all of.
func (r *Resolver) recipeSteps(recipe *catalog.Recipe, c catalog.Choice) ([]wire.InstallStep, error) {
	var out []wire.InstallStep
	for _, step := range c.Source.Steps {
		ws := wire.InstallStep{Kind: step.Kind, Builtin: step.Builtin, Format: step.Format, Strip: step.Strip, Into: step.Into}
		if step.Kind != wire.StepBuiltin {
			a, err := r.artifact(context.Background(), nil, step.Origin, c.Version) // notFoundError is asked for
			if err != nil {
				return nil, withLocation(recipe, step.Pos, err)
			}
			ws.Artifact = a
		}
		out = append(out, ws)
	}
	return out, nil
}

// location is where something stands in a recipe.
func location(recipe *catalog.Recipe, pos config.Pos) string {
	return recipe.File + ":" + strconv.Itoa(pos.Line)
}

// at says where in a recipe an error comes from.
func withLocation(recipe *catalog.Recipe, pos config.Pos, err error) error {
	return fmt.Errorf("%s: %w", location(recipe, pos), err)
}

// artifact finds the file that an origin stands for.
func (r *Resolver) artifact(ctx context.Context, v *catalog.Versions, o catalog.Origin, version string) (*wire.Artifact, error) {
	switch {
	case o.Asset != "" || o.Code:
		rel, err := r.releases.byTag(ctx, v.GitHub, v.TagOf(version))
		if err != nil {
			return nil, err
		}
		if o.Code {
			return r.downloadForChecksum(ctx, catalog.SourceArchiveName(v, version), rel.Code, 0)
		}
		a, err := rel.artifact(v.GitHub, o.Asset)
		if err != nil {
			return nil, err
		}
		if a.SHA256 == "" {
			return r.downloadForChecksum(ctx, a.Name, a.URL, a.Size)
		}
		return &a, nil
	case o.URL != "":
		name := "download"
		if u, err := url.Parse(o.URL); err == nil {
			name = path.Base(u.Path)
		}
		if o.SHA256 == "" {
			return r.downloadForChecksum(ctx, name, o.URL, o.Size)
		}
		return &wire.Artifact{Name: name, URL: o.URL, SHA256: o.SHA256, Size: o.Size}, nil
	default:
		sum, size, err := r.cache.Sum(o.File, o.SHA256)
		return &wire.Artifact{Name: filepath.Base(o.File), SHA256: sum, Size: size}, err
	}
}

// downloadForChecksum fetches a file of which no checksum is published. It is kept, so that this
// machine can still send it if the address answers with something else one day.
func (r *Resolver) downloadForChecksum(ctx context.Context, name, from string, size int64) (*wire.Artifact, error) {
	r.note("fetching " + name + " to learn its checksum")
	sum, got, err := r.cache.Learn(ctx, from, size)
	switch {
	case err != nil:
		return nil, err
	case size > 0 && got != size:
		return nil, fmt.Errorf("fetching %s: %d bytes came, %d were promised", fetch.RedactURL(from), got, size)
	}
	return &wire.Artifact{Name: name, URL: from, SHA256: sum, Size: got}, nil
}

// AbsoluteURL is the address that a reference in the index means, without the
// credentials of the index: the lock is for others to read.
func AbsoluteURL(base, ref string) (string, error) {
	b, err := url.Parse(base)
	if err != nil {
		return "", errors.New("the index has no address")
	}
	u, err := b.Parse(ref)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return "", errors.New("it is not one of https or http")
	}
	u.Fragment, u.User = "", nil
	return u.String(), nil
}

// readPayloadFile reads a file that an archive of an earlier step puts into the payload.
func (r *Resolver) readPayloadFile(ctx context.Context, name string, before []catalog.Step, done []wire.InstallStep) (string, error) {
	for i := len(before) - 1; i >= 0; i-- {
		step := done[i]
		inside := name
		if step.Into != "" {
			rest, ok := strings.CutPrefix(name, step.Into+"/")
			if !ok {
				continue
			}
			inside = rest
		}
		if step.Kind != wire.StepArchive {
			continue
		}
		f, _, err := r.cache.Open(ctx, *step.Artifact, before[i].Origin.File, false)
		if err != nil {
			return "", err
		}
		var text strings.Builder
		err = artifact.ReadPacked(f, step.Format, step.Strip, inside, func(content io.Reader) error {
			_, err := io.Copy(&text, io.LimitReader(content, 1<<20))
			return err
		})
		_ = f.Close()
		if !errors.Is(err, artifact.ErrNotPacked) {
			return text.String(), err
		}
	}
	return "", fmt.Errorf("no step before unpacks %s", name)
}
