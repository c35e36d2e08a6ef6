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

// fillDownloads sets DownloadBytes of the steps that install workers.
func (f *Fleet) fillDownloads(p *plan.Plan) {
	for i := range p.Steps {
		step := &p.Steps[i]
		install := p.Installs[step.Digest]
		if install == nil {
			continue
		}
		state := f.stateOf(step.Hive)
		steps := f.hiveSteps(state, install)
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

// stateOf returns the state of a hive, or nil if it was not read.
func (f *Fleet) stateOf(alias string) *wire.State {
	for _, m := range f.members {
		if m.hive.Alias == alias {
			return m.state
		}
	}
	return nil
}

// hiveSteps returns the steps in the form that is sent to a hive. Artifacts that this
// machine sends to the hive have no URL.
func (f *Fleet) hiveSteps(s *wire.State, install *plan.Install) []wire.InstallStep {
	steps := lockfile.CloneSteps(install.Steps)
	dir := f.recipeDir(install)
	for i := range steps {
		if at := steps[i].Position; at != "" {
			steps[i].Position = dir + at
		}
		for _, a := range steps[i].Artifacts() {
			f.restoreURL(s, install, a)
			if f.opts.Push || f.opts.Bundle != nil || slices.Contains(install.Unstable, a.SHA256) || f.client.HasCredentials(a.URL) {
				a.URL = ""
			}
			a.URL = f.client.MirrorURL(a.URL)
		}
	}
	return steps
}

// restoreURL sets the URL of a private artifact from the recipe, because the URL in the plan
// lacks its query and credentials. The URL is empty if the recipe is not available.
func (f *Fleet) restoreURL(s *wire.State, install *plan.Install, a *wire.Artifact) {
	if !slices.Contains(install.Private, a.SHA256) {
		return
	}
	a.URL = ""
	if s == nil {
		return
	}
	f.forEachOrigin(s.Platform, install, func(o catalog.Origin) bool {
		if o.URL != "" && strings.EqualFold(o.SHA256, a.SHA256) {
			a.URL = o.URL
		}
		return a.URL != ""
	})
}

// forEachOrigin calls visit for each origin in the recipe of an installation until visit
// returns true.
func (f *Fleet) forEachOrigin(p wire.Platform, install *plan.Install, visit func(catalog.Origin) bool) {
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
			if visit(step.Origin) {
				return
			}
		}
	}
}

// recipeDir returns the directory of the recipe of an installation with a trailing slash,
// for messages. It is empty if the catalog has no such recipe.
func (f *Fleet) recipeDir(install *plan.Install) string {
	recipe, ok := f.opts.Catalog.Recipe(install.Type)
	if !ok {
		return ""
	}
	return strings.TrimSuffix(recipe.File, filepath.Base(recipe.File))
}

// localFile returns the path of an artifact that the recipe reads from a file on this
// machine. It is empty for other artifacts.
func (f *Fleet) localFile(p wire.Platform, install *plan.Install, a *wire.Artifact) string {
	if a.URL != "" || f.opts.Bundle != nil {
		return ""
	}
	path := ""
	f.forEachOrigin(p, install, func(o catalog.Origin) bool {
		if o.File != "" && filepath.Base(o.File) == a.Name {
			if sum, _, err := f.artifacts.Sum(o.File, a.SHA256); err == nil && sum == a.SHA256 {
				path = o.File
			}
		}
		return path != ""
	})
	return path
}

// openArtifact opens the artifact with SHA-256 sum, which a machine requested, and reports
// whether it is compressed with gzip. Errors start with the position in the recipe, as do
// errors from the machine.
func (f *Fleet) openArtifact(ctx context.Context, s *wire.State, install *plan.Install, sum string) (*os.File, bool, error) {
	if install == nil {
		return nil, false, fmt.Errorf("the machine requested artifact %s for a step that installs nothing", sum)
	}
	for i := range install.Steps {
		step := &install.Steps[i]
		for _, a := range step.Artifacts() {
			if a.SHA256 != sum {
				continue
			}
			complete := *a
			f.restoreURL(s, install, &complete)
			compress := step.Kind == wire.StepFile // archives and wheels are already compressed
			file, gzipped, err := f.artifacts.Open(ctx, complete, f.localFile(s.Platform, install, a), compress)
			if err != nil && step.Position != "" && ctx.Err() == nil {
				err = fmt.Errorf("%s%s: %w", f.recipeDir(install), step.Position, err)
			}
			return file, gzipped, err
		}
	}
	return nil, false, fmt.Errorf("the machine requested artifact %s, which the step does not contain", sum)
}

// send sends the artifact with SHA-256 sum of step i to the machine. If the artifact cannot
// be read, send reports that to the machine, which continues with the next step.
func (s *stepRunner) send(ctx context.Context, in io.Writer, i int, sum string) error {
	s.emitFetch(i, sum)
	f, gzipped, err := s.fleet.openArtifact(ctx, s.member.state, s.plan.Installs[s.steps[i].Digest], sum)
	if err != nil {
		s.failed[i] = err
		if sendErr := wire.SendBlob(in, failingReader{err}, false); !errors.Is(sendErr, err) {
			return sendErr
		}
		return ctx.Err()
	}
	defer f.Close()
	release, err := s.fleet.acquireUploadSlot(ctx)
	if err != nil {
		return err
	}
	defer release()
	size := int64(0)
	if info, err := f.Stat(); err == nil {
		size = info.Size()
	}
	return wire.SendBlob(in, s.countSent(i, f, size), gzipped)
}
