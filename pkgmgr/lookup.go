package pkgmgr

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
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// ErrNotLocked says that what a wish stands for is not known, and was not to be
// looked up.
var ErrNotLocked = errors.New("it is not in the lock yet; sync puts it there")

// ErrRecipeChanged says that the lock has a version as other steps of the recipe came
// to it, and that these steps were not to be looked up.
var ErrRecipeChanged = errors.New("the recipe's steps are others than those that were locked; sync looks them up anew")

// LookupError says that what a wish stands for, or what it consists of, could not
// be asked for.
type LookupError struct{ Err error }

func (e *LookupError) Error() string { return e.Err.Error() }

// Unwrap gives what went wrong.
func (e *LookupError) Unwrap() error { return e.Err }

// lookup finds out what workers' wishes come to. Each question is asked once,
// however many hives want the answer.
type lookup struct {
	fleet    *Fleet
	opts     PlanOptions
	versions map[[2]string]versionOrErr
	failed   map[string]error     // steps that cannot be had
	moved    []operations.Upgrade // versions whose files are others, as the recipe's steps are
}

type versionOrErr struct {
	version string
	err     error
}

// newLookup begins to look up.
func (f *Fleet) newLookup(o PlanOptions) *lookup {
	var platforms []Platform
	for _, m := range f.members {
		if m.state != nil && !m.extra && !slices.Contains(platforms, m.state.Platform) {
			platforms = append(platforms, m.state.Platform)
		}
	}
	f.resolver.begin(platforms)
	return &lookup{fleet: f, opts: o, versions: map[[2]string]versionOrErr{}, failed: map[string]error{}}
}

// worker is what one hive's wish comes to.
func (l *lookup) worker(ctx context.Context, hive string, w Worker, s *State, want Want) WorkerWant {
	f := l.fleet
	recipe, ok := f.opts.Catalog.Recipe(w.Type)
	if !ok {
		hint := ""
		if near := f.opts.Catalog.Nearest(w.Type); near != "" {
			hint = fmt.Sprintf(", did you mean '%s'?", near)
		}
		return WorkerWant{Err: fmt.Errorf("unknown worker type '%s'%s", w.Type, hint)}
	}
	binary := want.Binaries[PlatformKey(s.Platform)]
	rbeeVersion := cmp.Or(binary.Version, f.opts.Version)
	machine := machineOf(s)
	hold, held := f.opts.Lock.held(hive, w.Type)
	stays := held && l.stays(hold, w)
	version, err := hold.Version, error(nil)
	if stays {
		f.opts.Lock.madeFor(hold, w.Version)
	} else {
		version, err = l.version(ctx, recipe, w.Version, s.Platform, rbeeVersion)
	}
	if errors.Is(err, ErrNotLocked) {
		// Whether anything fits can be told without knowing the version.
		if _, unfit := recipe.Choose("", machine, rbeeVersion); unfit != nil {
			err = unfit
		}
	}
	if err != nil {
		return WorkerWant{Err: err, Needs: recipe.Needs, Indirect: recipe.Versions.indirect(w.Version)}
	}
	choice, err := recipe.Choose(version, machine, rbeeVersion)
	if err != nil {
		return WorkerWant{Err: err, Needs: recipe.Needs, Indirect: recipe.Versions.indirect(w.Version)}
	}
	out := l.chosen(ctx, recipe, choice, w.Version, s.Platform)
	out.Warning = cpuWarning(w.Type, recipe.onlyCPU(choice, machine, rbeeVersion))
	out.Held, out.EndsHold = stays, held && !stays
	for i := range out.Steps {
		if out.Steps[i].Kind == wire.StepBuiltin {
			out.SHA256 = binary.SHA256
		}
	}
	return out
}

func machineOf(s *State) Machine {
	return Machine{Platform: s.Platform, Devices: s.Devices, DevicesKnown: s.DevicesKnown, Libraries: s.Libraries, ROCm: s.ROCm}
}

// stays reports whether a hold counts. One from before holds had a wish is for
// whatever wish it meets first.
func (l *lookup) stays(h Hold, w Worker) bool {
	return (h.Requested == "" || h.Requested == w.Version) && !l.upgrades(w.Type)
}

// needs are what the machines take from a release that have a wish; platform is one
// that has it although it is not known which machine.
func (l *lookup) needs(recipe *Recipe, wish string, platform Platform) []need {
	var all []need
	add := func(who string, m Machine) {
		// What fits no version is told so, and does not count.
		if _, err := recipe.Choose("", m, ""); err == nil || errors.Is(err, ErrDevicesUnknown) {
			all = append(all, need{who, recipe.needOf(m)})
		}
	}
	for _, m := range l.fleet.members {
		if m.state == nil || m.extra {
			continue
		}
		for _, w := range m.hive.Workers {
			hold, held := l.fleet.opts.Lock.held(m.hive.Alias, w.Type)
			if w.Type != recipe.Type || w.Version != wish || held && l.stays(hold, w) || adopted(m.state, w) && !l.opts.Force {
				continue
			}
			add(m.hive.Alias, machineOf(m.state))
		}
	}
	if len(all) == 0 {
		add(PlatformKey(platform), Machine{Platform: platform})
	}
	return all
}

// needOf gives the source that a machine takes, or those for its platform where its
// accelerators decide and are not known.
func (r *Recipe) needOf(m Machine) func(version string) ([]Source, error) {
	return func(version string) ([]Source, error) {
		choice, err := r.Choose(version, m, "")
		var unfit *UnfitError
		switch {
		case errors.As(err, &unfit):
			return nil, nil
		case err == nil:
			return []Source{choice.Source}, nil
		case !errors.Is(err, ErrDevicesUnknown):
			return nil, err
		}
		var all []Source
		for i := range r.Sources {
			if s := &r.Sources[i]; r.has(s, version, "") && s.fitsPlatform(m.Platform) {
				filled, err := s.fill(version, m.Platform, filepath.Dir(r.File))
				if err != nil {
					return nil, err
				}
				all = append(all, filled)
			}
		}
		return all, nil
	}
}

// chosen is what a wish comes to with the source that was chosen for it.
func (l *lookup) chosen(ctx context.Context, recipe *Recipe, choice Choice, wish string, p Platform) WorkerWant {
	steps, err := l.steps(ctx, recipe, choice, wish, p)
	var old *GlibcError // the version is resolved, for other machines
	if known, ok := l.versions[[2]string{recipe.Type, wish}]; ok && known.version == choice.Version && (err == nil || errors.As(err, &old)) {
		l.fleet.opts.Lock.setWorker(recipe.Type, wish, choice.Version, time.Now())
	}
	if err != nil {
		return WorkerWant{Err: err, Needs: recipe.Needs, Indirect: recipe.Versions.indirect(wish)}
	}
	out := WorkerWant{
		Version: choice.Version, Variant: choice.Source.Name, Reason: choice.Reason, Launch: recipe.Launch(&choice.Source), Verify: recipe.verification(&choice.Source), Needs: recipe.Needs,
		Steps: steps, Entry: choice.Source.Entry, SHA256: wire.Digest(steps, choice.Source.Entry), Files: map[string]string{}, Unsure: map[string]bool{},
	}
	for i, step := range choice.Source.Steps {
		steps[i].At = place(recipe, step.Pos)
		switch o := step.Origin; {
		case o.File != "" && l.fleet.opts.Bundle == nil:
			out.Files[steps[i].Artefact.SHA256] = o.File
		case o.Code, o.URL != "" && o.SHA256 == "":
			out.Unsure[steps[i].Artefact.SHA256] = true
		}
	}
	return out
}

// upgrades reports whether newer versions of a type are looked for.
func (l *lookup) upgrades(typ string) bool {
	return l.opts.Upgrade && (len(l.opts.UpgradeTypes) == 0 || slices.Contains(l.opts.UpgradeTypes, typ))
}

// version is the exact version that a wish comes to.
func (l *lookup) version(ctx context.Context, recipe *Recipe, wish string, p Platform, rbeeVersion string) (string, error) {
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

func (l *lookup) newest(ctx context.Context, recipe *Recipe, wish string, p Platform) (string, error) {
	lock := l.fleet.opts.Lock
	locked, ok := lock.worker(recipe.Type, wish)
	switch {
	case ok && !l.upgrades(recipe.Type):
		return locked.Version, nil
	case !l.opts.Fetch:
		return "", ErrNotLocked
	case l.fleet.opts.Bundle != nil:
		return "", at(recipe, recipe.Versions.Pos, fmt.Errorf("the bundle holds no %s %s", recipe.Type, wish))
	}
	version, err := l.fleet.resolver.version(ctx, recipe, wish, l.needs(recipe, wish, p), func(version string) error {
		return l.solvable(ctx, recipe, wish, version, p)
	})
	var located *LookupError // of a step
	switch {
	case errors.As(err, &located):
		return "", located
	case err != nil:
		return "", &LookupError{at(recipe, recipe.Versions.Pos, err)}
	}
	if ok && CompareVersions(version, locked.Version) < 0 {
		version = locked.Version
	}
	return version, nil
}

// steps are what a chosen source consists of: by the recipe itself, by the lock,
// or asked for now. The error is a [*GlibcError] if that does not run with the glibc of
// the platform.
func (l *lookup) steps(ctx context.Context, recipe *Recipe, c Choice, wish string, p Platform) ([]wire.InstallStep, error) {
	f := l.fleet
	key := sourceKey(recipe, c, p)
	if c.Source.pinned() && (f.opts.Bundle == nil || !c.Source.here()) {
		steps, err := f.resolver.pinned(recipe, c)
		if err == nil && c.Source.here() {
			f.opts.Lock.remember(key, steps) // for a bundle, which goes where these files are not
		}
		return steps, err
	}
	locked, err := l.source(ctx, recipe, c, wish, p)
	if err != nil {
		return nil, err
	}
	if c.Source.hasPython() && p.Libc == "glibc" {
		if floor := locked.floorOf(c.Source.Glibc); floor.below(p.LibcVersion) {
			return nil, &GlibcError{recipe.Type, c.Version, floor.NeededBy, floor.Glibc, p.LibcVersion}
		}
	}
	return locked.Steps, nil
}

// solvable resolves a version for the machines that have a wish, unless the lock has
// it. The error is a [*NoSolutionError] if none of the sources that they would get has
// a solution; a version that some of them can have is taken.
func (l *lookup) solvable(ctx context.Context, recipe *Recipe, wish, version string, platform Platform) error {
	machines := []Machine{}
	for _, m := range l.fleet.members {
		if m.state == nil || m.extra {
			continue
		}
		if slices.ContainsFunc(m.hive.Workers, func(w Worker) bool { return w.Type == recipe.Type && w.Version == wish }) {
			machines = append(machines, machineOf(m.state))
		}
	}
	if len(machines) == 0 {
		machines = append(machines, Machine{Platform: platform})
	}
	var first error
	for _, m := range machines {
		c, err := recipe.Choose(version, m, "")
		if err != nil || !c.Source.hasPython() {
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
func sourceKey(recipe *Recipe, c Choice, p Platform) LockedSource {
	return LockedSource{
		Type: recipe.Type, Version: c.Version, Source: cmp.Or(c.Source.Name, "source "+strconv.Itoa(c.index+1)),
		Platform: platformName(p.OS, p.Arch, p.Libc), Recipe: stepsDigest(&recipe.Sources[c.index]),
	}
}

// source is what the lock has of a chosen source. Where it has nothing, or nothing that
// was resolved for a glibc as old as the machines', the source is resolved.
func (l *lookup) source(ctx context.Context, recipe *Recipe, c Choice, wish string, p Platform) (LockedSource, error) {
	f := l.fleet
	key := sourceKey(recipe, c, p)
	locked, known := f.opts.Lock.source(key, func(steps []wire.InstallStep) bool { return c.Source.mayBe(recipe.Versions, p, steps) })
	was, changed := f.opts.Lock.outdated(key)
	fresh := l.opts.Fetch && f.opts.Bundle == nil && l.upgrades(recipe.Type)
	older := known && c.Source.hasPython() && p.Libc == "glibc" && l.olderGlibc(recipe, c, &locked, p)
	switch {
	case known && !fresh && !older:
		return locked, nil
	case !l.opts.Fetch && changed:
		return locked, ErrRecipeChanged
	case !l.opts.Fetch && older:
		if floor := locked.floorOf(c.Source.Glibc); floor.below(p.LibcVersion) && !floor.triedFor(p.LibcVersion) {
			return locked, ErrNotLocked
		}
		return locked, nil
	case !l.opts.Fetch:
		return locked, ErrNotLocked
	case f.opts.Bundle != nil && older:
		return locked, nil
	case f.opts.Bundle != nil:
		return locked, at(recipe, c.Source.Pos, fmt.Errorf("the bundle holds no %s %s for %s", recipe.Type, c.Version, key.Platform))
	}
	name := fmt.Sprint(key)
	if err := l.failed[name]; err != nil {
		return locked, err
	}
	var err error
	if known && !older {
		err = f.resolver.retool(ctx, recipe, c, p, locked.Steps)
	} else {
		if known {
			was, changed = locked.Steps, true
		}
		machines, complete := l.glibcs(recipe, c, p)
		l.warnUnreadable(recipe)
		last := f.opts.Lock.lastFloor(key)
		if known {
			last = locked.floorOf(c.Source.Glibc)
		}
		key.Floor = nil
		var steps []wire.InstallStep
		steps, key.Floor, err = f.resolver.steps(ctx, recipe, c, p, floorStart(c.Source.Glibc, machines, complete, last), fresh)
		locked = key
		locked.Steps = steps
	}
	if err != nil {
		var none *NoSolutionError
		if err = (&LookupError{err}); errors.As(err, &none) {
			err = none
		}
		l.failed[name] = err
		return locked, err
	}
	f.opts.Lock.setSteps(locked, locked.Steps)
	if changed {
		l.filesMoved(recipe.Type, wish, c.Version, was, locked.Steps)
	}
	return locked, nil
}

// olderGlibc reports whether a locked source has to be resolved again, for the glibc
// of a machine that is older than those it was resolved for.
func (l *lookup) olderGlibc(recipe *Recipe, c Choice, locked *LockedSource, p Platform) bool {
	floor := locked.floorOf(c.Source.Glibc)
	machines, _ := l.glibcs(recipe, c, p)
	return slices.ContainsFunc(machines, func(glibc string) bool { return floor.below(glibc) && !floor.triedFor(glibc) })
}

// warnUnreadable reports hives that want a worker type and whose glibc cannot be read.
func (l *lookup) warnUnreadable(recipe *Recipe) {
	for _, m := range l.fleet.members {
		if m.state == nil || m.extra || m.state.Libc != "glibc" {
			continue
		}
		wants := slices.ContainsFunc(m.hive.Workers, func(w Worker) bool { return w.Type == recipe.Type })
		if _, ok := minorOf(m.state.LibcVersion); wants && !ok {
			l.fleet.resolver.warn(fmt.Sprintf("cannot read the glibc version of %s: resolving %s for the oldest that the recipe allows", m.hive.Alias, recipe.Type))
		}
	}
}

// glibcs are the versions of glibc of the machines that may get a source: all hives of
// the config that want the version, or one that is not known, or a range. complete
// tells that each of them is known.
func (l *lookup) glibcs(recipe *Recipe, c Choice, p Platform) (machines []string, complete bool) {
	complete = true
	states := map[string]*State{}
	for _, m := range l.fleet.members {
		if !m.extra && m.state != nil {
			states[m.hive.Alias] = m.state
		}
	}
	for _, h := range l.fleet.all {
		i := slices.IndexFunc(h.Workers, func(w Worker) bool { return w.Type == recipe.Type })
		if i < 0 || exactWish(h.Workers[i].Version) && !wishes(h.Workers[i].Version, c.Version) {
			continue
		}
		s := states[h.Alias]
		if s == nil {
			complete = false
			continue
		}
		if platformName(s.OS, s.Arch, s.Libc) != platformName(p.OS, p.Arch, p.Libc) {
			continue
		}
		choice, err := recipe.Choose(c.Version, machineOf(s), "")
		switch {
		case errors.Is(err, ErrDevicesUnknown) || err == nil && choice.index == c.index:
			if _, ok := minorOf(s.LibcVersion); ok {
				machines = append(machines, s.LibcVersion)
			} else {
				complete = false // a glibc that cannot be read
			}
		}
	}
	return machines, complete
}

// filesMoved notes that a version consists of other files from now on.
func (l *lookup) filesMoved(typ, wish, version string, was, now []wire.InstallStep) {
	if wire.Digest(was, "") == wire.Digest(now, "") {
		return
	}
	u := operations.Upgrade{Worker: typ, Requested: wish}
	if u.From, u.To = changedFiles(version, was, now); !slices.Contains(l.moved, u) {
		l.moved = append(l.moved, u)
	}
}
