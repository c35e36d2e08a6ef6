package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/wheel"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/uv"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// NoSolutionError reports that no set of packages meets the requirements of a version on a
// platform, for any version of glibc.
type NoSolutionError struct {
	Type, Version string
	Platform      string // such as "linux/amd64 (glibc)"
	Err           *uv.Error
}

func (e *NoSolutionError) Error() string {
	return fmt.Sprintf("cannot resolve the packages of %s %s for %s: %s", e.Type, e.Version, e.Platform, e.Err.Cause)
}

// ErrorCode returns [operations.ReasonNoSolution].
func (e *NoSolutionError) ErrorCode() string { return string(operations.ReasonNoSolution) }

// ErrorSubject returns the worker type.
func (e *NoSolutionError) ErrorSubject() operations.Subject {
	return operations.SubjectWorker.WithName(e.Type)
}

// Unwrap returns the error of uv.
func (e *NoSolutionError) Unwrap() error { return e.Err }

// pythonJob describes a Python environment to resolve.
type pythonJob struct {
	typ, version string // of the worker, for messages
	platform     wire.Platform
	want         *catalog.Python
	requirements string // in pip's syntax, one per line

	// cutoff excludes files that were uploaded later; zero means no limit. It does not
	// apply to the packages in exempt.
	cutoff   time.Time
	exempt   []string
	hasDates bool // the index has upload dates for at least one package of the job
}

// torchFamily lists the packages of the PyTorch indexes for which PyPI has no build, or only
// other builds. PyTorch indexes do not record upload dates.
var torchFamily = []string{
	"torch", "torchvision", "torchaudio", "torchdata", "torchtext", "torchcodec", "torchao",
	"triton", "triton-rocm", "triton-xpu", "pytorch-triton", "pytorch-triton-rocm", "pytorch-triton-xpu",
}

// releaseMargin is the maximum time between the uploads of the first and last file of a version.
const releaseMargin = 24 * time.Hour

// resolvePackages resolves the packages of a Python step and their dependencies to wheels,
// for the oldest glibc that has a solution, at least 2.minGlibc. The result depends only on
// the recipe, the version, the platform and minGlibc. It runs uv on this machine, so that hives do
// not need access to an index and all install the same wheels.
func (r *Resolver) resolvePackages(ctx context.Context, job pythonJob, minGlibc int) ([]wire.Artifact, *lockfile.GlibcFloor, error) {
	wheels, floor, err := r.resolveWithFloor(ctx, job, minGlibc)
	var noSolution *NoSolutionError
	if errors.As(err, &noSolution) && !job.cutoff.IsZero() {
		// A mirror may not have the dates of old files, and a version may have been
		// published before its dependencies.
		withoutCutoff := job
		withoutCutoff.cutoff = time.Time{}
		if wheels, floor, err := r.resolveWithFloor(ctx, withoutCutoff, minGlibc); err == nil {
			r.warn(fmt.Sprintf("%s %s has no solution with the packages of its release date (%s): using the newest packages", job.typ, job.version, job.cutoff.Format(time.DateOnly)))
			return wheels, floor, nil
		}
	}
	return wheels, floor, err
}

// resolveWithFloor resolves the packages for the oldest glibc in [lockfile.GlibcSteps] that
// has a solution, at least 2.minGlibc.
func (r *Resolver) resolveWithFloor(ctx context.Context, job pythonJob, minGlibc int) ([]wire.Artifact, *lockfile.GlibcFloor, error) {
	if job.platform.OS != "linux" || job.platform.Libc == "musl" {
		lock, err := r.compile(ctx, &job, 0)
		if err != nil {
			return nil, nil, job.wrapError(err)
		}
		wheels, err := job.target(0).SelectWheels(lock)
		return wheels, nil, err
	}
	minors := slices.DeleteFunc(slices.Clone(lockfile.GlibcSteps), func(minor int) bool { return minor < minGlibc })
	if len(minors) == 0 {
		minors = lockfile.GlibcSteps[len(lockfile.GlibcSteps)-1:]
	}
	found, lock, err := firstSolution(minors, func(minor int) (*wheel.Pylock, error) { return r.compile(ctx, &job, minor) })
	if err != nil {
		return nil, nil, job.wrapError(err)
	}
	floor := &lockfile.GlibcFloor{Oldest: lockfile.GlibcVersion(minGlibc), Glibc: lockfile.GlibcVersion(found)}
	if i := slices.Index(minors, found); i > 0 {
		floor.NeededBy = job.target(minors[i-1]).MissingWheels(lock)
	}
	wheels, err := job.target(found).SelectWheels(lock)
	return wheels, floor, err
}

// firstSolution tries minor versions of glibc in order until one has a solution. It tries the
// newest one second, because the others have no solution if the newest one has none.
func firstSolution(minors []int, try func(minor int) (*wheel.Pylock, error)) (found int, lock *wheel.Pylock, err error) {
	lock, err = try(minors[0])
	if err == nil || !isNoSolution(err) || len(minors) == 1 {
		return minors[0], lock, err
	}
	newest := minors[len(minors)-1]
	newestLock, err := try(newest)
	if err != nil {
		return 0, nil, err
	}
	for _, minor := range minors[1 : len(minors)-1] {
		lock, err := try(minor)
		if err == nil || !isNoSolution(err) {
			return minor, lock, err
		}
	}
	return newest, newestLock, nil
}

// isNoSolution reports whether uv found no solution.
func isNoSolution(err error) bool {
	var e *uv.Error
	return errors.As(err, &e) && e.NoSolution
}

// target returns the target of the wheels for glibc 2.glibc.
func (j *pythonJob) target(glibc int) wheel.Target {
	return wheel.Target{Platform: j.platform, Python: j.want.Version, Glibc: glibc}
}

// wrapError adds the version and platform to an error of uv.
func (j *pythonJob) wrapError(err error) error {
	var e *uv.Error
	if !errors.As(err, &e) {
		return err
	}
	platform := j.platform.Name()
	if e.NoSolution {
		return &NoSolutionError{j.typ, j.version, platform, e}
	}
	return fmt.Errorf("cannot resolve the packages of %s %s for %s: %w", j.typ, j.version, platform, e)
}

// maxCutoffAttempts is the maximum number of attempts to resolve packages with a cutoff. The
// solution of an attempt can contain additional packages that must be exempt from the cutoff.
const maxCutoffAttempts = 4

// compile resolves the packages for glibc 2.glibc. It exempts packages that have files without
// an upload date from the cutoff, because uv would exclude these files.
func (r *Resolver) compile(ctx context.Context, job *pythonJob, glibc int) (*wheel.Pylock, error) {
	if job.cutoff.IsZero() {
		return r.runCompile(ctx, job, glibc)
	}
	if err := r.exemptUndated(ctx, job, requiredPackages(job.requirements)); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		lock, err := r.runCompile(ctx, job, glibc)
		if err != nil || attempt == maxCutoffAttempts {
			return lock, err
		}
		exemptBefore := len(job.exempt)
		var names []string
		for _, p := range lock.Packages {
			names = append(names, p.Name)
		}
		if err := r.exemptUndated(ctx, job, names); err != nil || len(job.exempt) == exemptBefore {
			return lock, err
		}
	}
}

// exemptUndated adds the packages to job.exempt that have files without an upload
// date. It does nothing for PyPI, which records all dates. If the index does not record any
// dates, exemptUndated removes the cutoff and reports a warning.
func (r *Resolver) exemptUndated(ctx context.Context, job *pythonJob, packages []string) error {
	if r.index.client.Index == PublicPythonIndex {
		return nil
	}
	names := slices.DeleteFunc(packages, func(name string) bool { return slices.Contains(job.exempt, wheel.NormalizeName(name)) })
	const undated, dated = 1, 2
	kinds := make([]int, len(names)) // 0 if the index does not contain the package
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError().WithMaxGoroutines(8)
	for i, name := range names {
		p.Go(func(ctx context.Context) error {
			page, err := r.page(ctx, name)
			switch {
			case errors.Is(err, fetch.ErrNotFound):
				return nil
			case err != nil:
				return err
			case page.hasUploadTimes():
				kinds[i] = dated
			default:
				kinds[i] = undated
			}
			return nil
		})
	}
	if err := p.Wait(); err != nil {
		return err
	}
	for i, name := range names {
		if kinds[i] == undated {
			job.exempt = append(job.exempt, wheel.NormalizeName(name))
		}
	}
	if slices.Contains(kinds, undated) && !slices.Contains(kinds, dated) && !job.hasDates {
		r.warn(fmt.Sprintf("%s does not record upload dates: resolving %s %s with the newest packages", fetch.RedactURL(r.index.client.Index), job.typ, job.version))
		job.cutoff = time.Time{}
	}
	job.hasDates = job.hasDates || slices.Contains(kinds, dated)
	return nil
}

// page returns the index page of a package. It fetches the page once per plan.
func (r *Resolver) page(ctx context.Context, name string) (*project, error) {
	name = wheel.NormalizeName(name)
	r.pagesMu.Lock()
	page := r.pages[name]
	r.pagesMu.Unlock()
	if page != nil {
		return page, nil
	}
	page, err := r.index.project(ctx, name)
	if err != nil {
		return nil, err
	}
	r.pagesMu.Lock()
	defer r.pagesMu.Unlock()
	if r.pages == nil {
		r.pages = map[string]*project{}
	}
	r.pages[name] = page
	return page, nil
}

// requiredPackages returns the names of the packages in requirements, one per line.
func requiredPackages(text string) []string {
	var names []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		if strings.HasPrefix(strings.TrimSpace(line), "-") {
			continue // an option
		}
		if m := lockfile.Requirement.FindStringSubmatch(strings.TrimSpace(line)); m != nil && m[1] != "" {
			names = append(names, wheel.NormalizeName(m[1]))
		}
	}
	return names
}

// minExemptUV is the oldest uv version that is known to accept the flag
// --exclude-newer-package NAME=false. Version 0.9.7 rejects it.
const minExemptUV = "0.9.30"

// runCompile runs `uv pip compile` and parses its output.
func (r *Resolver) runCompile(ctx context.Context, job *pythonJob, glibc int) (*wheel.Pylock, error) {
	t := job.target(glibc)
	platform, err := t.UVPlatform()
	if err != nil {
		return nil, err
	}
	minVersion := ""
	if !job.cutoff.IsZero() {
		minVersion = minExemptUV
	}
	program, err := r.uvProgram(ctx, minVersion)
	if err != nil {
		return nil, fmt.Errorf("cannot get uv for this machine: %w", err)
	}
	dir, err := os.MkdirTemp("", "rbee-resolve-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	args, indexes, err := r.compileArgs(ctx, job, t, platform, dir)
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "pylock.toml")
	// Pass addresses in variables: they can contain passwords, and the arguments of a
	// process are visible to other users.
	vars := []string{
		"UV_DEFAULT_INDEX=" + r.index.client.Index,
		"UV_CACHE_DIR=" + filepath.Join(r.cacheDir, "uv"), "UV_PYTHON_INSTALL_DIR=" + filepath.Join(r.cacheDir, "python"),
	}
	if len(indexes) > 0 {
		vars = append(vars, "UV_INDEX="+strings.Join(indexes, " "))
	}
	if err := uv.Run(ctx, uv.Command{
		Program: program, Args: append(args, "--output-file", out, "-"), Dir: dir,
		Env: uv.Env(os.Environ(), vars...), Stdin: strings.NewReader(job.requirements),
	}); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("cannot read the output of uv: %w", err)
	}
	return wheel.ParsePylock(data)
}

// compileArgs returns the arguments of `uv pip compile` for a job, except those for input and
// output, and the addresses of additional indexes. platform is the name that uv uses for the
// target. compileArgs writes the files that the arguments refer to into dir.
func (r *Resolver) compileArgs(ctx context.Context, job *pythonJob, t wheel.Target, platform, dir string) (args, indexes []string, err error) {
	want := job.want
	args = []string{
		"pip", "compile", "--no-progress", "--quiet", "--no-build",
		// Any Python works, because the target version and platform are specified.
		"--python", "cpython",
		"--python-version", want.Version, "--python-platform", platform,
	}
	constraints := slices.Clone(want.Constraints)
	indexes = make([]string, len(want.Indexes))
	for i, index := range want.Indexes {
		indexes[i] = index.URL
	}
	switch {
	case want.Torch == "":
	case r.index.client.Torch == "":
		args = append(args, "--torch-backend", want.Torch)
	default:
		address, limits, err := r.torchMirror(ctx, want.Torch, t)
		if err != nil {
			return nil, nil, err
		}
		indexes, constraints = append(indexes, address), append(constraints, limits...)
		args = append(args, "--index-strategy", "unsafe-best-match")
	}
	if want.Prerelease {
		args = append(args, "--prerelease", "allow")
	}
	for _, file := range []struct {
		flag  string
		lines []string
	}{{"--override", want.Overrides}, {"--constraint", constraints}} {
		if len(file.lines) == 0 {
			continue
		}
		path := filepath.Join(dir, strings.TrimLeft(file.flag, "-")+".txt")
		if err := os.WriteFile(path, []byte(strings.Join(file.lines, "\n")+"\n"), 0o600); err != nil {
			return nil, nil, err
		}
		args = append(args, file.flag, path)
	}
	if !job.cutoff.IsZero() {
		args = append(args, "--exclude-newer", job.cutoff.UTC().Format(time.RFC3339))
		for _, name := range job.exempt {
			args = append(args, "--exclude-newer-package", name+"=false")
		}
	}
	return args, indexes, nil
}

// torchMirror returns the address of the index for a backend in the mirror of the PyTorch
// indexes. limits are version constraints that prevent uv from choosing a newer version of a
// PyTorch package from another index.
func (r *Resolver) torchMirror(ctx context.Context, backend string, t wheel.Target) (address string, limits []string, err error) {
	address, err = url.JoinPath(r.index.client.Torch, backend)
	if err != nil {
		return "", nil, fmt.Errorf("invalid address of the PyTorch index %s: %w", fetch.RedactURL(r.index.client.Torch), err)
	}
	mirror := index{client: &fetch.Client{HTTP: r.index.client.HTTP, Index: address}}
	for _, name := range torchFamily {
		page, err := mirror.project(ctx, name)
		if errors.Is(err, fetch.ErrNotFound) {
			continue
		}
		if err != nil {
			return "", nil, err
		}
		page.files = slices.DeleteFunc(page.files, func(f projectFile) bool {
			w, ok := wheel.Parse(f.name)
			return !ok || t.Rank(w) == 0
		})
		if best := version.Newest(version.Latest, page.versions()); best != "" {
			plain, _, _ := strings.Cut(best, "+")
			limits = append(limits, name+"<="+plain)
		}
	}
	if len(limits) == 0 {
		return "", nil, fmt.Errorf("the PyTorch index %s does not contain torch", fetch.RedactURL(address))
	}
	return address, limits, nil
}

// newPythonJob returns the job for the environment of a step. earlier and resolved are the
// earlier steps of the source before and after resolution.
func (r *Resolver) newPythonJob(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, p wire.Platform, want *catalog.Python, earlier []catalog.Step, resolved []wire.InstallStep) (pythonJob, error) {
	job := pythonJob{
		typ: recipe.Type, version: c.Version, platform: p, want: want,
		requirements: strings.Join(want.Packages, "\n") + "\n",
	}
	if want.Requirements != "" {
		text, err := r.readPayloadFile(ctx, want.Requirements, earlier, resolved)
		if err != nil {
			return job, err
		}
		job.requirements += text
	}
	if want.Torch != "" {
		job.exempt = append(job.exempt, torchFamily...)
	}
	for _, x := range want.Indexes {
		for _, name := range x.Packages {
			job.exempt = append(job.exempt, wheel.NormalizeName(name))
		}
	}
	if v := recipe.Versions; v != nil && v.Package != "" {
		job.exempt = append(job.exempt, wheel.NormalizeName(v.Package))
	}
	slices.Sort(job.exempt)
	job.exempt = slices.Compact(job.exempt)
	var err error
	job.cutoff, err = r.cutoff(ctx, recipe.Versions, c.Version, want)
	if v := recipe.Versions; v != nil && v.Package != "" {
		job.hasDates = !job.cutoff.IsZero()
	}
	return job, err
}

// cutoff returns the upload time limit for the packages of a version: the recipe's
// exclude_newer, or the release date of the version. Zero means no limit. The limit exists
// because packages that are newer than an engine often break the engine.
func (r *Resolver) cutoff(ctx context.Context, v *catalog.Versions, version string, want *catalog.Python) (time.Time, error) {
	switch {
	case want.ExcludeNewer == catalog.ExcludeNewerNever:
		return time.Time{}, nil
	case want.ExcludeNewer != "":
		return catalog.ParseDate(want.ExcludeNewer)
	case v == nil:
		return time.Time{}, nil
	}
	var release time.Time
	if v.Package != "" {
		page, err := r.page(ctx, v.Package)
		if err != nil {
			return time.Time{}, packageError(err, r.index.client.Index, v.Package)
		}
		if release = page.releaseTime(version); release.IsZero() {
			r.warn(fmt.Sprintf("%s does not record the upload date of %s %s: using the newest packages", fetch.RedactURL(r.index.client.Index), v.Package, version))
		}
	} else {
		rel, err := r.releases.byTag(ctx, v.GitHub, v.TagOf(version))
		if err != nil {
			return time.Time{}, err
		}
		release = rel.Published
	}
	if release.IsZero() {
		return release, nil
	}
	return release.Add(releaseMargin), nil
}

// warn reports a warning to the user, once per plan.
func (r *Resolver) warn(text string) {
	if r.warned[text] {
		return
	}
	r.warned[text] = true
	r.note("warning: " + text)
}

// packageError replaces [fetch.ErrNotFound] with an error that names the index and the
// package. It returns other errors unchanged.
func packageError(err error, index, name string) error {
	if errors.Is(err, fetch.ErrNotFound) {
		return fmt.Errorf("the package index %s does not contain %s", fetch.RedactURL(index), name)
	}
	return err
}

// makeURLsAbsolute replaces the URLs of wheels with absolute URLs.
func (r *Resolver) makeURLsAbsolute(wheels []wire.Artifact) error {
	for i := range wheels {
		w := &wheels[i]
		var err error
		if w.URL, err = AbsoluteURL(r.index.client.Index, w.URL); err != nil {
			return fmt.Errorf("invalid address of %s: %w", w.Name, err)
		}
	}
	return nil
}
