package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Lookup resolves the workers of a config for a plan. It resolves each version constraint
// and source once for all hives.
type Lookup struct {
	in          Input
	opts        plan.Options
	versions    map[[2]string]versionResult // by worker type and version constraint
	errors      map[string]error            // errors of sources that cannot be resolved, by key of the source in the lock
	FileChanges []operations.Upgrade        // versions whose files changed because the recipe's steps changed
}

// versionResult is the result of resolving a version constraint.
type versionResult struct {
	version string
	err     error
}

// Input contains the parameters of a [Lookup].
type Input struct {
	// Hives are the hives of the plan, including hives that could not be read. Config
	// contains all hives of the config.
	Hives  []plan.HiveState
	Config []config.Hive

	Catalog *catalog.Catalog
	Lock    *lockfile.Lock

	// Resolver resolves versions and files over the network. If FromBundle is true, all files
	// are in a bundle, and the network is not used.
	Resolver   *Resolver
	FromBundle bool

	// Version is the version of rbee to install on hives; empty if not known.
	Version string
}

// NewLookup returns a Lookup for a plan and resets the per-plan state of in.Resolver.
func NewLookup(in Input, o plan.Options) *Lookup {
	var platforms []wire.Platform
	for _, h := range in.Hives {
		if h.State != nil && !h.Extra && !slices.Contains(platforms, h.State.Platform) {
			platforms = append(platforms, h.State.Platform)
		}
	}
	in.Resolver.startPlan(platforms)
	return &Lookup{in: in, opts: o, versions: map[[2]string]versionResult{}, errors: map[string]error{}}
}

// Worker resolves a worker of a hive.
func (l *Lookup) Worker(ctx context.Context, hive string, w config.Worker, s *wire.State, want plan.Desired) plan.DesiredWorker {
	recipe, ok := l.in.Catalog.Recipe(w.Type)
	if !ok {
		return plan.DesiredWorker{Err: &catalog.UnknownTypeError{Type: w.Type, Nearest: l.in.Catalog.Nearest(w.Type)}}
	}
	binary := want.Binaries[s.Platform.Key()]
	rbeeVersion := cmp.Or(binary.Version, l.in.Version)
	machine := catalog.MachineOf(s)
	pin, pinned := l.in.Lock.Pinned(hive, w.Type)
	usePin := pinned && l.pinApplies(pin, w)
	fail := func(err error) plan.DesiredWorker {
		return plan.DesiredWorker{Err: err, Needs: recipe.Needs, Indirect: recipe.Versions.Indirect(w.Version)}
	}
	version, err := pin.Version, error(nil)
	if !usePin {
		version, err = l.version(ctx, recipe, w.Version, s.Platform, rbeeVersion)
	}
	if errors.Is(err, plan.ErrNotLocked) {
		// If no version supports the machine, report that instead.
		if _, chooseErr := recipe.Choose("", machine, rbeeVersion); chooseErr != nil {
			err = chooseErr
		}
	}
	if err != nil {
		return fail(err)
	}
	choice, err := recipe.Choose(version, machine, rbeeVersion)
	if err != nil {
		return fail(err)
	}
	resolved := l.resolveChoice(ctx, recipe, choice, w.Version, s.Platform)
	resolved.Warning = catalog.CPUWarning(w.Type, recipe.CPUFallbackReason(choice, machine, rbeeVersion))
	resolved.Pinned, resolved.Unpin = usePin, pinned && !usePin
	for i := range resolved.Steps {
		if resolved.Steps[i].Kind == wire.StepBuiltin {
			resolved.SHA256 = binary.SHA256
		}
	}
	return resolved
}

// pinApplies reports whether the pinned version of a worker is used: the version constraint in
// the config is the same as when the worker was pinned, and the plan does not upgrade it.
func (l *Lookup) pinApplies(pin lockfile.Pin, w config.Worker) bool {
	return pin.Requested == w.Version && !l.upgrades(w.Type)
}

// consumers returns the machines that install a recipe with a version constraint. If there are
// none, it returns a machine with the given platform.
func (l *Lookup) consumers(recipe *catalog.Recipe, constraint string, platform wire.Platform) []consumer {
	var all []consumer
	add := func(name string, m catalog.Machine) {
		// Ignore machines that no version supports. Choose reports them later.
		if _, err := recipe.Choose("", m, ""); err == nil || errors.Is(err, catalog.ErrDevicesUnknown) {
			all = append(all, consumer{name, recipe.SourcesFor(m)})
		}
	}
	for _, h := range l.in.Hives {
		if h.State == nil || h.Extra {
			continue
		}
		for _, w := range h.Hive.Workers {
			pin, pinned := l.in.Lock.Pinned(h.Hive.Alias, w.Type)
			if w.Type != recipe.Type || w.Version != constraint || pinned && l.pinApplies(pin, w) || plan.IsAdopted(h.State, w) && !l.opts.Force {
				continue
			}
			add(h.Hive.Alias, catalog.MachineOf(h.State))
		}
	}
	if len(all) == 0 {
		add(platform.Key(), catalog.Machine{Platform: platform})
	}
	return all
}

// resolveChoice resolves the files of a chosen source. It locks the version if the version was
// resolved from the version constraint.
func (l *Lookup) resolveChoice(ctx context.Context, recipe *catalog.Recipe, choice catalog.Choice, constraint string, p wire.Platform) plan.DesiredWorker {
	steps, err := l.steps(ctx, recipe, choice, constraint, p)
	// Lock the version also if the glibc of this machine is too old: other machines can use it.
	var glibcErr *lockfile.GlibcError
	if result, ok := l.versions[[2]string{recipe.Type, constraint}]; ok && result.version == choice.Version && (err == nil || errors.As(err, &glibcErr)) {
		l.in.Lock.SetWorker(recipe.Type, constraint, choice.Version, time.Now())
	}
	if err != nil {
		return plan.DesiredWorker{Err: err, Needs: recipe.Needs, Indirect: recipe.Versions.Indirect(constraint)}
	}
	resolved := plan.DesiredWorker{
		Version: choice.Version, Variant: choice.Source.Name, Reason: choice.Reason, Launch: recipe.Launch(&choice.Source), Verify: recipe.Verification(&choice.Source), Needs: recipe.Needs,
		Steps: steps, Entry: choice.Source.Entry, SHA256: wire.Digest(steps, choice.Source.Entry), Files: map[string]string{}, Unstable: map[string]bool{},
	}
	for i, step := range choice.Source.Steps {
		steps[i].Position = location(recipe, step.Pos)
		switch origin := step.Origin; {
		case origin.File != "" && !l.in.FromBundle:
			resolved.Files[steps[i].Artifact.SHA256] = origin.File
		case origin.Code, origin.URL != "" && origin.SHA256 == "":
			resolved.Unstable[steps[i].Artifact.SHA256] = true
		}
	}
	return resolved
}

// upgrades reports whether the plan upgrades a worker type.
func (l *Lookup) upgrades(typ string) bool {
	return l.opts.Upgrade && (len(l.opts.UpgradeTypes) == 0 || slices.Contains(l.opts.UpgradeTypes, typ))
}

// version resolves a version constraint to an exact version, once per plan.
func (l *Lookup) version(ctx context.Context, recipe *catalog.Recipe, constraint string, p wire.Platform, rbeeVersion string) (string, error) {
	if recipe.Versions == nil || len(recipe.Sources) == 0 {
		return recipe.Version(constraint, rbeeVersion)
	}
	key := [2]string{recipe.Type, constraint}
	result, ok := l.versions[key]
	if !ok {
		result.version, result.err = l.publishedVersion(ctx, recipe, constraint, p)
		l.versions[key] = result
	}
	return result.version, result.err
}

// publishedVersion returns the locked version of a version constraint. If the version is not
// locked or the plan upgrades the worker type, publishedVersion resolves the newest published
// version. The result is never older than the locked version.
func (l *Lookup) publishedVersion(ctx context.Context, recipe *catalog.Recipe, constraint string, p wire.Platform) (string, error) {
	locked, isLocked := l.in.Lock.Worker(recipe.Type, constraint)
	switch {
	case isLocked && !l.upgrades(recipe.Type):
		return locked.Version, nil
	case !l.opts.Fetch:
		return "", plan.ErrNotLocked
	case l.in.FromBundle:
		return "", withLocation(recipe, recipe.Versions.Pos, fmt.Errorf("the bundle does not contain %s %s", recipe.Type, constraint))
	}
	resolved, err := l.in.Resolver.resolveVersion(ctx, recipe, constraint, l.consumers(recipe, constraint, p), func(version string) error {
		return l.checkSolution(ctx, recipe, constraint, version, p)
	})
	var stepErr *plan.LookupError // the error of a step
	switch {
	case errors.As(err, &stepErr):
		return "", stepErr
	case err != nil:
		return "", &plan.LookupError{Err: withLocation(recipe, recipe.Versions.Pos, err)}
	}
	if isLocked && version.Compare(resolved, locked.Version) < 0 {
		resolved = locked.Version
	}
	return resolved, nil
}

// steps returns the install steps of a chosen source, from the recipe or the lock. It resolves
// the source if it is not locked. The error is a [*lockfile.GlibcError] if the glibc of the
// platform is too old for the packages.
func (l *Lookup) steps(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, constraint string, p wire.Platform) ([]wire.InstallStep, error) {
	key := sourceKey(recipe, c, p)
	if c.Source.Reproducible() && (!l.in.FromBundle || !c.Source.InstallsLocalFile()) {
		steps, err := l.in.Resolver.recipeSteps(recipe, c)
		if err == nil && c.Source.InstallsLocalFile() {
			l.in.Lock.SetLocalSteps(key, steps) // for bundles
		}
		return steps, err
	}
	locked, err := l.source(ctx, recipe, c, constraint, p)
	if err != nil {
		return nil, err
	}
	if c.Source.HasPython() && p.Libc == "glibc" {
		if floor := locked.EffectiveFloor(c.Source.Glibc); floor.Excludes(p.LibcVersion) {
			return nil, &lockfile.GlibcError{Type: recipe.Type, Version: c.Version, Packages: floor.NeededBy, Needs: floor.Glibc, Has: p.LibcVersion}
		}
	}
	return locked.Steps, nil
}

// checkSolution resolves the packages of a version, unless they are locked. It returns nil if
// the packages have a solution for at least one machine with the version constraint. The error
// is a [*NoSolutionError] if they have no solution for any machine.
func (l *Lookup) checkSolution(ctx context.Context, recipe *catalog.Recipe, constraint, version string, platform wire.Platform) error {
	var machines []catalog.Machine
	for _, h := range l.in.Hives {
		if h.State == nil || h.Extra {
			continue
		}
		if slices.ContainsFunc(h.Hive.Workers, func(w config.Worker) bool { return w.Type == recipe.Type && w.Version == constraint }) {
			machines = append(machines, catalog.MachineOf(h.State))
		}
	}
	if len(machines) == 0 {
		machines = append(machines, catalog.Machine{Platform: platform})
	}
	var firstErr error
	for _, m := range machines {
		c, err := recipe.Choose(version, m, "")
		if err != nil || !c.Source.HasPython() {
			continue // Worker reports the errors of Choose
		}
		_, err = l.source(ctx, recipe, c, constraint, m.Platform)
		var noSolution *NoSolutionError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &noSolution):
			return err
		case firstErr == nil:
			firstErr = err
		}
	}
	return firstErr
}

// sourceKey returns the key of a chosen source in the lock.
func sourceKey(recipe *catalog.Recipe, c catalog.Choice, p wire.Platform) lockfile.Source {
	return lockfile.Source{
		Type: recipe.Type, Version: c.Version, Source: cmp.Or(c.Source.Name, "source "+strconv.Itoa(c.Index+1)),
		Platform: p.Name(), Recipe: lockfile.StepsDigest(&recipe.Sources[c.Index]),
	}
}

// source returns the locked steps of a chosen source. It resolves the source if it is not
// locked, or if the locked packages require a newer glibc than a machine has.
func (l *Lookup) source(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, constraint string, p wire.Platform) (lockfile.Source, error) {
	key := sourceKey(recipe, c, p)
	locked, isLocked := l.in.Lock.Source(key)
	previousSteps, recipeChanged := l.in.Lock.PreviousSteps(key)
	upgrade := l.opts.Fetch && !l.in.FromBundle && l.upgrades(recipe.Type)
	glibcTooOld := isLocked && c.Source.HasPython() && p.Libc == "glibc" && l.needsOlderGlibc(recipe, c, &locked, p)
	switch {
	case isLocked && !upgrade && !glibcTooOld:
		return locked, nil
	case !l.opts.Fetch && recipeChanged:
		return locked, plan.ErrRecipeChanged
	case !l.opts.Fetch && glibcTooOld:
		if floor := locked.EffectiveFloor(c.Source.Glibc); floor.Excludes(p.LibcVersion) && !floor.HasTried(p.LibcVersion) {
			return locked, plan.ErrNotLocked
		}
		return locked, nil
	case !l.opts.Fetch:
		return locked, plan.ErrNotLocked
	case l.in.FromBundle && glibcTooOld:
		return locked, nil
	case l.in.FromBundle:
		return locked, withLocation(recipe, c.Source.Pos, fmt.Errorf("the bundle does not contain %s %s for %s", recipe.Type, c.Version, key.Platform))
	}
	name := fmt.Sprint(key)
	if err := l.errors[name]; err != nil {
		return locked, err
	}
	var err error
	filesChange := recipeChanged
	switch {
	case isLocked && !glibcTooOld:
		err = l.in.Resolver.upgradeTools(ctx, recipe, c, p, locked.Steps)
	case isLocked:
		previousSteps, filesChange = locked.Steps, true
		locked, err = l.resolveSource(ctx, recipe, c, p, key, locked.EffectiveFloor(c.Source.Glibc), upgrade)
	default:
		locked, err = l.resolveSource(ctx, recipe, c, p, key, l.in.Lock.LatestFloor(key), upgrade)
	}
	if err != nil {
		var noSolution *NoSolutionError
		if err = (&plan.LookupError{Err: err}); errors.As(err, &noSolution) {
			err = noSolution
		}
		l.errors[name] = err
		return locked, err
	}
	l.in.Lock.SetSteps(locked, locked.Steps)
	if filesChange {
		l.recordFileChanges(recipe.Type, constraint, c.Version, previousSteps, locked.Steps)
	}
	return locked, nil
}

// resolveSource resolves the steps of a chosen source and returns them with the key of the
// source in the lock. floor is the floor of an earlier resolution, or nil.
func (l *Lookup) resolveSource(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, p wire.Platform, key lockfile.Source, floor *lockfile.GlibcFloor, upgrade bool) (lockfile.Source, error) {
	versions, complete := l.glibcVersions(recipe, c, p)
	l.warnUnknownGlibc(recipe)
	minGlibc := lockfile.InitialGlibc(c.Source.Glibc, versions, complete, floor)
	var err error
	key.Steps, key.Floor, err = l.in.Resolver.resolveSteps(ctx, recipe, c, p, minGlibc, upgrade)
	return key, err
}

// needsOlderGlibc reports whether a locked source must be resolved again because a machine
// has an older glibc than the source was resolved for.
func (l *Lookup) needsOlderGlibc(recipe *catalog.Recipe, c catalog.Choice, locked *lockfile.Source, p wire.Platform) bool {
	floor := locked.EffectiveFloor(c.Source.Glibc)
	machines, _ := l.glibcVersions(recipe, c, p)
	return slices.ContainsFunc(machines, func(glibc string) bool { return floor.Excludes(glibc) && !floor.HasTried(glibc) })
}

// warnUnknownGlibc warns about hives with the worker type whose glibc version is unknown.
func (l *Lookup) warnUnknownGlibc(recipe *catalog.Recipe) {
	for _, h := range l.in.Hives {
		if h.State == nil || h.Extra || h.State.Libc != "glibc" {
			continue
		}
		hasWorker := slices.ContainsFunc(h.Hive.Workers, func(w config.Worker) bool { return w.Type == recipe.Type })
		if _, ok := lockfile.GlibcMinor(h.State.LibcVersion); hasWorker && !ok {
			l.in.Resolver.warn(fmt.Sprintf("cannot determine the glibc version of %s: resolving %s for the oldest glibc that the recipe supports", h.Hive.Alias, recipe.Type))
		}
	}
}

// glibcVersions returns the glibc versions of the machines that may install a source: the
// hives of the config whose version constraint is a range or is satisfied by the version of
// the choice. complete reports whether the glibc versions of all these machines are known.
func (l *Lookup) glibcVersions(recipe *catalog.Recipe, c catalog.Choice, p wire.Platform) (versions []string, complete bool) {
	complete = true
	states := map[string]*wire.State{}
	for _, h := range l.in.Hives {
		if !h.Extra && h.State != nil {
			states[h.Hive.Alias] = h.State
		}
	}
	for _, h := range l.in.Config {
		i := slices.IndexFunc(h.Workers, func(w config.Worker) bool { return w.Type == recipe.Type })
		if i < 0 || version.IsExact(h.Workers[i].Version) && !plan.Satisfies(h.Workers[i].Version, c.Version) {
			continue
		}
		s := states[h.Alias]
		if s == nil {
			complete = false
			continue
		}
		if s.Name() != p.Name() {
			continue
		}
		choice, err := recipe.Choose(c.Version, catalog.MachineOf(s), "")
		if !errors.Is(err, catalog.ErrDevicesUnknown) && (err != nil || choice.Index != c.Index) {
			continue
		}
		if _, ok := lockfile.GlibcMinor(s.LibcVersion); !ok {
			complete = false
			continue
		}
		versions = append(versions, s.LibcVersion)
	}
	return versions, complete
}

// recordFileChanges adds an entry to FileChanges if the files of a version changed.
func (l *Lookup) recordFileChanges(typ, constraint, version string, before, after []wire.InstallStep) {
	if wire.Digest(before, "") == wire.Digest(after, "") {
		return
	}
	change := operations.Upgrade{Worker: typ, Requested: constraint}
	if change.From, change.To = lockfile.ChangedFiles(version, before, after); !slices.Contains(l.FileChanges, change) {
		l.FileChanges = append(l.FileChanges, change)
	}
}

// Variants resolves a worker once with each source that supports a platform.
func (l *Lookup) Variants(ctx context.Context, w config.Worker, p wire.Platform) []plan.DesiredWorker {
	recipe, ok := l.in.Catalog.Recipe(w.Type)
	if !ok {
		return []plan.DesiredWorker{{Err: &catalog.UnknownTypeError{Type: w.Type}}}
	}
	version, err := l.version(ctx, recipe, w.Version, p, l.in.Version)
	if err != nil {
		return []plan.DesiredWorker{{Err: err}}
	}
	var all []plan.DesiredWorker
	for i := range recipe.Sources {
		s := &recipe.Sources[i]
		if !recipe.Has(s, version, l.in.Version) || !s.FitsPlatform(p) {
			continue
		}
		source, err := s.Fill(version, p, filepath.Dir(recipe.File))
		worker := plan.DesiredWorker{Err: err}
		if err == nil {
			worker = l.resolveChoice(ctx, recipe, catalog.Choice{Version: version, Source: source, Index: i}, w.Version, p)
		}
		all = append(all, worker)
	}
	if len(all) == 0 {
		_, err := recipe.Choose(version, catalog.Machine{Platform: p}, l.in.Version) // returns why no source can be installed
		all = append(all, plan.DesiredWorker{Err: err})
	}
	return all
}
