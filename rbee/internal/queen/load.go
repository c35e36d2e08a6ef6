package queen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"

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
		m := findModel(v.snapshot.Models, model)
		if m == nil {
			why[v.hive.Alias] = "the model is not there"
			continue
		}
		typ := engineFor(v, m.Format)
		switch {
		case !m.Complete:
			why[v.hive.Alias] = "the model is not whole there"
		case typ == "":
			why[v.hive.Alias] = "no engine for " + cmp.Or(m.Format, "such") + " models is installed there"
		default:
			list = append(list, place{v, typ, freeMemory(v.snapshot)})
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].free > list[j].free })
	return list, why
}

// findModel finds a model by its id, or by its repository where that has but one.
func findModel(models []operations.Model, name string) *operations.Model {
	if i := slices.IndexFunc(models, func(m operations.Model) bool { return m.ID == name }); i >= 0 {
		return &models[i]
	}
	var found *operations.Model
	for i, m := range models {
		if !strings.EqualFold(m.Repo, name) && !strings.EqualFold(m.ID, name) {
			continue
		}
		if found != nil {
			return nil
		}
		found = &models[i]
	}
	return found
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

func freeMemory(s *operations.HiveSnapshot) (free uint64) {
	for _, d := range s.Machine.Devices {
		if d.MemoryFree != nil && d.Error == "" {
			free += *d.MemoryFree
		}
	}
	return free
}

// offerAnew starts a worker that can answer: where there is the most room first,
// and on the next hive if the first refuses.
func (q *Queen) offerAnew(ctx context.Context, op operations.Infer, views []view, events operations.Handler) ([]offer, error) {
	list, why := places(views, op.Model)
	for i := range views {
		if text := why[views[i].hive.Alias]; text != "" && views[i].err != nil {
			views[i].err = fmt.Errorf("%w; %s", views[i].err, text)
		}
	}
	for _, p := range list {
		tell(events, operations.Event{
			Type: operations.EventNote, Hive: p.view.hive.Alias, Message: fmt.Sprintf("no ready worker serves %s: starting %s", op.Model, p.worker),
		})
		r, err := p.view.door.do(ctx, operations.WorkerSpawn{
			Target: operations.Target{HiveID: p.view.hive.Alias}, Model: op.Model, Worker: p.worker, Device: op.Device, OnDemand: true,
		}, events)
		spawned, ok := r.(*operations.WorkerSpawnReport)
		switch {
		case ctx.Err() != nil:
			return nil, asError(context.Cause(ctx))
		case err == nil && !ok:
			err = fmt.Errorf("the hive answered with a %T", r)
		case err == nil && spawned.Worker.State != operations.WorkerReady:
			err = errors.New(cmp.Or(spawned.Worker.Problem, "the worker is "+string(spawned.Worker.State)))
		}
		if err != nil {
			p.view.err = fmt.Errorf("starting %s there: %w", p.worker, err)
			continue
		}
		w := spawned.Worker
		w.Hive = p.view.hive.Alias
		return []offer{{door: p.view.door, worker: w}}, nil
	}
	return nil, noOffer(op, views)
}
