package workers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
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
}

// memorySlack is how much less device memory than before may be free: drivers
// keep some for themselves, and round.
const memorySlack = 256 << 20

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
	pids := w.pids()
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
		status, _ = c.reap()
		w.child.Store(nil)
	}
	w.ended = w.awaitMemory(pids)
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

func (w *worker) pids() map[int]bool {
	pids := map[int]bool{}
	for _, p := range w.members(true) {
		pids[p.PID] = true
	}
	return pids
}

// awaitMemory waits until the devices have the worker's memory back, and tells
// who else holds memory there.
func (w *worker) awaitMemory(pids map[int]bool) (e ending) {
	r := w.record()
	if len(r.Devices) == 0 || w.m.o.Devices == nil {
		return e
	}
	ctx, cancel := context.WithTimeout(w.m.ctx, w.m.t.Memory)
	defer cancel()
	for {
		var missing []string
		e.holders, missing = w.notBack(w.m.ctx, r, pids)
		if len(missing) == 0 {
			return e
		}
		select {
		case <-ctx.Done():
			e.problem = fmt.Sprintf("device memory did not come back within %s: %s", w.m.t.Memory, strings.Join(missing, "; "))
			return e
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// notBack words what is still missing on the worker's devices, and lists who
// holds memory there that is no worker.
func (w *worker) notBack(ctx context.Context, r record, pids map[int]bool) (holders []operations.DeviceProcess, missing []string) {
	devices, err := w.m.o.Devices(ctx)
	if err != nil {
		return nil, []string{err.Error()}
	}
	all := w.m.holders(ctx)
	for _, d := range r.Devices {
		var explained int64 // memory of others that is there now
		own := false
		for _, p := range all {
			if p.DeviceUUID != d.UUID || p.Vendor != "" && p.Vendor != d.Vendor {
				continue
			}
			if pids[p.PID] {
				own = true
				missing = append(missing, fmt.Sprintf("process %d, which has ended, still holds memory of device %d", p.PID, d.Index))
				continue
			}
			if p.Memory != nil {
				explained += int64(*p.Memory) //nolint:gosec // a size
			}
			if p.WorkerID == "" && !slices.ContainsFunc(holders, func(h operations.DeviceProcess) bool { return h.PID == p.PID }) {
				holders = append(holders, p)
			}
		}
		before, known := r.FreeBefore[deviceKey(d)]
		i := slices.IndexFunc(devices, func(have operations.Device) bool { return sameDevice(d, have) })
		if own || !known || i < 0 || devices[i].MemoryFree == nil {
			continue
		}
		short := int64(before) - int64(*devices[i].MemoryFree) //nolint:gosec // sizes
		if short > memorySlack+explained {
			missing = append(missing, fmt.Sprintf("%.1f GB of device %d are held by nobody that can be seen", float64(short-explained)/1e9, d.Index))
		}
	}
	return holders, missing
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
		r.Killed, r.Holders, r.Problem = w.ended.killed, w.ended.holders, w.ended.problem
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
