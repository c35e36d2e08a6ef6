package loader

import (
	"context"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
)

// evictTimeout limits how long it takes to stop an idle worker and free its memory.
const evictTimeout = 3 * time.Minute

// EvictIdle evicts on-demand workers that have been idle for the given time, until the
// loader's background context is done. If the time is negative, it evicts no workers. It
// also drops the counters of workers that no longer exist.
func (l *Loader) EvictIdle(after time.Duration) {
	every := time.Minute
	if after >= 0 {
		every = max(min(after/4, every), 100*time.Millisecond)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.background.Done():
			return
		}
		l.evictIdleOnce(after)
	}
}

func (l *Loader) evictIdleOnce(after time.Duration) {
	present := map[string]bool{}
	for _, conn := range l.pool.Connections() {
		view := conn.View(time.Now())
		if view.Snapshot == nil {
			continue
		}
		for _, w := range view.Snapshot.Workers {
			present[scheduler.WorkerKey(w)] = true
			if after >= 0 && view.Link == operations.LinkOnline && scheduler.Evictable(w) {
				go l.Evict(l.background, conn, w, after, "idle for "+after.String()) // a slow hive must not delay the others
			}
		}
	}
	l.traffic.Forget(present)
}

// Evict stops a worker that has been idle for the given time, and reports whether it did.
// Requests for its model wait until the worker has exited, then load the model again.
func (l *Loader) Evict(ctx context.Context, conn *registry.Connection, w operations.WorkerProcess, idle time.Duration, reason string) (evicted bool) {
	client := conn.Client()
	if client == nil {
		return false
	}
	defer client.Close()
	done, ok := l.traffic.BeginEviction(w, l.pool.Since(), idle)
	if !ok {
		return false
	}
	defer func() { done(evicted) }()
	ctx, cancel := context.WithTimeout(ctx, evictTimeout)
	defer cancel()
	_, err := client.Do(ctx, operations.WorkerProcessDelete{Target: operations.Target{HiveID: w.Hive}, WorkerRef: operations.WorkerRef{ID: w.ID}}, nil)
	if err != nil {
		l.log.Warn("cannot evict worker", "hive", w.Hive, "worker", w.ID, "error", err)
		return false
	}
	l.log.Info("worker evicted", "hive", w.Hive, "worker", w.ID, "model", scheduler.ServedModel(w), "reason", reason)
	return true
}

// lacksMemory reports whether any hive could not load the model because of insufficient
// memory.
func lacksMemory(list []registry.Snapshot) bool {
	for _, snap := range list {
		if isOutOfMemory(snap) {
			return true
		}
	}
	return false
}

func isOutOfMemory(snap registry.Snapshot) bool {
	return operations.ReasonOf(snap.Err) == operations.ReasonInsufficientMemory
}

// evictForMemory evicts the cheapest idle worker of the hives that could not load the model
// because of insufficient memory. It returns false if no worker could be evicted.
func (l *Loader) evictForMemory(ctx context.Context, list []registry.Snapshot, model string) bool {
	schedHives := hives(list)
	for i := range schedHives {
		if !isOutOfMemory(list[i]) {
			schedHives[i].Report = nil
		}
	}
	idle := func(w operations.WorkerProcess) time.Duration { return l.traffic.Idle(w, l.pool.Since()) }
	for _, v := range scheduler.Victims(schedHives, idle) {
		conn := l.pool.Find(list[v.Hive].Hive)
		if conn != nil && l.Evict(ctx, conn, v.Worker, scheduler.MinIdle, "memory needed for "+model) {
			return true
		}
	}
	return false
}
