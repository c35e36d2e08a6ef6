package queen

import (
	"context"
	"errors"
	"sort"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// leastIdle is how long a worker is idle before its room may be taken for another.
const leastIdle = 5 * time.Second

// endTimeout is how long ending an idle worker may take: its engine, and its memory.
const endTimeout = 3 * time.Minute

// tidy ends workers that were started on demand and have been idle for long; a
// negative time ends none. It also forgets those that are no more.
func (f *gatewayFleet) tidy(after time.Duration) {
	every := time.Minute
	if after >= 0 {
		every = max(min(after/4, every), 100*time.Millisecond)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-f.background.Done():
			return
		}
		f.tidyNow(after)
	}
}

func (f *gatewayFleet) tidyNow(after time.Duration) {
	there := map[string]bool{}
	for _, l := range f.queen.registry.all() {
		v := l.view(time.Now())
		if v.Snapshot == nil {
			continue
		}
		for _, w := range v.Snapshot.Workers {
			there[trafficKey(w)] = true
			if after >= 0 && v.Link == operations.LinkOnline && w.OnDemand && w.State == operations.WorkerReady {
				go f.end(f.background, l, w, after, "it was idle for "+after.String()) // a hive may be slow, and others are not to wait
			}
		}
	}
	f.queen.traffic.forget(there)
}

// end ends a worker that has been idle for so long. Who asks for its model meanwhile
// waits until it has ended, and has it loaded again.
func (f *gatewayFleet) end(ctx context.Context, l *link, w operations.WorkerProcess, idle time.Duration, why string) (ended bool) {
	d := l.lendDoor()
	if d == nil {
		return false
	}
	defer d.close()
	done, ok := f.queen.traffic.close(w, f.queen.registry.since, idle)
	if !ok {
		return false
	}
	defer func() { done(ended) }()
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	_, err := d.do(ctx, operations.WorkerProcessDelete{Target: operations.Target{HiveID: w.Hive}, WorkerRef: operations.WorkerRef{ID: w.ID}}, nil)
	log := f.queen.registry.log
	if err != nil {
		log.Warn("a worker could not be ended", "hive", w.Hive, "worker", w.ID, "error", err)
		return false
	}
	log.Info("a worker was ended", "hive", w.Hive, "worker", w.ID, "model", served(w), "because", why)
	return true
}

// noRoom reports whether some hive refused a load for want of memory.
func noRoom(views []view) bool {
	for _, v := range views {
		var e *operations.Error
		if errors.As(v.err, &e) && e.Reason == operations.ReasonNoRoom {
			return true
		}
	}
	return false
}

// makeRoom ends the idle worker on demand that is cheapest to load again, on a hive
// that refused a load for want of memory. It is false if there is none.
func (f *gatewayFleet) makeRoom(ctx context.Context, views []view, model string) bool {
	type victim struct {
		link   *link
		worker operations.WorkerProcess
		cost   float64
	}
	var list []victim
	q := f.queen
	for _, v := range views {
		var e *operations.Error
		l := q.registry.find(v.hive)
		if l == nil || v.snapshot == nil || !errors.As(v.err, &e) || e.Reason != operations.ReasonNoRoom {
			continue
		}
		for _, w := range v.snapshot.Workers {
			idle := q.traffic.idle(w, q.registry.since)
			if !w.OnDemand || w.State != operations.WorkerReady || len(w.Devices) == 0 || idle < leastIdle {
				continue
			}
			list = append(list, victim{l, w, reloadCost(w, idle)})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].cost < list[j].cost })
	for _, v := range list {
		if f.end(ctx, v.link, v.worker, leastIdle, "its room is needed for "+model) {
			return true
		}
	}
	return false
}

// reloadCost is what ending a worker is expected to cost: the time that loading it
// took, the less likely to be needed the longer it has been idle.
func reloadCost(w operations.WorkerProcess, idle time.Duration) float64 {
	return w.ReadyAt.Sub(w.StartedAt).Seconds() / max(idle.Seconds(), 1)
}
