package workers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// Spawn creates a worker and waits until the worker is ready or has failed; with op.Detach,
// until its process runs. Spawn sends the worker's states and output as events. If the worker
// cannot be started, Spawn removes it and returns an error. A worker that was started and
// failed is kept for inspection. If ctx ends before the worker is ready, Spawn stops it.
func (m *Manager) Spawn(ctx context.Context, op operations.WorkerSpawn, events operations.Handler) (*operations.WorkerSpawnReport, error) {
	start := time.Now()
	w, err := m.create(op)
	if err != nil {
		return nil, err
	}
	m.supervisors.Go(w.run)
	if events == nil {
		events = func(operations.Event) {}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var reported operations.WorkerState
	var line string
	for {
		p, changed := w.watch()
		if p.State != reported {
			reported = p.State
			events(operations.Event{Time: time.Now(), Type: operations.EventWorker, Hive: op.HiveID, Worker: &p})
		}
		if isSpawnDone(p, op.Detach) {
			return m.spawnReport(w, start)
		}
		select {
		case <-ctx.Done():
		case <-m.ctx.Done():
		case <-changed:
		case <-tick.C:
			if last := m.logTail(p.ID, 1); len(last) == 1 && last[0] != line {
				line = last[0]
				events(operations.Event{Time: time.Now(), Type: operations.EventNote, Hive: op.HiveID, Message: line})
			} else if p.State == operations.WorkerStarting && p.Problem != "" {
				events(operations.Event{Time: time.Now(), Type: operations.EventNote, Hive: op.HiveID, Message: p.Problem})
			}
		}
		switch {
		case m.ctx.Err() != nil:
			return nil, failure(operations.ReasonStopping, p.ID, "cannot wait for worker %s: the hive daemon is stopping; the next hive daemon resumes the worker", p.ID)
		case ctx.Err() != nil:
			return nil, m.abandon(ctx, w)
		}
	}
}

// isSpawnDone reports whether Spawn can return.
func isSpawnDone(p operations.WorkerProcess, detach bool) bool {
	switch p.State {
	case operations.WorkerReady, operations.WorkerStopped:
		return true
	case operations.WorkerLoading:
		return detach
	case operations.WorkerFailed:
		return p.RestartAt.IsZero()
	case operations.WorkerStarting, operations.WorkerDraining:
	}
	return false
}

// spawnReport returns the report on a worker that is ready or has failed.
func (m *Manager) spawnReport(w *worker, start time.Time) (*operations.WorkerSpawnReport, error) {
	p := w.report()
	if p.State == operations.WorkerFailed && p.RestartAt.IsZero() {
		<-w.done
		if w.startErr != nil {
			m.remove(w)
			return nil, w.startErr
		}
	}
	r := w.record()
	return &operations.WorkerSpawnReport{Worker: p, Reason: r.Reason, DurationSeconds: time.Since(start).Seconds()}, nil
}

// abandon stops a worker whose Spawn was canceled and returns the error for the caller.
func (m *Manager) abandon(ctx context.Context, w *worker) error {
	cause := context.Cause(ctx)
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*m.timing.KillTimeout)
	defer cancel()
	id := w.record().ID
	if err := w.finish(stopCtx, StopOptions{Force: true}); err != nil {
		return err
	}
	return &operations.Error{
		Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Subject: operations.SubjectWorker.WithName(id), Message: fmt.Sprintf("worker %s was stopped before it was ready: %v", id, cause), Err: cause,
	}
}

// BeginRequest returns the port of a worker and counts a request to the worker as active until
// end is called. It returns an error if the worker is unknown or not ready.
func (m *Manager) BeginRequest(id string) (port int, end func(), err error) {
	m.mu.Lock()
	w := m.workers[id]
	m.mu.Unlock()
	if w == nil {
		return 0, nil, notFound(operations.ReasonWorkerNotFound, id, "unknown worker %q: %s", id, m.describeWorkers())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rec.State != operations.WorkerReady || w.stopRequested || w.isCleaningUp.Load() {
		return 0, nil, failure(operations.ReasonWorkerNotReady, id, "worker %s is %s, not ready", id, w.rec.State)
	}
	w.requests++
	return w.rec.Port, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.requests--; w.requests == 0 && w.idle != nil {
			close(w.idle)
			w.idle = nil
		}
	}, nil
}

// StopAll stops all workers of a type, or all workers if workerType is empty, and waits
// until all their processes have exited.
func (m *Manager) StopAll(ctx context.Context, workerType string) error {
	var stopping []*worker
	for _, w := range m.all() {
		if r := w.record(); r.State != operations.WorkerStopped && (workerType == "" || r.Worker == workerType) {
			w.requestStop(StopOptions{})
			stopping = append(stopping, w)
		}
	}
	for _, w := range stopping {
		if err := w.finish(ctx, StopOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// StopOffline stops all recorded workers of a type, or all recorded workers if workerType is
// empty, and resumes no worker. The hive daemon must not be running.
func StopOffline(ctx context.Context, o Options, workerType string) error {
	m := New(o)
	defer m.Close()
	if err := m.restore(func(r *record) bool { return workerType == "" || r.Worker == workerType }, func(w *worker) {
		w.requestStop(StopOptions{})
	}); err != nil {
		return err
	}
	for _, err := range m.newerErrs {
		return err // only a newer rbee can stop this worker
	}
	return m.StopAll(ctx, workerType)
}

// Programs returns the paths of the programs that workers of a type run or are about to run,
// according to the records in dir, which is [Options].Dir. It ignores workers in a final
// state. Like [ProcessOwners], it only reads and may be called while a hive daemon runs. If
// only a newer rbee can read a record, the error is a [*wire.NewerSchemaError], because the
// program of that worker is unknown.
func Programs(dir, workerType string) ([]string, error) {
	var newer error
	records, err := listRecords(dir, func(_ string, err error) {
		if isNewer(err) {
			newer = errors.Join(newer, err)
		}
	})
	if err := errors.Join(err, newer); err != nil {
		return nil, err
	}
	var list []string
	for _, r := range records {
		if r.Worker == workerType && len(r.Argv) > 0 && !r.isTerminal() {
			list = append(list, r.Argv[0])
		}
	}
	return list, nil
}

// hasRequests reports whether requests to the worker are active.
func (w *worker) hasRequests() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests > 0
}
