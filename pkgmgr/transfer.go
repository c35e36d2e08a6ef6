package pkgmgr

import (
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// fillDownloads sets the DownloadBytes of the steps that install workers.
func (f *Fleet) fillDownloads(changes *operations.Plan) {
	for i := range changes.Steps {
		step := &changes.Steps[i]
		if step.Action != operations.ActionInstallWorker && step.Action != operations.ActionUpdateWorker {
			continue
		}
		steps, state := f.sent(f.want.Workers[plan.WorkerKey{Hive: step.Hive, Type: step.Worker}]), f.stateOf(step.Hive)
		step.DownloadBytes = 0
		for j := range steps {
			for _, a := range steps[j].Artefacts() {
				if a.URL != "" && !plan.InCache(steps[j].Kind, a, state) {
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
