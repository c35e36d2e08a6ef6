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
func (p *Pool) RefreshAll(ctx context.Context) error {
	p.mu.Lock()
	p.refreshing++
	p.mu.Unlock()
	defer func() { p.mu.Lock(); p.refreshing--; p.mu.Unlock() }()
	done := p.refreshGroup.DoChan("", func() (any, error) {
		p.refreshHives()
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
func (p *Pool) Refreshing() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refreshing
}

// refreshHives waits until refreshInterval has passed since the last refresh, and requests all
// snapshots.
func (p *Pool) refreshHives() {
	p.mu.Lock()
	after := refreshInterval - time.Since(p.lastRefresh)
	p.mu.Unlock()
	select {
	case <-time.After(after):
	case <-p.background.Done():
	}
	p.mu.Lock()
	p.lastRefresh = time.Now()
	p.mu.Unlock()
	p.refreshGroup.Forget("") // later callers wait for the next refresh
	ctx, cancel := context.WithTimeout(p.background, readyTimeout)
	defer cancel()
	group := pool.New().WithMaxGoroutines(MaxParallel)
	for _, c := range p.Connections() {
		group.Go(func() { c.refresh(ctx) })
	}
	group.Wait()
}

// refresh requests a snapshot of the hive, and stores it unless the stored one is newer.
func (c *Connection) refresh(ctx context.Context) {
	d := c.Client()
	if d == nil {
		return
	}
	defer d.Close()
	s, err := d.Snapshot(ctx)
	if err != nil {
		return // watchDaemon handles the error
	}
	c.mu.Lock()
	newer := c.snapshot == nil || s.Time.After(c.snapshot.Time)
	if newer {
		c.snapshot = s
	}
	c.mu.Unlock()
	if newer {
		c.pool.onReport(c.hive.Alias, s.Workers)
		c.pool.Notify()
	}
}
