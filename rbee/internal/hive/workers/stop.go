package workers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// StopOptions say how a worker is stopped. The zero value is the gentle way.
type StopOptions struct {
	// Grace is how long requests under way, and then the processes, may take
	// before they are killed; 0 is the usual.
	Grace time.Duration

	// Force kills at once.
	Force bool
}

// ending is how stopping a worker went.
type ending struct {
	killed  bool
	holders []operations.DeviceProcess
	problem string
	note    string
}

// tellStop tells the keeper to stop the worker. Told again with force, it kills.
func (w *worker) tellStop(o StopOptions) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o.Force || !w.stopping {
		w.how = o
	}
	if !w.stopping {
		w.stopping = true
		close(w.stop)
	}
}

func (w *worker) options() StopOptions {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.how
}

// end stops the worker: no new requests, those under way are finished, the whole
// group is ended, and its memory on devices waited for.
func (w *worker) end() {
	r, how := w.record(), w.options()
	grace := w.m.t.Grace
	if r.Launch.GraceSeconds > 0 {
		grace = seconds(r.Launch.GraceSeconds)
	}
	if how.Grace > 0 {
		grace = how.Grace
	}
	if !how.Force {
		w.drain(how.Grace)
	}
	ids := w.processes()
	killed, left := w.endGroup(w.options().Force, grace)
	if w.m.ctx.Err() != nil {
		return
	}
	if len(left) > 0 {
		w.update(func(r *record) { r.Problem = stuck(left) })
		w.pause(time.Second)
		return // still draining: tried again, for as long as it takes
	}
	var status *int
	if c := w.child.Load(); c != nil {
		status, _ = c.Reap()
		w.child.Store(nil)
	}
	w.ended = w.awaitMemory(ids)
	w.ended.killed = killed
	if w.m.ctx.Err() != nil {
		return
	}
	if err := os.RemoveAll(w.m.stateDir(r.ID)); err != nil {
		w.m.log.Warn("the directory of a worker that has stopped stays", "error", err)
	}
	w.enter(operations.WorkerStopped, func(r *record) {
		r.EndedAt, r.Problem, r.RestartAt = time.Now().UTC(), w.ended.problem, time.Time{}
		r.Process, r.Members = proc.ID{}, nil
		if status != nil {
			r.ExitStatus = status
		}
	})
}

func stuck(left []proc.Process) string {
	var pids []string
	for _, p := range left {
		pids = append(pids, fmt.Sprint(p.PID))
	}
	return fmt.Sprintf("the kernel does not end process %s although it was killed; it may wait for a device or a disk", strings.Join(pids, ", "))
}

// drain waits until no request is under way.
func (w *worker) drain(limit time.Duration) {
	if limit == 0 {
		limit = w.m.t.Drain
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
			if w.options().Force || !w.record().Process.Alive() {
				return
			}
		}
	}
}

// Stop stops a worker and waits until nothing is left of it. When ctx ends first
// it is stopped all the same. A worker that has ended already is reported as it is.
func (m *Manager) Stop(ctx context.Context, ref operations.WorkerRef, o StopOptions) (*operations.WorkerDeleteReport, error) {
	start := time.Now()
	w, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	if err := w.finish(ctx, o); err != nil {
		return nil, err
	}
	r := &operations.WorkerDeleteReport{Worker: w.public(), DurationSeconds: time.Since(start).Seconds()}
	if r.Worker.State == operations.WorkerStopped {
		r.Killed, r.Holders, r.Problem, r.Note = w.ended.killed, w.ended.holders, w.ended.problem, w.ended.note
	} else {
		r.Killed, r.Problem = true, r.Worker.Problem
	}
	return r, nil
}

// drainNow enters the state in which the worker ends.
func (w *worker) drainNow() {
	w.enter(operations.WorkerDraining, func(r *record) { r.Problem, r.RestartAt = "", time.Time{} })
}

// finish tells a worker to stop and waits for its keeper. One that the kernel does
// not end goes on draining, and its Problem says so.
func (w *worker) finish(ctx context.Context, o StopOptions) error {
	w.tellStop(o)
	for waiting := true; waiting; {
		p, changed := w.watch()
		if p.State == operations.WorkerDraining && p.Problem != "" {
			return nil
		}
		select {
		case <-w.settled:
			waiting = false
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s to end: %w", p.ID, context.Cause(ctx))
		}
	}
	w.putAway.Lock()
	defer w.putAway.Unlock()
	switch r := w.record(); {
	case r.State == operations.WorkerFailed && r.RestartAt.IsZero():
		// Its keeper is gone; its processes were ended when it failed.
		w.drainNow()
		w.enter(operations.WorkerStopped, func(r *record) { r.Problem = "" })
	case r.State != operations.WorkerStopped:
		return errors.New("the hive is stopping; the next one goes on with it")
	}
	return nil
}
