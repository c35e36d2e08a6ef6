package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
)

// restartWait limits the restart delay of a failed worker for which a request waits.
const restartWait = 2 * time.Second

// starter starts workers.
type starter struct {
	Finder

	// prepare is called before a worker is started on a hive. It returns a worker that was
	// started there in the meantime, or nil. done is called when the start has ended.
	prepare func(ctx context.Context, snap *registry.Snapshot, model string, op operations.Infer) (w *operations.WorkerProcess, done func(), err error)
}

// Direct is a loader for one operation at a time.
type Direct struct{ starter }

// NewDirect returns a loader that dials hives for each operation.
func NewDirect(conn registry.Connector, hives Hives) *Direct {
	return &Direct{starter{Finder{conn, hives, scheduler.ReportedUsage{}}, func(context.Context, *registry.Snapshot, string, operations.Infer) (*operations.WorkerProcess, func(), error) {
		return nil, func() {}, nil
	}}}
}

// Load starts a worker for the operation, and adds it to found. If found is nil, it calls
// Find first.
func (d *Direct) Load(ctx context.Context, op operations.Infer, found *FindResult, events operations.Handler) (*FindResult, error) {
	if found == nil {
		var err error
		if found, err = d.Find(ctx, op); err == nil || !IsNoCandidate(err) {
			return found, err
		}
	}
	var err error
	found.Candidates, err = d.startOnAnyHive(ctx, op, found.snapshots, true, events)
	return found, err
}

// startOnAnyHive returns a worker for the operation. It waits for a worker that is already
// starting. Otherwise it starts one on the hive with the most free memory, and tries the
// next hive on errors. If no hive has the model and fetch is set, a hive downloads it first.
func (s *starter) startOnAnyHive(ctx context.Context, op operations.Infer, list []registry.Snapshot, fetch bool, events operations.Handler) ([]Candidate, error) {
	if candidates, err := s.awaitPending(ctx, op, list, events); len(candidates) > 0 || err != nil {
		return candidates, err
	}
	targets, reasons := scheduler.LoadTargets(hives(list), op.Model)
	if len(targets) == 0 && fetch {
		if err := s.fetchModel(ctx, op.Model, list, events); err != nil {
			return nil, err
		}
		targets, reasons = scheduler.LoadTargets(hives(list), op.Model)
	}
	addReasons(list, reasons)
	schedHives, restartsSoon := hives(list), false
	for _, target := range targets {
		snap := &list[target.Hive]
		if w := scheduler.RestartingWorker(schedHives[target.Hive], op.Model); w != nil { // snap.Err already contains its problem
			restartsSoon = restartsSoon || time.Until(w.RestartAt) < restartWait
			continue
		}
		w, err := s.startUnlessStarted(ctx, snap, target, op, events)
		if ctx.Err() != nil {
			return nil, registry.OperationError(context.Cause(ctx))
		}
		if err != nil {
			snap.Err = fmt.Errorf("cannot start %s: %w", target.Worker, err)
			continue
		}
		return []Candidate{{snap.Client, *w}}, nil
	}
	err := noCandidateError(op, list)
	if restartsSoon {
		return nil, &operations.Error{Code: operations.CodeOf(err), Reason: operations.ReasonRestarting, Subject: operations.SubjectModel.WithName(op.Model), Message: err.Error(), Err: err}
	}
	return nil, err
}

// IsRestarting reports whether err means that no load was tried, because a worker that serves
// the model will restart soon.
func IsRestarting(err error) bool { return operations.ReasonOf(err) == operations.ReasonRestarting }

// startUnlessStarted starts a worker on a hive, unless a worker for the model was started
// there in the meantime.
func (s *starter) startUnlessStarted(ctx context.Context, snap *registry.Snapshot, target scheduler.LoadTarget, op operations.Infer, events operations.Handler) (*operations.WorkerProcess, error) {
	w, done, err := s.prepare(ctx, snap, target.Model, op)
	if err != nil {
		return nil, err
	}
	defer done()
	if w != nil {
		return w, nil
	}
	events.Send(operations.Event{
		Type: operations.EventNote, Hive: snap.Hive.Alias, Message: fmt.Sprintf("no ready worker serves %s: starting %s", op.Model, target.Worker),
	})
	return spawn(ctx, snap, target, op, events)
}

// prepareStart acquires the start lock of a model on a hive, and returns a worker that was
// started there in the meantime, or nil.
func (l *Loader) prepareStart(ctx context.Context, snap *registry.Snapshot, model string, op operations.Infer) (*operations.WorkerProcess, func(), error) {
	done, err := l.lockStart(ctx, snap.Hive.Alias, model)
	if err != nil {
		return nil, nil, err
	}
	report, err := snap.Client.Snapshot(ctx)
	if err != nil {
		done()
		return nil, nil, err
	}
	current := []scheduler.Hive{{Alias: snap.Hive.Alias, Link: operations.LinkOnline, Report: report}}
	if found := scheduler.Schedule(request(op), current, l.traffic).Candidates; len(found) > 0 {
		return found[0].Worker, done, nil
	}
	return nil, done, nil
}

// addReasons appends the reason why a hive cannot start a worker to the error of the hive.
// The keys of reasons are aliases.
func addReasons(list []registry.Snapshot, reasons map[string]string) {
	for i := range list {
		snap := &list[i]
		if text := reasons[snap.Hive.Alias]; text != "" && snap.Err != nil {
			snap.Err = fmt.Errorf("%w; %s", snap.Err, text)
		}
	}
}

// spawn starts a worker on a hive.
func spawn(ctx context.Context, snap *registry.Snapshot, target scheduler.LoadTarget, op operations.Infer, events operations.Handler) (*operations.WorkerProcess, error) {
	alias := snap.Hive.Alias
	r, err := snap.Client.Do(ctx, operations.WorkerSpawn{
		Target: operations.Target{HiveID: alias}, Model: target.Model, Worker: target.Worker, Device: op.Device, OnDemand: true,
	}, events)
	spawned, ok := r.(*operations.WorkerSpawnReport)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("invalid report from the hive: got %T, want %T", r, spawned)
	case spawned.Worker.State != operations.WorkerReady:
		return nil, errors.New(cmp.Or(spawned.Worker.Problem, "the worker is "+string(spawned.Worker.State)))
	}
	spawned.Worker.Hive = alias
	return &spawned.Worker, nil
}

// awaitPending waits for workers that are already starting or loading. It returns the first
// worker that can serve the request.
func (s *starter) awaitPending(ctx context.Context, op operations.Infer, list []registry.Snapshot, events operations.Handler) ([]Candidate, error) {
	for i := range list {
		snap := &list[i]
		if snap.Report == nil || snap.Client == nil {
			continue
		}
		for _, w := range scheduler.PendingWorkers(request(op), hives(list[i : i+1])[0]) {
			events.Send(operations.Event{
				Type: operations.EventNote, Hive: snap.Hive.Alias, Message: fmt.Sprintf("waiting for worker %s: %s %s", w.ID, w.State, op.Model),
			})
			report, err := snap.Client.WaitSnapshot(ctx, func(report *operations.HiveSnapshot) bool { return !isPending(report, w.ID) })
			if ctx.Err() != nil {
				return nil, registry.OperationError(context.Cause(ctx))
			}
			if snap.Report, snap.Err = report, err; err != nil {
				break // the hive is offline; others may have the model
			}
			if candidates := s.candidates(list[i:i+1], op); len(candidates) > 0 {
				return candidates, nil
			}
		}
	}
	return nil, nil
}

// isPending reports whether a worker of the snapshot is starting or loading.
func isPending(report *operations.HiveSnapshot, id string) bool {
	return slices.ContainsFunc(report.Workers, func(w operations.WorkerProcess) bool { return w.ID == id && scheduler.IsPending(&w) })
}
