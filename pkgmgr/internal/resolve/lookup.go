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

// Lookup finds out what workers' wishes come to. Each question is asked once,
// however many hives want the answer.
type Lookup struct {
	in       Input
	opts     plan.Options
	versions map[[2]string]versionOrErr
	failed   map[string]error     // resolveSteps that cannot be had
	Moved    []operations.Upgrade // versions whose files are others, as the recipe's steps are
}

type versionOrErr struct {
	version string
	err     error
}

// Input is what looking up needs to know.
type Input struct {
	// Hives are those that were read or could not be, and Config all of the config.
	Hives  []plan.HiveState
	Config []config.Hive

	Catalog *catalog.Catalog
	Lock    *lockfile.Lock

	// Resolver asks the origins; FromBundle says that it must not be asked.
	Resolver   *Resolver
	FromBundle bool

	// Version is the version of rbee that hives shall have; may be empty.
	Version string
}

// NewLookup begins to look up.
func NewLookup(in Input, o plan.Options) *Lookup {
	var platforms []wire.Platform
	for _, h := range in.Hives {
		if h.State != nil && !h.Extra && !slices.Contains(platforms, h.State.Platform) {
			platforms = append(platforms, h.State.Platform)
		}
	}
	in.Resolver.startPlan(platforms)
	return &Lookup{in: in, opts: o, versions: map[[2]string]versionOrErr{}, failed: map[string]error{}}
}

// Worker is what one hive's wish comes to.
func (l *Lookup) Worker(ctx context.Context, hive string, w config.Worker, s *wire.State, want plan.Desired) plan.DesiredWorker {
	recipe, ok := l.in.Catalog.Recipe(w.Type)
	if !ok {
		return plan.DesiredWorker{Err: &catalog.UnknownTypeError{Type: w.Type, Nearest: l.in.Catalog.Nearest(w.Type)}}
	}
	binary := want.Binaries[s.Platform.Key()]
	rbeeVersion := cmp.Or(binary.Version, l.in.Version)
	machine := catalog.MachineOf(s)
	hold, held := l.in.Lock.Pinned(hive, w.Type)
	stays := held && l.pinApplies(hold, w)
	version, err := hold.Version, error(nil)
	if !stays {
		version, err = l.version(ctx, recipe, w.Version, s.Platform, rbeeVersion)
	}
	if errors.Is(err, plan.ErrNotLocked) {
		// Whether anything fits can be told without knowing the version.
		if _, unfit := recipe.Choose("", machine, rbeeVersion); unfit != nil {
			err = unfit
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
	out.Pinned, out.EndsPin = stays, held && !stays
	for i := range out.Steps {
		if out.Steps[i].Kind == wire.StepBuiltin {
			out.SHA256 = binary.SHA256
		}
	}
	return out
}

// pinApplies reports whether a hold counts.
func (l *Lookup) pinApplies(h lockfile.Pin, w config.Worker) bool {
	return h.Requested == w.Version && !l.upgrades(w.Type)
}

// consumers are what the machines take from a release that have a wish; platform is one
// that has it although it is not known which machine.
func (l *Lookup) consumers(recipe *catalog.Recipe, wish string, platform wire.Platform) []consumer {
	var all []consumer
	add := func(who string, m catalog.Machine) {
		// What fits no version is told so, and does not count.
		if _, err := recipe.Choose("", m, ""); err == nil || errors.Is(err, catalog.ErrDevicesUnknown) {
			all = append(all, consumer{who, recipe.SourcesFor(m)})
		}
	}
	for _, m := range l.in.Hives {
		if m.State == nil || m.Extra {
			continue
		}
		for _, w := range m.Hive.Workers {
			hold, held := l.in.Lock.Pinned(m.Hive.Alias, w.Type)
			if w.Type != recipe.Type || w.Version != wish || held && l.pinApplies(hold, w) || plan.IsAdopted(m.State, w) && !l.opts.Force {
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

// resolveChoice is what a wish comes to with the source that was chosen for it.
func (l *Lookup) resolveChoice(ctx context.Context, recipe *catalog.Recipe, choice catalog.Choice, wish string, p wire.Platform) plan.DesiredWorker {
	steps, err := l.steps(ctx, recipe, choice, wish, p)
	var old *lockfile.GlibcError // the version is resolved, for other machines
	if known, ok := l.versions[[2]string{recipe.Type, wish}]; ok && known.version == choice.Version && (err == nil || errors.As(err, &old)) {
		l.in.Lock.SetWorker(recipe.Type, wish, choice.Version, time.Now())
	}
	if err != nil {
		return plan.DesiredWorker{Err: err, Needs: recipe.Needs, Indirect: recipe.Versions.Indirect(wish)}
	}
	out := plan.DesiredWorker{
		Version: choice.Version, Variant: choice.Source.Name, Reason: choice.Reason, Launch: recipe.Launch(&choice.Source), Verify: recipe.Verification(&choice.Source), Needs: recipe.Needs,
		Steps: steps, Entry: choice.Source.Entry, SHA256: wire.Digest(steps, choice.Source.Entry), Files: map[string]string{}, Unstable: map[string]bool{},
	}
	for i, step := range choice.Source.Steps {
		steps[i].At = location(recipe, step.Pos)
		switch o := step.Origin; {
		case o.File != "" && !l.in.FromBundle:
			out.Files[steps[i].Artifact.SHA256] = o.File
		case o.Code, o.URL != "" && o.SHA256 == "":
			out.Unstable[steps[i].Artifact.SHA256] = true
		}
	}
	return out
}

// upgrades reports whether newer versions of a type are looked for.
func (l *Lookup) upgrades(typ string) bool {
	return l.opts.Upgrade && (len(l.opts.UpgradeTypes) == 0 || slices.Contains(l.opts.UpgradeTypes, typ))
}

// resolveVersion is the exact version that a wish comes to.
func (l *Lookup) version(ctx context.Context, recipe *catalog.Recipe, wish string, p wire.Platform, rbeeVersion string) (string, error) {
	if recipe.Versions == nil || len(recipe.Sources) == 0 {
		return recipe.Version(wish, rbeeVersion)
	}
	key := [2]string{recipe.Type, wish}
	known, asked := l.versions[key]
	if !asked {
		known.version, known.err = l.newest(ctx, recipe, wish, p)
		l.versions[key] = known
	}
	return known.version, known.err
}

func (l *Lookup) newest(ctx context.Context, recipe *catalog.Recipe, wish string, p wire.Platform) (string, error) {
	lock := l.in.Lock
	locked, ok := lock.Worker(recipe.Type, wish)
	switch {
	case ok && !l.upgrades(recipe.Type):
		return locked.Version, nil
	case !l.opts.Fetch:
		return "", plan.ErrNotLocked
	case l.in.FromBundle:
		return "", withLocation(recipe, recipe.Versions.Pos, fmt.Errorf("the bundle holds no %s %s", recipe.Type, wish))
	}
	resolved, err := l.in.Resolver.resolveVersion(ctx, recipe, wish, l.consumers(recipe, wish, p), func(version string) error {
		return l.solvable(ctx, recipe, wish, version, p)
	})
	var located *plan.LookupError // of a step
	switch {
	case errors.As(err, &located):
		return "", located
	case err != nil:
		return "", &plan.LookupError{Err: withLocation(recipe, recipe.Versions.Pos, err)}
	}
	if ok && version.Compare(resolved, locked.Version) < 0 {
		resolved = locked.Version
	}
	return resolved, nil
}

// resolveSteps are what a chosen source consists of: by the recipe itself, by the lock,
// or asked for now. The error is a [*lockfile.GlibcError] if that does not run with the glibc of
// the platform.
func (l *Lookup) steps(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, wish string, p wire.Platform) ([]wire.InstallStep, error) {
	key := sourceKey(recipe, c, p)
	if c.Source.Reproducible() && (!l.in.FromBundle || !c.Source.InstallsLocalFile()) {
		steps, err := l.in.Resolver.recipeSteps(recipe, c)
		if err == nil && c.Source.InstallsLocalFile() {
			l.in.Lock.SetLocalSteps(key, steps) // for a bundle, which goes where these files are not
		}
		return steps, err
	}
	locked, err := l.source(ctx, recipe, c, wish, p)
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

// solvable resolves a version for the machines that have a wish, unless the lock has
// it. The error is a [*NoSolutionError] if none of the sources that they would get has
// a solution; a version that some of them can have is taken.
func (l *Lookup) solvable(ctx context.Context, recipe *catalog.Recipe, wish, version string, platform wire.Platform) error {
	machines := []catalog.Machine{}
	for _, m := range l.in.Hives {
		if m.State == nil || m.Extra {
			continue
		}
		if slices.ContainsFunc(m.Hive.Workers, func(w config.Worker) bool { return w.Type == recipe.Type && w.Version == wish }) {
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
			continue // it is reported where the machine is planned
		}
		_, err = l.source(ctx, recipe, c, wish, m.Platform)
		var none *NoSolutionError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &none):
			return err
		case first == nil:
			first = err
		}
	}
	return first
}

// sourceKey is what the lock has a chosen source under.
func sourceKey(recipe *catalog.Recipe, c catalog.Choice, p wire.Platform) lockfile.Source {
	return lockfile.Source{
		Type: recipe.Type, Version: c.Version, Source: cmp.Or(c.Source.Name, "source "+strconv.Itoa(c.Index+1)),
		Platform: p.Name(), Recipe: lockfile.StepsDigest(&recipe.Sources[c.Index]),
	}
}

// source is what the lock has of a chosen source. Where it has nothing, or nothing that
// was resolved for a glibc as old as the machines', the source is resolved.
func (l *Lookup) source(ctx context.Context, recipe *catalog.Recipe, c catalog.Choice, wish string, p wire.Platform) (lockfile.Source, error) {
	key := sourceKey(recipe, c, p)
	locked, known := l.in.Lock.Source(key)
	was, changed := l.in.Lock.PreviousSteps(key)
	fresh := l.opts.Fetch && !l.in.FromBundle && l.upgrades(recipe.Type)
	older := known && c.Source.HasPython() && p.Libc == "glibc" && l.needsOlderGlibc(recipe, c, &locked, p)
	switch {
	case known && !fresh && !older:
		return locked, nil
	case !l.opts.Fetch && changed:
		return locked, plan.ErrRecipeChanged
	case !l.opts.Fetch && older:
		if floor := locked.EffectiveFloor(c.Source.Glibc); floor.Excludes(p.LibcVersion) && !floor.TriedFor(p.LibcVersion) {
			return locked, plan.ErrNotLocked
		}
		return locked, nil
	case !l.opts.Fetch:
		return locked, plan.ErrNotLocked
	case l.in.FromBundle && older:
		return locked, nil
	case l.in.FromBundle:
		return locked, withLocation(recipe, c.Source.Pos, fmt.Errorf("the bundle holds no %s %s for %s", recipe.Type, c.Version, key.Platform))
	}
	name := fmt.Sprint(key)
	if err := l.failed[name]; err != nil {
		return locked, err
	}
	var err error
	if known && !older {
		err = l.in.Resolver.upgradeTools(ctx, recipe, c, p, locked.Steps)
	} else {
		if known {
			was, changed = locked.Steps, true
		}
		machines, complete := l.glibcVersions(recipe, c, p)
		l.warnUnknownGlibc(recipe)
		last := l.in.Lock.LatestFloor(key)
		if known {
			last = locked.EffectiveFloor(c.Source.Glibc)
		}
		key.Floor = nil
		var steps []wire.InstallStep
		steps, key.Floor, err = l.in.Resolver.resolveSteps(ctx, recipe, c, p, lockfile.InitialGlibc(c.Source.Glibc, machines, complete, last), fresh)
		locked = key
		locked.Steps = steps
	}
	if err != nil {
		var none *NoSolutionError
		if err = (&plan.LookupError{Err: err}); errors.As(err, &none) {
			err = none
		}
		l.failed[name] = err
		return locked, err
	}
	l.in.Lock.SetSteps(locked, locked.Steps)
	if changed {
		l.recordFileChanges(recipe.Type, wish, c.Version, was, locked.Steps)
	}
	return locked, nil
}

// needsOlderGlibc reports whether a locked source has to be resolved again, for the glibc
// of a machine that is older than those it was resolved for.
func (l *Lookup) needsOlderGlibc(recipe *catalog.Recipe, c catalog.Choice, locked *lockfile.Source, p wire.Platform) bool {
	floor := locked.EffectiveFloor(c.Source.Glibc)
	machines, _ := l.glibcVersions(recipe, c, p)
	return slices.ContainsFunc(machines, func(glibc string) bool { return floor.Excludes(glibc) && !floor.TriedFor(glibc) })
}

// warnUnknownGlibc reports hives that want a worker type and whose glibc cannot be read.
func (l *Lookup) warnUnknownGlibc(recipe *catalog.Recipe) {
	for _, m := range l.in.Hives {
		if m.State == nil || m.Extra || m.State.Libc != "glibc" {
			continue
		}
		wants := slices.ContainsFunc(m.Hive.Workers, func(w config.Worker) bool { return w.Type == recipe.Type })
		if _, ok := lockfile.GlibcMinor(m.State.LibcVersion); wants && !ok {
			l.in.Resolver.warn(fmt.Sprintf("cannot read the glibc version of %s: resolving %s for the oldest that the recipe allows", m.Hive.Alias, recipe.Type))
		}
	}
}

// glibcVersions are the versions of glibc of the machines that may get a source: all hives of
// the config that want the version, or one that is not known, or a range. complete
// tells that each of them is known.
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
				complete = false // a glibc that cannot be read
			}
		}
	}
	return machines, complete
}

// recordFileChanges notes that a version consists of other files from now on.
func (l *Lookup) recordFileChanges(typ, wish, version string, was, now []wire.InstallStep) {
	if wire.Digest(was, "") == wire.Digest(now, "") {
		return
	}
	u := operations.Upgrade{Worker: typ, Requested: wish}
	if u.From, u.To = lockfile.ChangedFiles(version, was, now); !slices.Contains(l.Moved, u) {
		l.Moved = append(l.Moved, u)
	}
}

// Variants is what a wish comes to with every source for a platform.
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
		filled, err := s.Fill(version, p, filepath.Dir(recipe.File))
		want := plan.DesiredWorker{Err: err}
		if err == nil {
			want = l.resolveChoice(ctx, recipe, catalog.Choice{Version: version, Source: filled, Index: i}, w.Version, p)
		}
		all = append(all, want)
	}
	if len(all) == 0 {
		all = append(all, plan.DesiredWorker{Err: &catalog.NoPlatformError{Type: w.Type, Version: version, Platform: p, Known: []string{"other platforms"}}})
	}
	return all
}
