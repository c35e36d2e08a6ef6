package pkgmgr

import (
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// remoteProgress emits what the machine reports about step i of the plan.
func (s *session) remoteProgress(i int, p *wire.Progress) {
	step := s.steps[i]
	s.fleet.emit(operations.Event{
		Type: operations.EventProgress, Hive: s.member.hive.Alias, Step: &step,
		StepPhase: operations.StepPhase(p.Phase),
		Bytes:     p.Bytes, Total: p.Total, Count: p.Count, CountTotal: p.CountTotal, Unit: string(p.Unit),
	})
}

// fetching emits that the artifact sum of step i is being fetched to this machine,
// which sends it afterwards.
func (s *session) fetching(i int, sum string) {
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
