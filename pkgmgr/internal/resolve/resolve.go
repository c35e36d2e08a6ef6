// Package resolve resolves the version constraints of a config to versions and files. It uses
// the lockfile if possible, and otherwise release APIs and package indexes.
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
	versions      map[toolKey]versionOrErr // of tools that this plan has resolved
	reportedTools map[toolKey]bool         // tools whose failed upgrade this plan has reported
	platforms     []wire.Platform          // of the machines of the plan
	warned        map[string]bool          // warnings that the plan has reported

	pagesMu sync.Mutex
	pages   map[string]*project // pages of the index, by normalized name
}

// New returns a resolver. It uses the lockfile for locked tools, cache for downloaded files, and
// cacheDir for other data. note receives progress messages for the user.
func New(client *fetch.Client, lock *lockfile.Lock, cache *artifact.Cache, cacheDir string, note func(string)) *Resolver {
	return &Resolver{
		releases: releases{client: client, cacheDir: filepath.Join(cacheDir, "releases")}, index: index{client: client},
		cache: cache, lock: lock, cacheDir: cacheDir, note: note, tools: catalog.ToolRecipes(),
		versions: map[toolKey]versionOrErr{}, reportedTools: map[toolKey]bool{}, warned: map[string]bool{},
	}
}

// startPlan resets the state of the previous plan.
func (r *Resolver) startPlan(platforms []wire.Platform) {
	r.versions, r.reportedTools, r.platforms = map[toolKey]versionOrErr{}, map[toolKey]bool{}, platforms
	r.warned, r.pages = map[string]bool{}, nil
}

// maxSkippedVersions is the maximum number of versions without a solution to skip.
const maxSkippedVersions = 10

// resolveVersion returns the newest version that satisfies a version constraint and has the
// files for all consumers. checkSolution resolves the packages of a version; resolveVersion
// skips versions for which it returns a [*NoSolutionError].
func (r *Resolver) resolveVersion(ctx context.Context, recipe *catalog.Recipe, constraint string, consumers []consumer, checkSolution func(version string) error) (string, error) {
	if version.IsExact(constraint) {
		set, err := version.ParseRange(constraint)
		if err != nil {
			return "", err
		}
		if recipe.Versions.Indirect(constraint) {
			r.note(fmt.Sprintf("looking for %s %s", recipe.Type, constraint))
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
		return r.resolvePackageVersion(recipe.Type, constraint, page.versions(), checkSolution)
	}
	return r.resolveRelease(ctx, recipe, constraint, consumers, checkSolution)
}

// resolveRelease returns the newest release that satisfies a version constraint, has the
// files for all consumers, and whose packages have a solution. checkSolution may be nil.
func (r *Resolver) resolveRelease(ctx context.Context, recipe *catalog.Recipe, constraint string, consumers []consumer, checkSolution func(version string) error) (string, error) {
	unsolvable := map[string]string{} // versions without a solution, and the reasons
	var first error
	for range maxSkippedVersions {
		version, note, err := r.releases.resolveNewest(ctx, recipe.Versions, constraint, func(rel *release, version string) coverage {
			if reason := unsolvable[version]; reason != "" {
				return coverage{missing: reason}
			}
			return coverageOf(rel, version, consumers)
		})
		if err != nil {
			return "", cmp.Or(first, err)
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
		first = cmp.Or(first, err)
		unsolvable[version] = "no solution (" + noSolution.Err.Cause + ")"
	}
	return "", first
}

// resolvePackageVersion returns the newest of versions that satisfies a version constraint and
// has a solution.
func (r *Resolver) resolvePackageVersion(typ, constraint string, versions []string, checkSolution func(version string) error) (string, error) {
	var first error
	var skipped []string
	for range maxSkippedVersions {
		best := version.Newest(constraint, versions)
		if best == "" {
			break
		}
		err := checkSolution(best)
		var noSolution *NoSolutionError
		switch {
		case err == nil && first != nil:
			r.warn(fmt.Sprintf("using %s %s: %v%s", typ, best, first, text.WithPrefix("; also no solution for ", strings.Join(skipped[1:], ", "))))
			return best, nil
		case err == nil:
			return best, nil
		case !errors.As(err, &noSolution):
			return "", err
		case first == nil:
			first = err
		}
		skipped = append(skipped, best)
		versions = slices.DeleteFunc(versions, func(v string) bool { return v == best })
	}
	if first != nil {
		return "", fmt.Errorf("none of the newest %d versions of %s has a solution: %w", len(skipped), typ, first)
	}
	return "", fmt.Errorf("the package index has no version of %s that satisfies %s", typ, constraint)
}

// resolveSteps resolves the steps of a chosen source, with the newest tools if upgrade is
// true. Packages are resolved for glibc 2.start, or for the oldest newer glibc that has a
// solution. floor records this glibc; it is nil if the packages do not depend on glibc.
func (r *Resolver) resolveSteps(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, p wire.Platform, start int, upgrade bool) (out []wire.InstallStep, floor *lockfile.GlibcFloor, err error) {
	r.note(fmt.Sprintf("resolving %s %s%s", recipe.Type, c.Version, text.WithPrefix(", ", c.Source.Name)))
	for i, step := range c.Source.Steps {
		ws := wire.InstallStep{Kind: step.Kind, Builtin: step.Builtin, Format: step.Format, Strip: step.Strip, Into: step.Into}
		if step.Kind == wire.StepPython {
			var stepFloor *lockfile.GlibcFloor
			ws.Python, stepFloor, err = r.resolvePython(ctx, recipe, c, p, start, i, out, upgrade)
			floor = lockfile.MaxFloor(floor, stepFloor)
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

// resolvePython resolves the environment of the i-th step of a source.
func (r *Resolver) resolvePython(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, p wire.Platform, start, i int, done []wire.InstallStep, upgrade bool) (*wire.Python, *lockfile.GlibcFloor, error) {
	want, env := c.Source.Steps[i].Python, &wire.Python{}
	if err := r.setTools(ctx, env, want.Version, p, upgrade); err != nil {
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

// recipeSteps returns the steps of a source that the recipe alone determines; see
// [catalog.Source.Reproducible].
func (r *Resolver) recipeSteps(recipe *catalog.Recipe, c catalog.Choice) ([]wire.InstallStep, error) {
	var out []wire.InstallStep
	for _, step := range c.Source.Steps {
		ws := wire.InstallStep{Kind: step.Kind, Builtin: step.Builtin, Format: step.Format, Strip: step.Strip, Into: step.Into}
		if step.Kind != wire.StepBuiltin {
			a, err := r.artifact(context.Background(), nil, step.Origin, c.Version) // does not use the network
			if err != nil {
				return nil, withLocation(recipe, step.Pos, err)
			}
			ws.Artifact = a
		}
		out = append(out, ws)
	}
	return out, nil
}

// location returns a position in a recipe: "file:line".
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

// downloadForChecksum downloads a file without a published checksum. The file remains in the
// cache. From there it can be sent to hives even if the file at the address changes.
func (r *Resolver) downloadForChecksum(ctx context.Context, name, address string, size int64) (*wire.Artifact, error) {
	r.note("downloading " + name + " to compute its checksum")
	sum, got, err := r.cache.Download(ctx, address, size)
	switch {
	case err != nil:
		return nil, err
	case size > 0 && got != size:
		return nil, fmt.Errorf("cannot download %s: got %d bytes, want %d", fetch.RedactURL(address), got, size)
	}
	return &wire.Artifact{Name: name, URL: address, SHA256: sum, Size: got}, nil
}

// AbsoluteURL resolves a reference in an index to an absolute URL. It removes credentials,
// because the URL is written to the lockfile, which other users can read.
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

// readPayloadFile reads a file in the payload from the archive of an earlier step.
func (r *Resolver) readPayloadFile(ctx context.Context, name string, before []catalog.Step, done []wire.InstallStep) (string, error) {
	for i := len(before) - 1; i >= 0; i-- {
		step := done[i]
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
		f, _, err := r.cache.Open(ctx, *step.Artifact, before[i].Origin.File, false)
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
