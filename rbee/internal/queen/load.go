package queen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// busy is how many requests a worker is answering: by this queen's own count, or,
// for a single operation, by the hive's.
func (q *Queen) busy(w operations.WorkerProcess) int {
	if q.registry == nil {
		return w.Requests
	}
	return q.traffic.busy(w)
}

// mayLoad reports whether a worker may be started to answer.
func mayLoad(op operations.Infer) bool {
	return !op.NoSpawn && op.Workflow == nil && op.WorkerID == ""
}

// place is where a model could be loaded.
type place struct {
	view   *view
	model  string // its id
	worker string // the type
	free   uint64 // device memory, in bytes
}

// places are where a model could be loaded, the one with the most room first. Of
// the hives that are none, why tells the reason.
func places(views []view, model string) (list []place, why map[string]string) {
	why = map[string]string{}
	for i := range views {
		v := &views[i]
		if v.snapshot == nil {
			continue
		}
		found := findModels(v.snapshot.Models, model)
		if len(found) != 1 {
			why[v.hive.Alias] = notOne(found)
			continue
		}
		m := found[0]
		typ := engineFor(v, m.Format)
		switch {
		case !m.Complete:
			why[v.hive.Alias] = "the model is not whole there"
		case typ == "":
			why[v.hive.Alias] = "no engine for " + cmp.Or(m.Format, "such") + " models is installed there"
		default:
			list = append(list, place{v, m.ID, typ, freeMemory(v.snapshot)})
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].free > list[j].free })
	return list, why
}

// engineFor is the installed worker type that serves a format; of several the one
// that the config names first.
func engineFor(v *view, format string) string {
	serves := func(typ string) bool {
		return slices.ContainsFunc(v.snapshot.Installed, func(i operations.InstalledType) bool {
			return i.Type == typ && slices.Contains(i.Formats, format)
		})
	}
	for _, w := range v.hive.Workers {
		if serves(w.Type) {
			return w.Type
		}
	}
	for _, i := range v.snapshot.Installed {
		if serves(i.Type) {
			return i.Type
		}
	}
	return ""
}

// notOne says that a name means no model of a hive, or which.
func notOne(found []*operations.Model) string {
	if len(found) == 0 {
		return "the model is not there"
	}
	ids := make([]string, len(found))
	for i, m := range found {
		ids[i] = m.ID
	}
	return "several models of that name are there: " + strings.Join(ids, ", ")
}

func freeMemory(s *operations.HiveSnapshot) (free uint64) {
	for _, d := range s.Machine.Devices {
		if n, known := d.Available(); known && d.Error == "" {
			free += n
		}
	}
	return free
}

// offerAnew gets a worker that can answer: one that is on its way already is waited
// for; else one is started, where there is the most room first, and on the next hive
// if the first refuses. Where no hive has the model it may be fetched first.
func (q *Queen) offerAnew(ctx context.Context, op operations.Infer, views []view, fetch bool, events operations.Handler) ([]offer, error) {
	if offers, err := q.awaitUnderway(ctx, op, views, events); len(offers) > 0 || err != nil {
		return offers, err
	}
	list, why := places(views, op.Model)
	if len(list) == 0 && fetch {
		if err := q.fetchModel(ctx, op.Model, views, events); err != nil {
			return nil, err
		}
		list, why = places(views, op.Model)
	}
	sayWhy(views, why)
	soon := false
	for _, p := range list {
		if w := restarting(p.view, op.Model); w != nil { // what it says of it is told already
			soon = soon || time.Until(w.RestartAt) < suspectFor
			continue
		}
		w, err := q.startOnce(ctx, p, op, events)
		if ctx.Err() != nil {
			return nil, asError(context.Cause(ctx))
		}
		if err != nil {
			p.view.err = fmt.Errorf("starting %s there: %w", p.worker, err)
			continue
		}
		return []offer{{door: p.view.door, worker: *w}}, nil
	}
	err := noOffer(op, views)
	if soon {
		return nil, &operations.Error{Code: operations.CodeOf(err), Reason: reasonRestarting, Message: err.Error(), Err: err}
	}
	return nil, err
}

// reasonRestarting is the reason of a load that is not tried because the worker that
// served the model is just about to be started again.
const reasonRestarting = "restarting"

func startsAgain(err error) bool {
	var e *operations.Error
	return errors.As(err, &e) && e.Reason == reasonRestarting
}

// startOnce starts a worker, unless somebody else has started one there meanwhile: of
// several who want the same model on a hive, one starts it and the others wait.
func (q *Queen) startOnce(ctx context.Context, p place, op operations.Infer, events operations.Handler) (*operations.WorkerProcess, error) {
	if q.front != nil {
		done, err := q.front.turn(ctx, p)
		if err != nil {
			return nil, err
		}
		defer done()
		s, err := p.view.door.snapshot(ctx)
		if err != nil {
			return nil, err
		}
		if found, _ := choose(s, op); len(found) > 0 && q.traffic.closing(found[0].worker) == nil {
			return &found[0].worker, nil
		}
	}
	tell(events, operations.Event{
		Type: operations.EventNote, Hive: p.view.hive.Alias, Message: fmt.Sprintf("no ready worker serves %s: starting %s", op.Model, p.worker),
	})
	return p.start(ctx, op, events)
}

// sayWhy adds to why a hive has no worker that can answer, why none can be started.
func sayWhy(views []view, why map[string]string) {
	for i := range views {
		v := &views[i]
		if text := why[v.hive.Alias]; text != "" && v.err != nil {
			v.err = fmt.Errorf("%w; %s", v.err, text)
		}
	}
}

// start starts a worker for the model.
func (p place) start(ctx context.Context, op operations.Infer, events operations.Handler) (*operations.WorkerProcess, error) {
	alias := p.view.hive.Alias
	r, err := p.view.door.do(ctx, operations.WorkerSpawn{
		Target: operations.Target{HiveID: alias}, Model: p.model, Worker: p.worker, Device: op.Device, OnDemand: true,
	}, events)
	spawned, ok := r.(*operations.WorkerSpawnReport)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("the hive answered with a %T", r)
	case spawned.Worker.State != operations.WorkerReady:
		return nil, errors.New(cmp.Or(spawned.Worker.Problem, "the worker is "+string(spawned.Worker.State)))
	}
	spawned.Worker.Hive = alias
	return &spawned.Worker, nil
}

// restarting is a worker of the model that failed, and will be started again.
func restarting(v *view, model string) *operations.WorkerProcess {
	serves := servesIn(v.snapshot.Models, model)
	for i, w := range v.snapshot.Workers {
		if w.State == operations.WorkerFailed && !w.RestartAt.IsZero() && serves(&w) {
			return &v.snapshot.Workers[i]
		}
	}
	return nil
}

// awaitUnderway waits for a worker of the model that is starting or loading already, if
// there is one.
func (q *Queen) awaitUnderway(ctx context.Context, op operations.Infer, views []view, events operations.Handler) ([]offer, error) {
	for i := range views {
		v := &views[i]
		if v.snapshot == nil || v.door == nil {
			continue
		}
		serves := servesIn(v.snapshot.Models, op.Model)
		for _, w := range v.snapshot.Workers {
			coming := w.State == operations.WorkerStarting || w.State == operations.WorkerLoading
			if !coming || w.API != "" || !serves(&w) || op.Device != "" && !onDevice(w, op.Device) {
				continue
			}
			tell(events, operations.Event{
				Type: operations.EventNote, Hive: v.hive.Alias, Message: fmt.Sprintf("waiting for worker %s, which is %s %s", w.ID, w.State, op.Model),
			})
			s, err := v.door.await(ctx, func(s *operations.HiveSnapshot) bool { return settledWorker(s, w.ID) })
			if ctx.Err() != nil {
				return nil, asError(context.Cause(ctx))
			}
			if v.snapshot, v.err = s, err; err != nil {
				break // it is away, and others may have the model
			}
			if offers := q.among(views[i:i+1], op); len(offers) > 0 {
				return offers, nil
			}
		}
	}
	return nil, nil
}

// settledWorker reports whether a worker is not on its way any more.
func settledWorker(s *operations.HiveSnapshot, id string) bool {
	return !slices.ContainsFunc(s.Workers, func(w operations.WorkerProcess) bool {
		return w.ID == id && (w.State == operations.WorkerStarting || w.State == operations.WorkerLoading)
	})
}
