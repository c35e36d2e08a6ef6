package workers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// Spawn makes a worker and waits until it is ready or has failed; with Detach,
// until its process runs. Events tell of its states and what it writes. What
// cannot even be tried is an error and leaves no worker; one that was tried and
// failed stays, to be looked at. When ctx ends before the worker is ready, it is
// ended too.
func (m *Manager) Spawn(ctx context.Context, op operations.WorkerSpawn, events operations.Handler) (*operations.WorkerSpawnReport, error) {
	start := time.Now()
	w, err := m.create(op)
	if err != nil {
		return nil, err
	}
	m.keep.Go(w.run)
	if events == nil {
		events = func(operations.Event) {}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var told operations.WorkerState
	var line string
	for {
		p, changed := w.watch()
		if p.State != told {
			told = p.State
			events(operations.Event{Time: time.Now(), Type: operations.EventWorker, Hive: op.HiveID, Worker: &p})
		}
		if settled(p, op.Detach) {
			return m.spawned(w, start)
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
			return nil, failure(operations.ReasonStopping, p.ID, "the hive is stopping; the next one goes on with %s", p.ID)
		case ctx.Err() != nil:
			return nil, m.abandon(ctx, w)
		}
	}
}

// settled reports whether the one who spawned a worker need not wait any longer.
func settled(p operations.WorkerProcess, detach bool) bool {
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

// spawned is the report on a worker that became ready or failed.
func (m *Manager) spawned(w *worker, start time.Time) (*operations.WorkerSpawnReport, error) {
	p := w.public()
	if p.State == operations.WorkerFailed && p.RestartAt.IsZero() {
		<-w.settled
		if w.refused != nil {
			m.drop(w)
			return nil, w.refused
		}
	}
	r := w.record()
	return &operations.WorkerSpawnReport{Worker: p, Reason: r.Reason, DurationSeconds: time.Since(start).Seconds()}, nil
}

// abandon ends a worker for which nobody waits any more.
func (m *Manager) abandon(ctx context.Context, w *worker) error {
	cause := context.Cause(ctx)
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*m.t.Kill)
	defer cancel()
	id := w.record().ID
	if err := w.finish(limit, StopOptions{Force: true}); err != nil {
		return err
	}
	return &operations.Error{
		Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Subject: operations.SubjectWorker.Named(id), Message: fmt.Sprintf("%s was ended before it was ready: %v", id, cause), Err: cause,
	}
}

// Begin counts a request to a worker until end is called. It is refused unless
// the worker serves.
func (m *Manager) Begin(id string) (port int, end func(), err error) {
	m.mu.Lock()
	w := m.workers[id]
	m.mu.Unlock()
	if w == nil {
		return 0, nil, notFound(operations.ReasonWorkerNotFound, id, "no worker %q runs here%s", id, m.others())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.rec.State != operations.WorkerReady || w.stopping || w.ending.Load() {
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

// StopAll stops all workers of a type, or all there are if the type is empty, and
// waits until nothing is left of them.
func (m *Manager) StopAll(ctx context.Context, workerType string) error {
	var ours []*worker
	for _, w := range m.all() {
		if r := w.record(); r.State != operations.WorkerStopped && (workerType == "" || r.Worker == workerType) {
			w.tellStop(StopOptions{})
			ours = append(ours, w)
		}
	}
	for _, w := range ours {
		if err := w.finish(ctx, StopOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// Clear stops all workers of a type that records tell of, or all if the type is
// empty, without going on with any. It is for a machine whose hive does not run.
func Clear(ctx context.Context, o Options, workerType string) error {
	m := New(o)
	defer m.Close()
	if err := m.load(func(r *record) bool { return workerType == "" || r.Worker == workerType }, func(w *worker) {
		w.tellStop(StopOptions{})
	}); err != nil {
		return err
	}
	for _, err := range m.newer {
		return err // a worker that nobody here can stop
	}
	return m.StopAll(ctx, workerType)
}

// Programs are the paths of the programs of a worker type that workers on record
// were started from, or are being, and have not ended with. dir is [Options].Dir. Like [Whose] it
// only reads, with or without a hive that runs. A record that only a newer rbee can read is
// a [*wire.NewerSchemaError]: its program is not known.
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
		if r.Worker == workerType && len(r.Argv) > 0 && !r.ended() {
			list = append(list, r.Argv[0])
		}
	}
	return list, nil
}

// answers reports whether requests go through the hive to the worker now.
func (w *worker) answers() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests > 0
}
