package install

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// startHeartbeat repeats the last report of the step with this index until stop.
func (s *stepRunner) startHeartbeat(index int, action wire.Action) (stop func()) {
	var first *wire.Progress
	switch action {
	case wire.ActionRemoveWorker, wire.ActionRemoveSelf:
		first = &wire.Progress{Index: index, Phase: wire.PhaseRemove, Unit: wire.UnitFiles}
	}
	s.heartbeat.Reset(first)
	ended := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(progress.MaxInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if p := s.heartbeat.Due(); p != nil {
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

// startPhase reports that a phase begins.
func (s *stepRunner) startPhase(p wire.Progress) *progress.Phase {
	return progress.New(s.send, p)
}

// silentPhase returns a phase that reports nothing before the first progressEvery has
// passed, for work that is usually short.
func (s *stepRunner) silentPhase(p wire.Progress) *progress.Phase {
	return progress.NewSilent(s.send, p)
}

// removePhase returns the phase in which the step with this index removes files.
func (s *stepRunner) removePhase(index int) *progress.Phase {
	return s.silentPhase(wire.Progress{Index: index, Phase: wire.PhaseRemove, Unit: wire.UnitFiles})
}

// checkContext returns a context in which the step with this index checks files.
func (s *stepRunner) checkContext(ctx context.Context, index int) context.Context {
	return progress.NewContext(ctx, s.silentPhase(wire.Progress{Index: index, Phase: wire.PhaseCheck, Unit: wire.UnitFiles}))
}

// addBuildTotal adds the files of the build in dir to those that ph, which may be nil, will
// remove.
func addBuildTotal(ph *progress.Phase, dir string) {
	var m installed.Manifest
	if ph == nil || statefile.Read(filepath.Join(dir, installed.ManifestName), &m) != nil {
		return
	}
	ph.AddTotal(int64(max(m.FileCount, len(m.Files))))
}
