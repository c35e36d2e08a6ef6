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

// restartWait is the maximum time until a restart for which a request waits.
const restartWait = 2 * time.Second

// starter starts workers.
type starter struct {
	Finder

	// prepare is called before a worker is started on a hive. It returns a worker that was
	// started there in the meantime, or nil. done is called when the start has ended.
	prepare func(ctx context.Context, v *registry.Snapshot, model string, op operations.Infer) (w *operations.WorkerProcess, done func(), err error)
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
func (f *starter) startOnAnyHive(ctx context.Context, op operations.Infer, list []registry.Snapshot, fetch bool, events operations.Handler) ([]Candidate, error) {
	if candidates, err := f.awaitPending(ctx, op, list, events); len(candidates) > 0 || err != nil {
		return candidates, err
	}
	targets, reasons := scheduler.LoadTargets(hives(list), op.Model)
	if len(targets) == 0 && fetch {
		if err := f.fetchModel(ctx, op.Model, list, events); err != nil {
			return nil, err
		}
		targets, reasons = scheduler.LoadTargets(hives(list), op.Model)
	}
	addReasons(list, reasons)
	schedHives, restartsSoon := hives(list), false
	for _, p := range targets {
		v := &list[p.Hive]
		if w := scheduler.RestartingWorker(schedHives[p.Hive], op.Model); w != nil { // its problem is already in v.Err
			restartsSoon = restartsSoon || time.Until(w.RestartAt) < restartWait
			continue
		}
		w, err := f.startUnlessStarted(ctx, v, p, op, events)
		if ctx.Err() != nil {
			return nil, registry.OperationError(context.Cause(ctx))
		}
		if err != nil {
			v.Err = fmt.Errorf("cannot start %s: %w", p.Worker, err)
			continue
		}
		return []Candidate{{v.Client, *w}}, nil
	}
	err := noCandidateError(op, list)
	if restartsSoon {
		return nil, &operations.Error{Code: operations.CodeOf(err), Reason: operations.ReasonRestarting, Subject: operations.SubjectModel.Named(op.Model), Message: err.Error(), Err: err}
	}
	return nil, err
}

// IsRestarting reports whether err is the error of a load that was not tried because a
// worker of the model will restart soon.
func IsRestarting(err error) bool { return operations.ReasonOf(err) == operations.ReasonRestarting }

// startUnlessStarted starts a worker on a hive, unless a worker for the model was started
// there in the meantime.
func (f *starter) startUnlessStarted(ctx context.Context, v *registry.Snapshot, p scheduler.LoadTarget, op operations.Infer, events operations.Handler) (*operations.WorkerProcess, error) {
	w, done, err := f.prepare(ctx, v, p.Model, op)
	if err != nil {
		return nil, err
	}
	defer done()
	if w != nil {
		return w, nil
	}
	events.Send(operations.Event{
		Type: operations.EventNote, Hive: v.Hive.Alias, Message: fmt.Sprintf("no ready worker serves %s: starting %s", op.Model, p.Worker),
	})
	return spawn(ctx, v, p, op, events)
}

// prepareStart acquires the start lock of a model on a hive, and returns a worker that was
// started there in the meantime, or nil.
func (f *Loader) prepareStart(ctx context.Context, v *registry.Snapshot, model string, op operations.Infer) (*operations.WorkerProcess, func(), error) {
	done, err := f.lockStart(ctx, v.Hive.Alias, model)
	if err != nil {
		return nil, nil, err
	}
	s, err := v.Client.Snapshot(ctx)
	if err != nil {
		done()
		return nil, nil, err
	}
	current := []scheduler.Hive{{Alias: v.Hive.Alias, Link: operations.LinkOnline, Report: s}}
	if found := scheduler.Schedule(request(op), current, f.traffic).Candidates; len(found) > 0 {
		return found[0].Worker, done, nil
	}
	return nil, done, nil
}

// addReasons adds the reasons why no worker can be started, by alias, to the errors of
// hives.
func addReasons(list []registry.Snapshot, reasons map[string]string) {
	for i := range list {
		v := &list[i]
		if text := reasons[v.Hive.Alias]; text != "" && v.Err != nil {
			v.Err = fmt.Errorf("%w; %s", v.Err, text)
		}
	}
}

// spawn starts a worker on a hive.
func spawn(ctx context.Context, v *registry.Snapshot, p scheduler.LoadTarget, op operations.Infer, events operations.Handler) (*operations.WorkerProcess, error) {
	alias := v.Hive.Alias
	r, err := v.Client.Do(ctx, operations.WorkerSpawn{
		Target: operations.Target{HiveID: alias}, Model: p.Model, Worker: p.Worker, Device: op.Device, OnDemand: true,
	}, events)
	spawned, ok := r.(*operations.WorkerSpawnReport)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("unexpected report %T from the hive", r)
	case spawned.Worker.State != operations.WorkerReady:
		return nil, errors.New(cmp.Or(spawned.Worker.Problem, "the worker is "+string(spawned.Worker.State)))
	}
	spawned.Worker.Hive = alias
	return &spawned.Worker, nil
}

// awaitPending waits for workers that are already starting or loading. It returns the first
// worker that can answer.
func (f *starter) awaitPending(ctx context.Context, op operations.Infer, list []registry.Snapshot, events operations.Handler) ([]Candidate, error) {
	for i := range list {
		v := &list[i]
		if v.Report == nil || v.Client == nil {
			continue
		}
		for _, w := range scheduler.PendingWorkers(request(op), hives(list[i : i+1])[0]) {
			events.Send(operations.Event{
				Type: operations.EventNote, Hive: v.Hive.Alias, Message: fmt.Sprintf("waiting for worker %s: %s %s", w.ID, w.State, op.Model),
			})
			s, err := v.Client.WaitSnapshot(ctx, func(s *operations.HiveSnapshot) bool { return !isPending(s, w.ID) })
			if ctx.Err() != nil {
				return nil, registry.OperationError(context.Cause(ctx))
			}
			if v.Report, v.Err = s, err; err != nil {
				break // the hive is offline; others may have the model
			}
			if candidates := f.candidates(list[i:i+1], op); len(candidates) > 0 {
				return candidates, nil
			}
		}
	}
	return nil, nil
}

// isPending reports whether a worker of the snapshot is starting or loading.
func isPending(s *operations.HiveSnapshot, id string) bool {
	return slices.ContainsFunc(s.Workers, func(w operations.WorkerProcess) bool { return w.ID == id && scheduler.IsPending(&w) })
}
