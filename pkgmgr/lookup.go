package pkgmgr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// ErrNotLocked says that what a wish stands for is not known, and was not to be
// looked up.
var ErrNotLocked = errors.New("it is not in the lock yet; sync puts it there")

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
	failed   map[string]error // steps that cannot be had
}

type versionOrErr struct {
	version string
	err     error
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
	machine := Machine{Platform: s.Platform, Devices: s.Devices, DevicesKnown: s.DevicesKnown}
	hold, held := f.opts.Lock.held(hive, w.Type)
	stays := held && hold.Requested == w.Version && !l.upgrades(w.Type)
	version, err := hold.Version, error(nil)
	if !stays {
		version, err = l.version(ctx, recipe, w.Version, s.Platform, rbeeVersion)
	}
	if errors.Is(err, ErrNotLocked) {
		// Whether anything fits can be told without knowing the version.
		if _, unfit := recipe.Choose("", machine, rbeeVersion); unfit != nil {
			err = unfit
		}
	}
	if err != nil {
		return WorkerWant{Err: err, Needs: recipe.Needs}
	}
	choice, err := recipe.Choose(version, machine, rbeeVersion)
	if err != nil {
		return WorkerWant{Err: err, Needs: recipe.Needs}
	}
	out := l.chosen(ctx, recipe, choice, w.Version, s.Platform)
	out.Held, out.EndsHold = stays, held && !stays
	for i := range out.Steps {
		if out.Steps[i].Kind == wire.StepBuiltin {
			out.SHA256 = binary.SHA256
		}
	}
	return out
}

// chosen is what a wish comes to with the source that was chosen for it.
func (l *lookup) chosen(ctx context.Context, recipe *Recipe, choice Choice, wish string, p Platform) WorkerWant {
	steps, err := l.steps(ctx, recipe, choice, p)
	if err != nil {
		return WorkerWant{Err: fmt.Errorf("worker '%s': %w", recipe.Type, err), Needs: recipe.Needs}
	}
	lock := l.fleet.opts.Lock
	if known, ok := l.versions[[2]string{recipe.Type, wish}]; ok && known.version == choice.Version {
		lock.setWorker(recipe.Type, wish, choice.Version, time.Now())
	}
	out := WorkerWant{
		Version: choice.Version, Variant: choice.Source.Name, Reason: choice.Reason, Launch: recipe.Launch(&choice.Source), Needs: recipe.Needs,
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
		return "", fmt.Errorf("the bundle holds no %s %s", recipe.Type, wish)
	}
	version, err := l.fleet.resolver.version(ctx, recipe, wish, p)
	if err != nil {
		return "", &LookupError{at(recipe, recipe.Versions.Pos, err)}
	}
	if ok && CompareVersions(version, locked.Version) < 0 {
		version = locked.Version
	}
	return version, nil
}

// steps are what a chosen source consists of: by the recipe itself, by the lock,
// or asked for now.
func (l *lookup) steps(ctx context.Context, recipe *Recipe, c Choice, p Platform) ([]wire.InstallStep, error) {
	f := l.fleet
	key := LockedSource{
		Type: recipe.Type, Version: c.Version, Source: cmp.Or(c.Source.Name, "source "+strconv.Itoa(c.index+1)),
		Platform: platformName(p.OS, p.Arch, p.Libc), Recipe: recipeDigest(&recipe.Sources[c.index]),
	}
	if c.Source.pinned() && (f.opts.Bundle == nil || !c.Source.here()) {
		steps, err := f.resolver.pinned(recipe, c)
		if err == nil && c.Source.here() {
			f.opts.Lock.remember(key, steps) // for a bundle, which goes where these files are not
		}
		return steps, err
	}
	if steps, ok := f.opts.Lock.steps(key); ok {
		return steps, nil
	}
	if !l.opts.Fetch {
		return nil, ErrNotLocked
	}
	if f.opts.Bundle != nil {
		return nil, fmt.Errorf("the bundle holds no %s %s for %s", recipe.Type, c.Version, key.Platform)
	}
	name := fmt.Sprint(key)
	if err := l.failed[name]; err != nil {
		return nil, err
	}
	steps, err := f.resolver.steps(ctx, recipe, c, p)
	if err != nil {
		l.failed[name] = &LookupError{err}
		return nil, l.failed[name]
	}
	f.opts.Lock.setSteps(key, steps)
	return steps, nil
}
