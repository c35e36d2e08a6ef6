package loader

import (
	"context"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
)

// evictTimeout is how long ending an idle worker may take: its engine, and its memory.
const evictTimeout = 3 * time.Minute

// EvictIdle ends workers that were started on demand and have been idle for long; a
// negative time ends none. It also forgets those that are no more.
func (f *Loader) EvictIdle(after time.Duration) {
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
		f.evictIdleOnce(after)
	}
}

func (f *Loader) evictIdleOnce(after time.Duration) {
	there := map[string]bool{}
	for _, l := range f.pool.Connections() {
		v := l.View(time.Now())
		if v.Snapshot == nil {
			continue
		}
		for _, w := range v.Snapshot.Workers {
			there[scheduler.WorkerKey(w)] = true
			if after >= 0 && v.Link == operations.LinkOnline && scheduler.Evictable(w) {
				go f.Evict(f.background, l, w, after, "it was idle for "+after.String()) // a hive may be slow, and others are not to wait
			}
		}
	}
	f.traffic.Forget(there)
}

// Evict ends a worker that has been idle for so long. Who asks for its model meanwhile
// waits until it has ended, and has it loaded again.
func (f *Loader) Evict(ctx context.Context, l *registry.Connection, w operations.WorkerProcess, idle time.Duration, why string) (ended bool) {
	d := l.Client()
	if d == nil {
		return false
	}
	defer d.Close()
	done, ok := f.traffic.BeginEviction(w, f.pool.Since(), idle)
	if !ok {
		return false
	}
	defer func() { done(ended) }()
	ctx, cancel := context.WithTimeout(ctx, evictTimeout)
	defer cancel()
	_, err := d.Do(ctx, operations.WorkerProcessDelete{Target: operations.Target{HiveID: w.Hive}, WorkerRef: operations.WorkerRef{ID: w.ID}}, nil)
	if err != nil {
		f.log.Warn("a worker could not be ended", "hive", w.Hive, "worker", w.ID, "error", err)
		return false
	}
	f.log.Info("a worker was ended", "hive", w.Hive, "worker", w.ID, "model", scheduler.ServedModel(w), "because", why)
	return true
}

// lacksMemory reports whether some hive refused a load for want of memory.
func lacksMemory(list []registry.Snapshot) bool {
	for _, v := range list {
		if isOutOfMemory(v) {
			return true
		}
	}
	return false
}

func isOutOfMemory(v registry.Snapshot) bool {
	return operations.ReasonOf(v.Err) == operations.ReasonNoRoom
}

// evictForMemory ends the idle worker on demand that is cheapest to load again, on a hive
// that refused a load for want of memory. It is false if there is none.
func (f *Loader) evictForMemory(ctx context.Context, list []registry.Snapshot, model string) bool {
	known := hives(list)
	for i := range known {
		if !isOutOfMemory(list[i]) {
			known[i].Report = nil
		}
	}
	idle := func(w operations.WorkerProcess) time.Duration { return f.traffic.Idle(w, f.pool.Since()) }
	for _, v := range scheduler.Victims(known, idle) {
		l := f.pool.Find(list[v.Hive].Hive)
		if l != nil && f.Evict(ctx, l, v.Worker, scheduler.MinIdle, "its room is needed for "+model) {
			return true
		}
	}
	return false
}
