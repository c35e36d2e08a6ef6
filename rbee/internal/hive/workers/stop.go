package workers

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// StopOptions control how a worker is stopped. The zero value stops it gracefully.
type StopOptions struct {
	// Grace is the maximum wait for active requests, and then the maximum wait for the
	// processes to exit before they are killed; 0 means the default.
	Grace time.Duration

	// Force kills the processes immediately.
	Force bool
}

// stopResult is the result of stopping a worker.
type stopResult struct {
	killed  bool
	holders []operations.DeviceProcess
	problem string
	note    string
}

// requestStop requests the supervisor to stop the worker. A later request with force kills
// the processes.
func (w *worker) requestStop(o StopOptions) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o.Force || !w.stopRequested {
		w.stopOptions = o
	}
	if !w.stopRequested {
		w.stopRequested = true
		close(w.stop)
	}
}

// latestStopOptions returns the options of the stop request.
func (w *worker) latestStopOptions() StopOptions {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stopOptions
}

// shutDown waits for active requests, stops all processes of the worker, and waits until
// their device memory is released.
func (w *worker) shutDown() {
	r, o := w.record(), w.latestStopOptions()
	grace := w.m.timing.GracePeriod
	if r.Launch.GraceSeconds > 0 {
		grace = seconds(r.Launch.GraceSeconds)
	}
	if o.Grace > 0 {
		grace = o.Grace
	}
	if !o.Force {
		w.drain(o.Grace)
	}
	ids := w.processes()
	killed, left := w.terminateGroup(w.latestStopOptions().Force, grace)
	if w.m.ctx.Err() != nil {
		return
	}
	if len(left) > 0 {
		w.update(func(r *record) { r.Problem = describeStuck(left) })
		w.sleep(time.Second)
		return // still draining: run calls shutDown again
	}
	var status *int
	if c := w.process.Load(); c != nil {
		status, _ = c.Reap()
		w.process.Store(nil)
	}
	w.result = w.awaitMemory(ids)
	w.result.killed = killed
	if w.m.ctx.Err() != nil {
		return
	}
	if err := os.RemoveAll(w.m.stateDir(r.ID)); err != nil {
		w.m.log.Warn("cannot remove state directory of stopped worker", "error", err)
	}
	w.enter(operations.WorkerStopped, func(r *record) {
		r.EndedAt, r.Problem, r.RestartAt = time.Now().UTC(), w.result.problem, time.Time{}
		r.Process, r.Members = proc.ID{}, nil
		if status != nil {
			r.ExitStatus = status
		}
	})
}

// describeStuck describes processes that SIGKILL did not stop.
func describeStuck(left []proc.Process) string {
	var pids []string
	for _, p := range left {
		pids = append(pids, fmt.Sprint(p.PID))
	}
	return fmt.Sprintf("process %s does not exit after SIGKILL; it may be waiting for a device or a disk", strings.Join(pids, ", "))
}

// drain waits until no request is active, but at most for limit; 0 means the default.
func (w *worker) drain(limit time.Duration) {
	if limit == 0 {
		limit = w.m.timing.DrainTimeout
	}
	w.mu.Lock()
	if w.requests == 0 {
		w.mu.Unlock()
		return
	}
	if w.idle == nil {
		w.idle = make(chan struct{})
	}
	idle := w.idle
	w.mu.Unlock()
	timer, tick := time.NewTimer(limit), time.NewTicker(100*time.Millisecond)
	defer timer.Stop()
	defer tick.Stop()
	for {
		select {
		case <-idle:
			return
		case <-timer.C:
			return
		case <-w.m.ctx.Done():
			return
		case <-tick.C:
			if w.latestStopOptions().Force || !w.record().Process.Alive() {
				return
			}
		}
	}
}

// Stop stops a worker and waits until all its processes have exited. The end of ctx ends only
// the wait. A stopped worker is reported unchanged.
func (m *Manager) Stop(ctx context.Context, ref operations.WorkerRef, o StopOptions) (*operations.WorkerDeleteReport, error) {
	start := time.Now()
	w, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	if err := w.finish(ctx, o); err != nil {
		return nil, err
	}
	r := &operations.WorkerDeleteReport{Worker: w.report(), DurationSeconds: time.Since(start).Seconds()}
	if r.Worker.State == operations.WorkerStopped {
		r.Killed, r.Holders, r.Problem, r.Note = w.result.killed, w.result.holders, w.result.problem, w.result.note
	} else {
		r.Killed, r.Problem = true, r.Worker.Problem
	}
	return r, nil
}

// startDraining enters the state draining.
func (w *worker) startDraining() {
	w.enter(operations.WorkerDraining, func(r *record) { r.Problem, r.RestartAt = "", time.Time{} })
}

// finish requests a stop and waits for the supervisor. If processes do not exit, finish
// returns while the worker is still draining with a problem in its record.
func (w *worker) finish(ctx context.Context, o StopOptions) error {
	w.requestStop(o)
	for waiting := true; waiting; {
		p, changed := w.watch()
		if p.State == operations.WorkerDraining && p.Problem != "" {
			return nil
		}
		select {
		case <-w.done:
			waiting = false
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for %s to stop: %w", p.ID, context.Cause(ctx))
		}
	}
	w.finishMu.Lock()
	defer w.finishMu.Unlock()
	switch r := w.record(); {
	case r.State == operations.WorkerFailed && r.RestartAt.IsZero():
		// The supervisor has returned; it stopped the processes when the worker failed.
		w.startDraining()
		w.enter(operations.WorkerStopped, func(r *record) { r.Problem = "" })
	case r.State != operations.WorkerStopped:
		return fmt.Errorf("cannot wait for %s to stop: the hive daemon is stopping", r.ID)
	}
	return nil
}
