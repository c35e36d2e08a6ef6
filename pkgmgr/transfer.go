package pkgmgr

import (
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
		steps, state := f.sent(install), f.stateOf(step.Hive)
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
