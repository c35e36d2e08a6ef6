package pkgmgr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// fillDownloads sets the DownloadBytes of the steps that install workers.
func (f *Fleet) fillDownloads(p *plan.Plan) {
	for i := range p.Steps {
		step := &p.Steps[i]
		install := p.Installs[step.Digest]
		if install == nil {
			continue
		}
		state := f.stateOf(step.Hive)
		steps := f.sent(state, install)
		step.DownloadBytes = 0
		for j := range steps {
			for _, a := range steps[j].Artifacts() {
				if a.URL != "" && !plan.IsCached(steps[j].Kind, a, state) {
					step.DownloadBytes += a.Size
				}
			}
		}
	}
}

// stateOf returns the state of a hive; nil if it was not read.
func (f *Fleet) stateOf(alias string) *wire.State {
	for _, m := range f.members {
		if m.hive.Alias == alias {
			return m.state
		}
	}
	return nil
}

// sent are the steps as a machine gets them: where this side sends artifacts, they
// have no address.
func (f *Fleet) sent(s *wire.State, install *plan.Install) []wire.InstallStep {
	steps := lockfile.CloneSteps(install.Steps)
	dir := f.recipeDir(install)
	for i := range steps {
		if at := steps[i].At; at != "" {
			steps[i].At = dir + at
		}
		for _, a := range steps[i].Artifacts() {
			f.complete(s, install, a)
			if f.opts.Push || f.opts.Bundle != nil || slices.Contains(install.Unstable, a.SHA256) || f.from.HasCredentials(a.URL) {
				a.URL = ""
			}
			a.URL = f.from.MirrorURL(a.URL)
		}
	}
	return steps
}

// complete restores the address of an artifact that the plan has without what follows the
// path, from the recipe. Without the recipe the address is empty.
func (f *Fleet) complete(s *wire.State, install *plan.Install, a *wire.Artifact) {
	if !slices.Contains(install.Private, a.SHA256) {
		return
	}
	a.URL = ""
	if s == nil {
		return
	}
	f.origins(s.Platform, install, func(o catalog.Origin) bool {
		if o.URL != "" && strings.EqualFold(o.SHA256, a.SHA256) {
			a.URL = o.URL
		}
		return a.URL != ""
	})
}

// origins calls found for each origin of the recipe of an installation, until it returns
// true.
func (f *Fleet) origins(p wire.Platform, install *plan.Install, found func(catalog.Origin) bool) {
	recipe, ok := f.opts.Catalog.Recipe(install.Type)
	if !ok {
		return
	}
	for i := range recipe.Sources {
		source, err := recipe.Sources[i].Fill(install.Version, p, filepath.Dir(recipe.File))
		if err != nil {
			continue
		}
		for _, step := range source.Steps {
			if found(step.Origin) {
				return
			}
		}
	}
}

// recipeDir returns the directory of the recipe of an installation, with a slash, for
// messages; empty if this catalog has none.
func (f *Fleet) recipeDir(install *plan.Install) string {
	recipe, ok := f.opts.Catalog.Recipe(install.Type)
	if !ok {
		return ""
	}
	return strings.TrimSuffix(recipe.File, filepath.Base(recipe.File))
}

// localFile returns the path of the file on this machine that has an artifact, by the
// recipe of the installation; empty if the artifact comes from elsewhere.
func (f *Fleet) localFile(p wire.Platform, install *plan.Install, a *wire.Artifact) string {
	if a.URL != "" || f.opts.Bundle != nil {
		return ""
	}
	path := ""
	f.origins(p, install, func(o catalog.Origin) bool {
		if o.File != "" && filepath.Base(o.File) == a.Name {
			if sum, _, err := f.artifacts.Sum(o.File, a.SHA256); err == nil && sum == a.SHA256 {
				path = o.File
			}
		}
		return path != ""
	})
	return path
}

// openNeeded opens the artifact that a machine asks for. Errors begin with the place
// in the recipe, as the machine's own do.
func (f *Fleet) openNeeded(ctx context.Context, s *wire.State, install *plan.Install, sum string) (*os.File, bool, error) {
	if install == nil {
		return nil, false, fmt.Errorf("the machine asks for an artifact %s of a step that installs nothing", sum)
	}
	for i := range install.Steps {
		step := &install.Steps[i]
		for _, a := range step.Artifacts() {
			if a.SHA256 != sum {
				continue
			}
			// An archive is packed already, and so is a wheel.
			want := *a
			f.complete(s, install, &want)
			file, gzipped, err := f.artifacts.Open(ctx, want, f.localFile(s.Platform, install, a), step.Kind == wire.StepFile)
			if err != nil && step.At != "" && ctx.Err() == nil {
				err = fmt.Errorf("%s%s: %w", f.recipeDir(install), step.At, err)
			}
			return file, gzipped, err
		}
	}
	return nil, false, fmt.Errorf("the machine asks for an artifact %s, which is not one of the step's", sum)
}

// send sends an artifact of a step. One that cannot be read fails that step alone:
// the machine is told, and goes on with the next.
func (s *session) send(ctx context.Context, in io.Writer, i int, sum string) error {
	s.fetching(i, sum)
	f, gzipped, err := s.fleet.openNeeded(ctx, s.member.state, s.plan.Installs[s.steps[i].Digest], sum)
	if err != nil {
		s.failed[i] = err
		if sent := wire.SendBlob(in, failingReader{err}, false); !errors.Is(sent, err) {
			return sent
		}
		return ctx.Err()
	}
	defer f.Close()
	release, err := s.fleet.uploadSlot(ctx)
	if err != nil {
		return err
	}
	defer release()
	size := int64(0)
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	return wire.SendBlob(in, s.counted(i, f, size), gzipped)
}
