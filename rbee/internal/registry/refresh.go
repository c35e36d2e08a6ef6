package registry

import (
	"context"
	"time"

	"github.com/sourcegraph/conc/pool"
)

// refreshInterval is the minimum time between two refreshes of all hives.
const refreshInterval = time.Second

// RefreshAll requests the snapshots of all hives and waits for them. The stored snapshots
// may be half a second old and miss recent changes. Concurrent callers share a refresh,
// and there is at most one per refreshInterval.
func (r *Pool) RefreshAll(ctx context.Context) error {
	r.mu.Lock()
	r.refreshing++
	r.mu.Unlock()
	defer func() { r.mu.Lock(); r.refreshing--; r.mu.Unlock() }()
	done := r.refreshGroup.DoChan("", func() (any, error) {
		r.refreshHives()
		return nil, nil
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Refreshing returns the number of callers that wait in [Pool.RefreshAll].
func (r *Pool) Refreshing() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refreshing
}

// refreshHives waits for the refresh interval and requests all snapshots.
func (r *Pool) refreshHives() {
	r.mu.Lock()
	after := refreshInterval - time.Since(r.lastRefresh)
	r.mu.Unlock()
	select {
	case <-time.After(after):
	case <-r.background.Done():
	}
	r.mu.Lock()
	r.lastRefresh = time.Now()
	r.mu.Unlock()
	r.refreshGroup.Forget("") // later callers wait for the next refresh
	ctx, cancel := context.WithTimeout(r.background, readyTimeout)
	defer cancel()
	p := pool.New().WithMaxGoroutines(MaxParallel)
	for _, l := range r.Connections() {
		p.Go(func() { l.refresh(ctx) })
	}
	p.Wait()
}

// refresh requests a snapshot of the hive. It keeps the newer of two snapshots.
func (l *Connection) refresh(ctx context.Context) {
	d := l.Client()
	if d == nil {
		return
	}
	defer d.Close()
	s, err := d.Snapshot(ctx)
	if err != nil {
		return // watchDaemon handles the error
	}
	l.mu.Lock()
	newer := l.snapshot == nil || s.Time.After(l.snapshot.Time)
	if newer {
		l.snapshot = s
	}
	l.mu.Unlock()
	if newer {
		l.pool.onReport(l.hive.Alias, s.Workers)
		l.pool.Notify()
	}
}
