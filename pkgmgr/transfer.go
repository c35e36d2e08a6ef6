package pkgmgr

import (
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// transferBytes returns how many bytes of the artifacts of an install a machine needs,
// and how many it has unpacked in its cache already; as far as sizes are known. A nil s
// has none.
func transferBytes(steps []wire.InstallStep, s *State) (needed, cached int64) {
	for i := range steps {
		for _, a := range steps[i].Artefacts() {
			if inCache(steps[i].Kind, a, s) {
				cached += a.Size
			} else {
				needed += a.Size
			}
		}
	}
	return needed, cached
}

// inCache reports whether a machine has an artifact unpacked in its cache.
func inCache(kind wire.StepKind, a *wire.Artefact, s *State) bool {
	return s != nil && kind == wire.StepPython && slices.Contains(s.Wheels, wire.WheelKey(a.SHA256))
}

// fillDownloads sets the DownloadBytes of the steps that install workers.
func (f *Fleet) fillDownloads(plan *operations.Plan) {
	for i := range plan.Steps {
		step := &plan.Steps[i]
		if step.Action != operations.ActionInstallWorker && step.Action != operations.ActionUpdateWorker {
			continue
		}
		steps, state := f.sent(f.want.Workers[WorkerKey{step.Hive, step.Worker}]), f.stateOf(step.Hive)
		step.DownloadBytes = 0
		for j := range steps {
			for _, a := range steps[j].Artefacts() {
				if a.URL != "" && !inCache(steps[j].Kind, a, state) {
					step.DownloadBytes += a.Size
				}
			}
		}
	}
}

// stateOf returns the state of a hive; nil if it was not read.
func (f *Fleet) stateOf(alias string) *State {
	for _, m := range f.members {
		if m.hive.Alias == alias {
			return m.state
		}
	}
	return nil
}
