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
	versions    map[[2]string]versionOrErr
	errors      map[string]error     // errors of sources that cannot be resolved, by source
	FileChanges []operations.Upgrade // versions whose files changed because the recipe's steps changed
}

type versionOrErr struct {
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

	// Resolver resolves versions and files over the network. FromBundle forbids use of the
	// network, because all files are in a bundle.
	Resolver   *Resolver
	FromBundle bool

	// Version is the version of rbee to install on hives; may be empty.
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
	return &Lookup{in: in, opts: o, versions: map[[2]string]versionOrErr{}, errors: map[string]error{}}
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
	applies := pinned && l.pinApplies(pin, w)
	version, err := pin.Version, error(nil)
	if !applies {
		version, err = l.version(ctx, recipe, w.Version, s.Platform, rbeeVersion)
	}
	if errors.Is(err, plan.ErrNotLocked) {
		// Without a version, Choose still reports a machine that no version supports.
		if _, chooseErr := recipe.Choose("", machine, rbeeVersion); chooseErr != nil {
			err = chooseErr
		}
	}
	if err != nil {
		return plan.DesiredWorker{Err: err, Needs: recipe.Needs, Indirect: recipe.Versions.Indirect(w.Version)}
	}
	choice, err := recipe.Choose(version, machine, rbeeVersion)
	if err != nil {
		return plan.DesiredWorker{Err: err, Needs: recipe.Needs, Indirect: recipe.Versions.Indirect(w.Version)}
	}
	out := l.resolveChoice(ctx, recipe, choice, w.Version, s.Platform)
	out.Warning = catalog.CPUWarning(w.Type, recipe.CPUFallbackReason(choice, machine, rbeeVersion))
	out.Pinned, out.Unpin = applies, pinned && !applies
	for i := range out.Steps {
		if out.Steps[i].Kind == wire.StepBuiltin {
			out.SHA256 = binary.SHA256
		}
	}
	return out
}

// pinApplies reports whether a pin applies to a worker of the config.
func (l *Lookup) pinApplies(p lockfile.Pin, w config.Worker) bool {
	return p.Requested == w.Version && !l.upgrades(w.Type)
}

// consumers returns the machines that install a recipe with a version constraint. If none is
// known, it returns a machine with the given platform.
func (l *Lookup) consumers(recipe *catalog.Recipe, constraint string, platform wire.Platform) []consumer {
	var all []consumer
	add := func(name string, m catalog.Machine) {
		// Ignore machines that no version supports. Choose reports them later.
		if _, err := recipe.Choose("", m, ""); err == nil || errors.Is(err, catalog.ErrDevicesUnknown) {
			all = append(all, consumer{name, recipe.SourcesFor(m)})
		}
	}
	for _, m := range l.in.Hives {
		if m.State == nil || m.Extra {
			continue
		}
		for _, w := range m.Hive.Workers {
			pin, pinned := l.in.Lock.Pinned(m.Hive.Alias, w.Type)
			if w.Type != recipe.Type || w.Version != constraint || pinned && l.pinApplies(pin, w) || plan.IsAdopted(m.State, w) && !l.opts.Force {
				continue
			}
			add(m.Hive.Alias, catalog.MachineOf(m.State))
		}
	}
	if len(all) == 0 {
		add(platform.Key(), catalog.Machine{Platform: platform})
	}
	return all
}

// resolveChoice resolves the files of a chosen source.
func (l *Lookup) resolveChoice(ctx context.Context, recipe *catalog.Recipe, choice catalog.Choice, constraint string, p wire.Platform) plan.DesiredWorker {
	steps, err := l.steps(ctx, recipe, choice, constraint, p)
	var glibcErr *lockfile.GlibcError // the version supports other machines
	if known, ok := l.versions[[2]string{recipe.Type, constraint}]; ok && known.version == choice.Version && (err == nil || errors.As(err, &glibcErr)) {
		l.in.Lock.SetWorker(recipe.Type, constraint, choice.Version, time.Now())
	}
	if err != nil {
		return plan.DesiredWorker{Err: err, Needs: recipe.Needs, Indirect: recipe.Versions.Indirect(constraint)}
	}
	out := plan.DesiredWorker{
		Version: choice.Version, Variant: choice.Source.Name, Reason: choice.Reason, Launch: recipe.Launch(&choice.Source), Verify: recipe.Verification(&choice.Source), Needs: recipe.Needs,
		Steps: steps, Entry: choice.Source.Entry, SHA256: wire.Digest(steps, choice.Source.Entry), Files: map[string]string{}, Unstable: map[string]bool{},
	}
	for i, step := range choice.Source.Steps {
		steps[i].Position = location(recipe, step.Pos)
		switch o := step.Origin; {
		case o.File != "" && !l.in.FromBundle:
			out.Files[steps[i].Artifact.SHA256] = o.File
		case o.Code, o.URL != "" && o.SHA256 == "":
			out.Unstable[steps[i].Artifact.SHA256] = true
		}
	}
	return out
}

// upgrades reports whether the plan upgrades a worker type.
func (l *Lookup) upgrades(typ string) bool {
	return l.opts.Upgrade && (len(l.opts.UpgradeTypes) == 0 || slices.Contains(l.opts.UpgradeTypes, typ))
}

// version resolves a version constraint to an exact version.
func (l *Lookup) version(ctx context.Context, recipe *catalog.Recipe, constraint string, p wire.Platform, rbeeVersion string) (string, error) {
	if recipe.Versions == nil || len(recipe.Sources) == 0 {
		return recipe.Version(constraint, rbeeVersion)
	}
	key := [2]string{recipe.Type, constraint}
	known, ok := l.versions[key]
	if !ok {
		known.version, known.err = l.newest(ctx, recipe, constraint, p)
		l.versions[key] = known
	}
	return known.version, known.err
}

func (l *Lookup) newest(ctx context.Context, recipe *catalog.Recipe, constraint string, p wire.Platform) (string, error) {
	lock := l.in.Lock
	locked, ok := lock.Worker(recipe.Type, constraint)
	switch {
	case ok && !l.upgrades(recipe.Type):
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
	if ok && version.Compare(resolved, locked.Version) < 0 {
		resolved = locked.Version
	}
	return resolved, nil
}

// steps returns the install steps of a chosen source, from the recipe or the lockfile. It resolves
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
// the packages have a solution for at least one machine that installs the version constraint.
// The error is a [*NoSolutionError] if they have no solution for any machine.
func (l *Lookup) checkSolution(ctx context.Context, recipe *catalog.Recipe, constraint, version string, platform wire.Platform) error {
	machines := []catalog.Machine{}
	for _, m := range l.in.Hives {
		if m.State == nil || m.Extra {
			continue
		}
		if slices.ContainsFunc(m.Hive.Workers, func(w config.Worker) bool { return w.Type == recipe.Type && w.Version == constraint }) {
			machines = append(machines, catalog.MachineOf(m.State))
		}
	}
	if len(machines) == 0 {
		machines = append(machines, catalog.Machine{Platform: platform})
	}
	var first error
	for _, m := range machines {
		c, err := recipe.Choose(version, m, "")
		if err != nil || !c.Source.HasPython() {
			continue // Worker reports an error of Choose
		}
		_, err = l.source(ctx, recipe, c, constraint, m.Platform)
		var noSolution *NoSolutionError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &noSolution):
			return err
		case first == nil:
			first = err
		}
	}
	return first
}

// sourceKey returns the key of a chosen source in the lockfile.
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
	locked, known := l.in.Lock.Source(key)
	before, changed := l.in.Lock.PreviousSteps(key)
	upgrade := l.opts.Fetch && !l.in.FromBundle && l.upgrades(recipe.Type)
	older := known && c.Source.HasPython() && p.Libc == "glibc" && l.needsOlderGlibc(recipe, c, &locked, p)
	switch {
	case known && !upgrade && !older:
		return locked, nil
	case !l.opts.Fetch && changed:
		return locked, plan.ErrRecipeChanged
	case !l.opts.Fetch && older:
		if floor := locked.EffectiveFloor(c.Source.Glibc); floor.Excludes(p.LibcVersion) && !floor.HasTried(p.LibcVersion) {
			return locked, plan.ErrNotLocked
		}
		return locked, nil
	case !l.opts.Fetch:
		return locked, plan.ErrNotLocked
	case l.in.FromBundle && older:
		return locked, nil
	case l.in.FromBundle:
		return locked, withLocation(recipe, c.Source.Pos, fmt.Errorf("the bundle does not contain %s %s for %s", recipe.Type, c.Version, key.Platform))
	}
	name := fmt.Sprint(key)
	if err := l.errors[name]; err != nil {
		return locked, err
	}
	var err error
	if known && !older {
		err = l.in.Resolver.upgradeTools(ctx, recipe, c, p, locked.Steps)
	} else {
		if known {
			before, changed = locked.Steps, true
		}
		machines, complete := l.glibcVersions(recipe, c, p)
		l.warnUnknownGlibc(recipe)
		last := l.in.Lock.LatestFloor(key)
		if known {
			last = locked.EffectiveFloor(c.Source.Glibc)
		}
		key.Floor = nil
		var steps []wire.InstallStep
		steps, key.Floor, err = l.in.Resolver.resolveSteps(ctx, recipe, c, p, lockfile.InitialGlibc(c.Source.Glibc, machines, complete, last), upgrade)
		locked = key
		locked.Steps = steps
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
	if changed {
		l.recordFileChanges(recipe.Type, constraint, c.Version, before, locked.Steps)
	}
	return locked, nil
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
	for _, m := range l.in.Hives {
		if m.State == nil || m.Extra || m.State.Libc != "glibc" {
			continue
		}
		hasWorker := slices.ContainsFunc(m.Hive.Workers, func(w config.Worker) bool { return w.Type == recipe.Type })
		if _, ok := lockfile.GlibcMinor(m.State.LibcVersion); hasWorker && !ok {
			l.in.Resolver.warn(fmt.Sprintf("cannot determine the glibc version of %s: resolving %s for the oldest glibc that the recipe supports", m.Hive.Alias, recipe.Type))
		}
	}
}

// glibcVersions returns the glibc versions of the machines that may install a source: all
// hives of the config whose version constraint is satisfied by the version or is not exact.
// complete reports whether all of these versions are known.
func (l *Lookup) glibcVersions(recipe *catalog.Recipe, c catalog.Choice, p wire.Platform) (machines []string, complete bool) {
	complete = true
	states := map[string]*wire.State{}
	for _, m := range l.in.Hives {
		if !m.Extra && m.State != nil {
			states[m.Hive.Alias] = m.State
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
		switch {
		case errors.Is(err, catalog.ErrDevicesUnknown) || err == nil && choice.Index == c.Index:
			if _, ok := lockfile.GlibcMinor(s.LibcVersion); ok {
				machines = append(machines, s.LibcVersion)
			} else {
				complete = false // unknown glibc version
			}
		}
	}
	return machines, complete
}

// recordFileChanges records that the files of a version changed.
func (l *Lookup) recordFileChanges(typ, constraint, version string, before, after []wire.InstallStep) {
	if wire.Digest(before, "") == wire.Digest(after, "") {
		return
	}
	u := operations.Upgrade{Worker: typ, Requested: constraint}
	if u.From, u.To = lockfile.ChangedFiles(version, before, after); !slices.Contains(l.FileChanges, u) {
		l.FileChanges = append(l.FileChanges, u)
	}
}

// Variants resolves a worker with each source for a platform.
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
		want := plan.DesiredWorker{Err: err}
		if err == nil {
			want = l.resolveChoice(ctx, recipe, catalog.Choice{Version: version, Source: source, Index: i}, w.Version, p)
		}
		all = append(all, want)
	}
	if len(all) == 0 {
		all = append(all, plan.DesiredWorker{Err: &catalog.UnsupportedPlatformError{Type: w.Type, Version: version, Platform: p, Known: []string{"other platforms"}}})
	}
	return all
}
