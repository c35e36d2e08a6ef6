package pkgmgr

import (
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// emitProgress emits the progress that the machine reports for step i of the plan.
func (s *stepRunner) emitProgress(i int, p *wire.Progress) {
	step := s.steps[i]
	s.fleet.emit(operations.Event{
		Type: operations.EventProgress, Hive: s.member.hive.Alias, Step: &step,
		StepPhase: operations.StepPhase(p.Phase),
		Bytes:     p.Bytes, Total: p.Total, Count: p.Count, CountTotal: p.CountTotal, Unit: string(p.Unit),
	})
}

// emitFetch emits a progress event that this machine fetches the artifact with SHA-256 sum,
// to send it to the hive for step i.
func (s *stepRunner) emitFetch(i int, sum string) {
	step := s.steps[i]
	install := s.plan.Installs[step.Digest]
	if install == nil {
		return
	}
	e := operations.Event{
		Type: operations.EventProgress, Hive: s.member.hive.Alias, Step: &step, StepPhase: operations.StepPhaseFetch,
	}
	for i := range install.Steps {
		for _, a := range install.Steps[i].Artifacts() {
			if a.SHA256 == sum {
				e.Total = a.Size
			}
		}
	}
	s.fleet.emit(e)
}
