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
	in       Lookups
	opts     PlanOptions
	versions map[[2]string]versionOrErr
	failed   map[string]error     // steps that cannot be had
	moved    []operations.Upgrade // versions whose files are others, as the recipe's steps are
}

type versionOrErr struct {
	version string
	err     error
}

// Lookups is what looking up needs to know.
type Lookups struct {
	// Hives are those that were read or could not be, and Config all of the config.
	Hives  []HiveState
	Config []Hive

	Catalog *Catalog
	Lock    *Lock

	// Resolver asks the origins; FromBundle says that it must not be asked.
	Resolver   *resolver
	FromBundle bool

	// Version is the version of rbee that hives shall have; may be empty.
	Version string
}

// newLookup begins to look up.
func newLookup(in Lookups, o PlanOptions) *lookup {
	var platforms []Platform
	for _, h := range in.Hives {
		if h.State != nil && !h.Extra && !slices.Contains(platforms, h.State.Platform) {
			platforms = append(platforms, h.State.Platform)
		}
	}
	in.Resolver.begin(platforms)
	return &lookup{in: in, opts: o, versions: map[[2]string]versionOrErr{}, failed: map[string]error{}}
}

// worker is what one hive's wish comes to.
func (l *lookup) worker(ctx context.Context, hive string, w Worker, s *State, want Want) WorkerWant {
	recipe, ok := l.in.Catalog.Recipe(w.Type)
	if !ok {
		hint := ""
		if near := l.in.Catalog.Nearest(w.Type); near != "" {
			hint = fmt.Sprintf(", did you mean '%s'?", near)
		}
		return WorkerWant{Err: fmt.Errorf("unknown worker type '%s'%s", w.Type, hint)}
	}
	binary := want.Binaries[s.Platform.Key()]
	rbeeVersion := cmp.Or(binary.Version, l.in.Version)
	machine := machineOf(s)
	hold, held := l.in.Lock.held(hive, w.Type)
	stays := held && l.stays(hold, w)
	version, err := hold.Version, error(nil)
	if stays {
		l.in.Lock.madeFor(hold, w.Version)
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
	for _, m := range l.in.Hives {
		if m.State == nil || m.Extra {
			continue
		}
		for _, w := range m.Hive.Workers {
			hold, held := l.in.Lock.held(m.Hive.Alias, w.Type)
			if w.Type != recipe.Type || w.Version != wish || held && l.stays(hold, w) || adopted(m.State, w) && !l.opts.Force {
				continue
			}
			add(m.Hive.Alias, machineOf(m.State))
		}
	}
	if len(all) == 0 {
		add(platform.Key(), Machine{Platform: platform})
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
		l.in.Lock.setWorker(recipe.Type, wish, choice.Version, time.Now())
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
		case o.File != "" && !l.in.FromBundle:
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
	lock := l.in.Lock
	locked, ok := lock.worker(recipe.Type, wish)
	switch {
	case ok && !l.upgrades(recipe.Type):
		return locked.Version, nil
	case !l.opts.Fetch:
		return "", ErrNotLocked
	case l.in.FromBundle:
		return "", at(recipe, recipe.Versions.Pos, fmt.Errorf("the bundle holds no %s %s", recipe.Type, wish))
	}
	version, err := l.in.Resolver.version(ctx, recipe, wish, l.needs(recipe, wish, p), func(version string) error {
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
	key := sourceKey(recipe, c, p)
	if c.Source.pinned() && (!l.in.FromBundle || !c.Source.here()) {
		steps, err := l.in.Resolver.pinned(recipe, c)
		if err == nil && c.Source.here() {
			l.in.Lock.remember(key, steps) // for a bundle, which goes where these files are not
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
	for _, m := range l.in.Hives {
		if m.State == nil || m.Extra {
			continue
		}
		if slices.ContainsFunc(m.Hive.Workers, func(w Worker) bool { return w.Type == recipe.Type && w.Version == wish }) {
			machines = append(machines, machineOf(m.State))
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
		Platform: p.Name(), Recipe: stepsDigest(&recipe.Sources[c.index]),
	}
}

// source is what the lock has of a chosen source. Where it has nothing, or nothing that
// was resolved for a glibc as old as the machines', the source is resolved.
func (l *lookup) source(ctx context.Context, recipe *Recipe, c Choice, wish string, p Platform) (LockedSource, error) {
	key := sourceKey(recipe, c, p)
	locked, known := l.in.Lock.source(key, func(steps []wire.InstallStep) bool { return mayBeSource(&c.Source, recipe.Versions, p, steps) })
	was, changed := l.in.Lock.outdated(key)
	fresh := l.opts.Fetch && !l.in.FromBundle && l.upgrades(recipe.Type)
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
	case l.in.FromBundle && older:
		return locked, nil
	case l.in.FromBundle:
		return locked, at(recipe, c.Source.Pos, fmt.Errorf("the bundle holds no %s %s for %s", recipe.Type, c.Version, key.Platform))
	}
	name := fmt.Sprint(key)
	if err := l.failed[name]; err != nil {
		return locked, err
	}
	var err error
	if known && !older {
		err = l.in.Resolver.retool(ctx, recipe, c, p, locked.Steps)
	} else {
		if known {
			was, changed = locked.Steps, true
		}
		machines, complete := l.glibcs(recipe, c, p)
		l.warnUnreadable(recipe)
		last := l.in.Lock.lastFloor(key)
		if known {
			last = locked.floorOf(c.Source.Glibc)
		}
		key.Floor = nil
		var steps []wire.InstallStep
		steps, key.Floor, err = l.in.Resolver.steps(ctx, recipe, c, p, floorStart(c.Source.Glibc, machines, complete, last), fresh)
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
	l.in.Lock.setSteps(locked, locked.Steps)
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
	for _, m := range l.in.Hives {
		if m.State == nil || m.Extra || m.State.Libc != "glibc" {
			continue
		}
		wants := slices.ContainsFunc(m.Hive.Workers, func(w Worker) bool { return w.Type == recipe.Type })
		if _, ok := minorOf(m.State.LibcVersion); wants && !ok {
			l.in.Resolver.warn(fmt.Sprintf("cannot read the glibc version of %s: resolving %s for the oldest that the recipe allows", m.Hive.Alias, recipe.Type))
		}
	}
}

// glibcs are the versions of glibc of the machines that may get a source: all hives of
// the config that want the version, or one that is not known, or a range. complete
// tells that each of them is known.
func (l *lookup) glibcs(recipe *Recipe, c Choice, p Platform) (machines []string, complete bool) {
	complete = true
	states := map[string]*State{}
	for _, m := range l.in.Hives {
		if !m.Extra && m.State != nil {
			states[m.Hive.Alias] = m.State
		}
	}
	for _, h := range l.in.Config {
		i := slices.IndexFunc(h.Workers, func(w Worker) bool { return w.Type == recipe.Type })
		if i < 0 || exactWish(h.Workers[i].Version) && !wishes(h.Workers[i].Version, c.Version) {
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

// variants is what a wish comes to with every source for a platform.
func (l *lookup) variants(ctx context.Context, w Worker, p Platform) []WorkerWant {
	recipe, ok := l.in.Catalog.Recipe(w.Type)
	if !ok {
		return []WorkerWant{{Err: fmt.Errorf("unknown worker type '%s'", w.Type)}}
	}
	version, err := l.version(ctx, recipe, w.Version, p, l.in.Version)
	if err != nil {
		return []WorkerWant{{Err: err}}
	}
	var all []WorkerWant
	for i := range recipe.Sources {
		s := &recipe.Sources[i]
		if !recipe.has(s, version, l.in.Version) || !s.fitsPlatform(p) {
			continue
		}
		filled, err := s.fill(version, p, filepath.Dir(recipe.File))
		want := WorkerWant{Err: err}
		if err == nil {
			want = l.chosen(ctx, recipe, Choice{Version: version, Source: filled, index: i}, w.Version, p)
		}
		all = append(all, want)
	}
	if len(all) == 0 {
		all = append(all, WorkerWant{Err: &NoPlatformError{Type: w.Type, Version: version, Platform: p, Known: []string{"other platforms"}}})
	}
	return all
}
