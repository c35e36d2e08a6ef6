// Package resolve resolves the version constraints of a config to versions and files. It uses
// the lock if possible, and otherwise release APIs and package indexes.
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

// PublicPythonIndex is the address of the public Python package index.
const PublicPythonIndex = "https://pypi.org/simple"

// Resolver resolves the versions and files of sources.
type Resolver struct {
	releases releases
	index    index
	cache    *artifact.Cache
	lock     *lockfile.Lock
	cacheDir string
	note     func(string)

	tools         map[string]*catalog.Recipe
	versions      map[toolKey]versionResult // of tools that this plan has resolved
	reportedTools map[toolKey]bool          // tools whose failed upgrade this plan has reported
	platforms     []wire.Platform           // of the machines of the plan
	warned        map[string]bool           // warnings that the plan has reported

	pagesMu sync.Mutex
	pages   map[string]*project // pages of the index, by normalized name
}

// New returns a resolver. It uses the lock for locked tools, cache for downloaded files, and
// cacheDir for other data. note receives progress messages for the user.
func New(client *fetch.Client, lock *lockfile.Lock, cache *artifact.Cache, cacheDir string, note func(string)) *Resolver {
	return &Resolver{
		releases: releases{client: client, cacheDir: filepath.Join(cacheDir, "releases")}, index: index{client: client},
		cache: cache, lock: lock, cacheDir: cacheDir, note: note, tools: catalog.ToolRecipes(),
		versions: map[toolKey]versionResult{}, reportedTools: map[toolKey]bool{}, warned: map[string]bool{},
	}
}

// startPlan resets the state of the previous plan.
func (r *Resolver) startPlan(platforms []wire.Platform) {
	r.versions, r.reportedTools, r.platforms = map[toolKey]versionResult{}, map[toolKey]bool{}, platforms
	r.warned, r.pages = map[string]bool{}, nil
}

// maxSkippedVersions is the maximum number of versions without a solution to skip.
const maxSkippedVersions = 10

// resolveVersion returns the newest version that satisfies a version constraint and has the
// files for all consumers. checkSolution resolves the packages of a version; resolveVersion
// skips versions for which it returns a [*NoSolutionError].
func (r *Resolver) resolveVersion(ctx context.Context, recipe *catalog.Recipe, constraint string, consumers []consumer, checkSolution func(version string) error) (string, error) {
	if version.IsExact(constraint) {
		versionRange, err := version.ParseRange(constraint)
		if err != nil {
			return "", err
		}
		if recipe.Versions.Indirect(constraint) {
			r.note(fmt.Sprintf("looking for %s %s", recipe.Type, constraint))
		}
		return r.releases.resolveExact(ctx, recipe.Versions, versionRange.Exact())
	}
	r.note(fmt.Sprintf("looking for the newest %s", recipe.Type))
	v := recipe.Versions
	if v.Package != "" {
		page, err := r.page(ctx, v.Package)
		if err != nil {
			return "", packageError(err, r.index.client.Index, v.Package)
		}
		return r.resolvePackageVersion(recipe.Type, constraint, page.versions(), checkSolution)
	}
	return r.resolveRelease(ctx, recipe, constraint, consumers, checkSolution)
}

// resolveRelease returns the newest release that satisfies a version constraint, has the
// files for all consumers, and whose packages have a solution. checkSolution may be nil.
func (r *Resolver) resolveRelease(ctx context.Context, recipe *catalog.Recipe, constraint string, consumers []consumer, checkSolution func(version string) error) (string, error) {
	unsolvable := map[string]string{} // versions without a solution, and the reasons
	var firstErr error
	for range maxSkippedVersions {
		version, note, err := r.releases.resolveNewest(ctx, recipe.Versions, constraint, func(rel *release, version string) coverage {
			if reason := unsolvable[version]; reason != "" {
				return coverage{missing: reason}
			}
			return coverageOf(rel, version, consumers)
		})
		if err != nil {
			return "", cmp.Or(firstErr, err)
		}
		if checkSolution != nil {
			err = checkSolution(version)
		}
		var noSolution *NoSolutionError
		switch {
		case err == nil:
			if note != "" {
				r.note(note)
			}
			return version, nil
		case !errors.As(err, &noSolution) || unsolvable[version] != "":
			return "", err
		}
		firstErr = cmp.Or(firstErr, err)
		unsolvable[version] = "no solution (" + noSolution.Err.Cause + ")"
	}
	return "", firstErr
}

// resolvePackageVersion returns the newest of versions that satisfies a version constraint and
// has a solution.
func (r *Resolver) resolvePackageVersion(typ, constraint string, versions []string, checkSolution func(version string) error) (string, error) {
	var firstErr error
	var skipped []string
	for range maxSkippedVersions {
		best := version.Newest(constraint, versions)
		if best == "" {
			break
		}
		err := checkSolution(best)
		var noSolution *NoSolutionError
		switch {
		case err == nil && firstErr != nil:
			r.warn(fmt.Sprintf("using %s %s: %v%s", typ, best, firstErr, text.WithPrefix("; also no solution for ", strings.Join(skipped[1:], ", "))))
			return best, nil
		case err == nil:
			return best, nil
		case !errors.As(err, &noSolution):
			return "", err
		case firstErr == nil:
			firstErr = err
		}
		skipped = append(skipped, best)
		versions = slices.DeleteFunc(versions, func(v string) bool { return v == best })
	}
	if firstErr != nil {
		return "", fmt.Errorf("none of the newest %d versions of %s has a solution: %w", len(skipped), typ, firstErr)
	}
	return "", fmt.Errorf("the package index has no version of %s that satisfies %s", typ, constraint)
}

// resolveSteps resolves the steps of a chosen source, with the newest tools if upgrade is
// true. Packages are resolved for the oldest glibc that has a solution, at least 2.minGlibc.
// floor records this glibc; it is nil if the packages do not depend on glibc.
func (r *Resolver) resolveSteps(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, p wire.Platform, minGlibc int, upgrade bool) (steps []wire.InstallStep, floor *lockfile.GlibcFloor, err error) {
	r.note(fmt.Sprintf("resolving %s %s%s", recipe.Type, c.Version, text.WithPrefix(", ", c.Source.Name)))
	for i, step := range c.Source.Steps {
		ws := wire.InstallStep{Kind: step.Kind, Builtin: step.Builtin, Format: step.Format, Strip: step.Strip, Into: step.Into}
		if step.Kind == wire.StepPython {
			var stepFloor *lockfile.GlibcFloor
			ws.Python, stepFloor, err = r.resolvePython(ctx, recipe, c, p, minGlibc, i, steps, upgrade)
			floor = lockfile.MaxFloor(floor, stepFloor)
		} else {
			ws.Artifact, err = r.artifact(ctx, recipe.Versions, step.Origin, c.Version)
		}
		if err != nil {
			return nil, nil, withLocation(recipe, step.Pos, err)
		}
		steps = append(steps, ws)
	}
	return steps, floor, nil
}

// resolvePython resolves the environment of the i-th step of a source. resolved contains the
// earlier steps, and minGlibc has the same meaning as for resolveSteps.
func (r *Resolver) resolvePython(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, p wire.Platform, minGlibc, i int, resolved []wire.InstallStep, upgrade bool) (*wire.Python, *lockfile.GlibcFloor, error) {
	want, env := c.Source.Steps[i].Python, &wire.Python{}
	if err := r.setTools(ctx, env, want.Version, p, upgrade); err != nil {
		return nil, nil, err
	}
	job, err := r.newPythonJob(ctx, recipe, c, p, want, c.Source.Steps[:i], resolved)
	if err != nil {
		return nil, nil, err
	}
	wheels, floor, err := r.resolvePackages(ctx, job, minGlibc)
	if err != nil {
		return nil, nil, err
	}
	env.Wheels = wheels
	return env, floor, r.makeURLsAbsolute(wheels)
}

// recipeSteps returns the steps of a source that the recipe alone determines; see
// [catalog.Source.Reproducible].
func (r *Resolver) recipeSteps(recipe *catalog.Recipe, c catalog.Choice) ([]wire.InstallStep, error) {
	var steps []wire.InstallStep
	for _, step := range c.Source.Steps {
		ws := wire.InstallStep{Kind: step.Kind, Builtin: step.Builtin, Format: step.Format, Strip: step.Strip, Into: step.Into}
		if step.Kind != wire.StepBuiltin {
			a, err := r.artifact(context.Background(), nil, step.Origin, c.Version) // does not use the network
			if err != nil {
				return nil, withLocation(recipe, step.Pos, err)
			}
			ws.Artifact = a
		}
		steps = append(steps, ws)
	}
	return steps, nil
}

// location formats a position in a recipe as "file:line".
func location(recipe *catalog.Recipe, pos config.Pos) string {
	return recipe.File + ":" + strconv.Itoa(pos.Line)
}

// withLocation adds a position in a recipe to an error.
func withLocation(recipe *catalog.Recipe, pos config.Pos, err error) error {
	return fmt.Errorf("%s: %w", location(recipe, pos), err)
}

// artifact resolves the file of an origin.
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

// downloadForChecksum downloads a file that has no published checksum and computes its
// checksum. The file remains in the cache, from which it is sent to hives even if the content
// of the address changes.
func (r *Resolver) downloadForChecksum(ctx context.Context, name, address string, size int64) (*wire.Artifact, error) {
	r.note("downloading " + name + " to compute its checksum")
	sum, received, err := r.cache.Download(ctx, address, size)
	switch {
	case err != nil:
		return nil, err
	case size > 0 && received != size:
		return nil, fmt.Errorf("cannot download %s: got %d bytes, want %d", fetch.RedactURL(address), received, size)
	}
	return &wire.Artifact{Name: name, URL: address, SHA256: sum, Size: received}, nil
}

// AbsoluteURL resolves a reference in an index to an absolute URL. It removes credentials,
// because the URL is written to the lock, which other users can read.
func AbsoluteURL(base, ref string) (string, error) {
	b, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("invalid index address: %w", err)
	}
	u, err := b.Parse(ref)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return "", errors.New("want an https or http URL")
	}
	u.Fragment, u.User = "", nil
	return u.String(), nil
}

// readPayloadFile reads a file of the payload from the archive of an earlier step. earlier and
// resolved are the earlier steps before and after resolution.
func (r *Resolver) readPayloadFile(ctx context.Context, name string, earlier []catalog.Step, resolved []wire.InstallStep) (string, error) {
	for i := len(earlier) - 1; i >= 0; i-- {
		step := resolved[i]
		archivePath := name
		if step.Into != "" {
			rest, ok := strings.CutPrefix(name, step.Into+"/")
			if !ok {
				continue
			}
			archivePath = rest
		}
		if step.Kind != wire.StepArchive {
			continue
		}
		f, _, err := r.cache.Open(ctx, *step.Artifact, earlier[i].Origin.File, false)
		if err != nil {
			return "", err
		}
		var text strings.Builder
		err = artifact.ReadArchiveFile(f, step.Format, step.Strip, archivePath, func(content io.Reader) error {
			_, err := io.Copy(&text, io.LimitReader(content, 1<<20))
			return err
		})
		_ = f.Close()
		if !errors.Is(err, artifact.ErrNotInArchive) {
			return text.String(), err
		}
	}
	return "", fmt.Errorf("no earlier step unpacks %s", name)
}
