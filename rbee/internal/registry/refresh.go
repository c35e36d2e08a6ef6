package registry

import (
	"context"
	"time"

	"github.com/sourcegraph/conc/pool"
)

// refreshInterval is the least time between two rounds of asking all hives how they are.
const refreshInterval = time.Second

// refreshRound is a round of asking all hives how they are, for all who wait for it.
type refreshRound struct{ done chan struct{} }

// RefreshAll waits until all hives were asked anew: what they told may be half a second
// old, and somebody may have done something since. However many wait, it is done once
// a second at most.
func (r *Pool) RefreshAll(ctx context.Context) error {
	r.mu.Lock()
	r.refreshing++
	defer func() { r.mu.Lock(); r.refreshing--; r.mu.Unlock() }()
	round := r.round
	if round == nil {
		round = &refreshRound{done: make(chan struct{})}
		r.round = round
		go r.runRound(round, refreshInterval-time.Since(r.roundAt))
	}
	r.mu.Unlock()
	select {
	case <-round.done:
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

func (r *Pool) runRound(round *refreshRound, after time.Duration) {
	defer close(round.done)
	select {
	case <-time.After(after):
	case <-r.background.Done():
	}
	r.mu.Lock()
	r.round, r.roundAt = nil, time.Now() // who comes from now on waits for the next one
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(r.background, settleTimeout)
	defer cancel()
	p := pool.New().WithMaxGoroutines(MaxParallel)
	for _, l := range r.Connections() {
		p.Go(func() { l.ask(ctx) })
	}
	p.Wait()
}

// ask asks the hive how it is. Of two answers the one counts that the hive gave later.
func (l *Connection) ask(ctx context.Context) {
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
