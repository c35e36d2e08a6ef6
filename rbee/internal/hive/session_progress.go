package hive

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/atomicfile"
)

// beat repeats the last report of the step with this index until stop.
func (s *session) beat(index int, action wire.Action) (stop func()) {
	var first *wire.Progress
	switch action {
	case wire.ActionRemoveWorker, wire.ActionRemoveSelf:
		first = &wire.Progress{Index: index, Phase: wire.PhaseRemove, Unit: wire.UnitFiles}
	}
	s.heartbeat.reset(first)
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(progressBeat)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if p := s.heartbeat.due(); p != nil {
					s.send(wire.Message{Progress: p})
				}
			case <-ended:
				return
			}
		}
	})
	return func() {
		close(ended)
		wg.Wait()
	}
}

// begin reports that a phase begins.
func (s *session) begin(p wire.Progress) *phase {
	return newPhase(s.send, p)
}

// silent returns a phase that reports nothing before the first progressEvery has
// passed, for work that is usually short.
func (s *session) silent(p wire.Progress) *phase {
	return newSilentPhase(s.send, p)
}

// removing returns the phase in which the step with this index removes files.
func (s *session) removing(index int) *phase {
	return s.silent(wire.Progress{Index: index, Phase: wire.PhaseRemove, Unit: wire.UnitFiles})
}

// checking returns a context in which the step with this index checks files.
func (s *session) checking(ctx context.Context, index int) context.Context {
	return withPhase(ctx, s.silent(wire.Progress{Index: index, Phase: wire.PhaseCheck, Unit: wire.UnitFiles}))
}

// expectBuild adds the files of the build in dir to those that ph, which may be nil, will
// remove.
func expectBuild(ph *phase, dir string) {
	var m Manifest
	if ph == nil || atomicfile.ReadJSON(filepath.Join(dir, manifestName), &m) != nil {
		return
	}
	ph.addTotal(int64(max(m.FileCount, len(m.Files))))
}
