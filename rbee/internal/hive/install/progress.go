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

// startHeartbeat repeats the last progress report of a step until stop is called.
func (s *stepRunner) startHeartbeat(index int, action wire.Action) (stop func()) {
	var first *wire.Progress
	switch action {
	case wire.ActionRemoveWorker, wire.ActionRemoveSelf:
		first = &wire.Progress{Index: index, Phase: wire.PhaseRemove, Unit: wire.UnitFiles}
	}
	s.heartbeat.Reset(first)
	done := make(chan struct{})
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
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// startPhase starts a phase and reports it.
func (s *stepRunner) startPhase(p wire.Progress) *progress.Phase {
	return progress.New(s.send, p)
}

// silentPhase returns a phase that sends its first report after progress.MinInterval, for
// work that is usually short.
func (s *stepRunner) silentPhase(p wire.Progress) *progress.Phase {
	return progress.NewSilent(s.send, p)
}

// removePhase returns a phase for the removal of files by the step at index.
func (s *stepRunner) removePhase(index int) *progress.Phase {
	return s.silentPhase(wire.Progress{Index: index, Phase: wire.PhaseRemove, Unit: wire.UnitFiles})
}

// checkContext returns a context with a phase for the check of files by the step at index.
func (s *stepRunner) checkContext(ctx context.Context, index int) context.Context {
	return progress.NewContext(ctx, s.silentPhase(wire.Progress{Index: index, Phase: wire.PhaseCheck, Unit: wire.UnitFiles}))
}

// addBuildTotal adds the number of files of the build in dir to the total of ph, which may
// be nil.
func addBuildTotal(ph *progress.Phase, dir string) {
	var m installed.Manifest
	if ph == nil || statefile.Read(filepath.Join(dir, installed.ManifestName), &m) != nil {
		return
	}
	ph.AddTotal(int64(max(m.FileCount, len(m.Files))))
}
