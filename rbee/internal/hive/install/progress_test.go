package install

import (
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
)

// applyProgress applies steps and returns the progress reports.
func applyProgress(t *testing.T, h *Hive, steps ...wire.Step) []wire.Progress {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- h.Apply(t.Context(), inR, outW) }()
	if err := wire.WriteRequest(inW, &wire.Request{Schema: wire.Schema, Owner: "tester", Steps: steps}); err != nil {
		t.Fatal(err)
	}
	var all []wire.Progress
	for r := wire.NewReader(outR); ; {
		var m wire.Message
		if err := r.Read(&m); err != nil {
			t.Fatal(err)
		}
		if m.Progress != nil {
			all = append(all, *m.Progress)
		}
		if m.Result != nil {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			for i, e := range m.Result.Errors {
				if e != "" {
					t.Fatalf("step %d returned error %q, want none", i, e)
				}
			}
			return all
		}
	}
}

// phases returns the phases of the reports, without repeats of the same phase.
func phases(all []wire.Progress) []wire.Phase {
	var list []wire.Phase
	for _, p := range all {
		list = append(list, p.Phase)
	}
	return slices.Compact(list)
}

func TestInstallReportsPhases(t *testing.T) {
	t.Parallel()
	eachUV(t, func(t *testing.T, h *Hive, o *origin) {
		all := applyProgress(t, h, o.pythonWorker("w", "1", nil))
		got := phases(all)
		next := 0
		want := []wire.Phase{wire.PhaseDownload, wire.PhaseUnpack, wire.PhaseDownload, wire.PhaseEnvironment, wire.PhaseCheck, wire.PhaseSync}
		for _, p := range got {
			if next < len(want) && p == want[next] {
				next++
			}
		}
		if next < len(want) {
			t.Errorf("reported phases = %v, want them to include %v in this order", got, want)
		}
		for _, p := range all {
			if p.Count > p.CountTotal || p.Total > 0 && p.Bytes > p.Total || p.Index != 0 || p.Phase == "" {
				t.Errorf("report %+v, want counts within their totals, index 0 and a phase", p)
			}
			if p.Phase == wire.PhaseEnvironment && (p.CountTotal != 2 || p.Unit != wire.UnitPackages) {
				t.Errorf("report %+v, want a total of 2 packages", p)
			}
		}
	})
}

// TestPhaseReports checks that a new phase is reported immediately, that its counts are
// reported at most every progress.MinInterval, and that the last report is repeated about
// every progress.MaxInterval while the counts do not change.
func TestPhaseReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		var mu sync.Mutex
		var all []wire.Progress
		go func() {
			for in := wire.NewReader(r); ; {
				var m wire.Message
				if in.Read(&m) != nil {
					return
				}
				mu.Lock()
				all = append(all, *m.Progress)
				mu.Unlock()
			}
		}()
		seen := func() []wire.Progress {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		}
		s := &stepRunner{out: wire.NewWriter(w)}
		stop := s.startHeartbeat(3, wire.ActionRemoveWorker)
		waittest.Advance(1500 * time.Millisecond)
		if got := seen(); len(got) != 1 || got[0].Phase != wire.PhaseRemove || got[0].Index != 3 {
			t.Errorf("reports before the first phase = %+v, want a single report of the removal", got)
		}
		ph := s.startPhase(wire.Progress{Index: 3, Phase: wire.PhaseCheck, Unit: wire.UnitFiles, CountTotal: 1000})
		for range 1000 {
			waittest.Advance(time.Millisecond)
			ph.Add(1)
		}
		counted := len(seen())
		if counted < 6 || counted > 8 {
			t.Errorf("reports after a second = %d, want 6 to 8", counted)
		}
		waittest.Advance(10 * time.Second)
		got := seen()
		if n := len(got) - counted; n < 9 || n > 11 {
			t.Errorf("reports in ten seconds without a change = %d, want 9 to 11", n)
		}
		if last := got[len(got)-1]; last.Count != 1000 || last.Index != 3 {
			t.Errorf("last report = %+v, want count 1000 and index 3", last)
		}
		ph.Update(wire.Progress{Phase: wire.PhaseSync})
		got = seen()
		if last := got[len(got)-1]; last.Phase != wire.PhaseSync || last.Index != 3 {
			t.Errorf("last report after Update() = %+v, want phase %s and index 3", last, wire.PhaseSync)
		}
		resume := s.heartbeat.Pause()
		waittest.Advance(time.Minute)
		if n := len(seen()) - len(got); n != 0 {
			t.Errorf("reports while paused = %d, want 0", n)
		}
		resume()
		waittest.Advance(2 * time.Second)
		if n := len(seen()) - len(got); n == 0 {
			t.Error("reports after the pause = 0, want at least 1")
		}
		stop()
		got = seen()
		waittest.Advance(time.Minute)
		if n := len(seen()) - len(got); n != 0 {
			t.Errorf("reports after stop = %d, want 0", n)
		}
		if err := w.Close(); err != nil {
			t.Errorf("Close() = %v, want nil", err)
		}
	})
	var none *progress.Phase
	none.Add(1)
	none.SetTotal(1)
	none.Update(wire.Progress{})
}

func TestRemovalReportsFiles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var all []wire.Progress
		ph := progress.NewSilent(func(m wire.Message) { all = append(all, *m.Progress) }, wire.Progress{Phase: wire.PhaseRemove, Unit: wire.UnitFiles})
		ph.Add(10)
		if len(all) != 0 {
			t.Errorf("reports of a short removal = %+v, want none", all)
		}
		waittest.Advance(progress.MinInterval)
		ph.Add(5)
		if len(all) != 1 || all[0].Count != 15 {
			t.Errorf("reports after MinInterval = %+v, want a single report of 15 files", all)
		}
	})
}
