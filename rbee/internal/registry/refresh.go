package registry

import (
	"context"
	"time"

	"github.com/sourcegraph/conc/pool"
)

// refreshInterval is the least time between two rounds of asking all hives how they are.
const refreshInterval = time.Second

// RefreshAll waits until all hives were asked anew: what they told may be half a second
// old, and somebody may have done something since. However many wait, it is done once
// a second at most.
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

// Refreshing returns the number of callers that [Pool.RefreshAll] has not returned to.
func (r *Pool) Refreshing() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refreshing
}

// refreshHives waits until a round is due and asks all hives.
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
	r.refreshGroup.Forget("") // who comes from now on waits for the next one
	ctx, cancel := context.WithTimeout(r.background, settleTimeout)
	defer cancel()
	p := pool.New().WithMaxGoroutines(MaxParallel)
	for _, l := range r.Connections() {
		p.Go(func() { l.refresh(ctx) })
	}
	p.Wait()
}

// ask asks the hive how it is. Of two answers the one counts that the hive gave later.
func (l *Connection) refresh(ctx context.Context) {
	d := l.Client()
	if d == nil {
		return
	}
	defer d.Close()
	s, err := d.Snapshot(ctx)
	if err != nil {
		return // the one who listens to it notices
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
