package queen

import (
	"context"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/rbee-keeper/rbee/operations"
)

// freshEvery is the least time between two rounds of asking all hives how they are.
const freshEvery = time.Second

// freshRound is a round of asking all hives how they are, for all who wait for it.
type freshRound struct{ done chan struct{} }

// freshen waits until all hives were asked anew: what they told may be half a second
// old, and somebody may have done something since. However many wait, it is done once
// a second at most.
func (f *gatewayFleet) freshen(ctx context.Context) error {
	f.mu.Lock()
	f.freshening++
	defer func() { f.mu.Lock(); f.freshening--; f.mu.Unlock() }()
	r := f.fresh
	if r == nil {
		r = &freshRound{done: make(chan struct{})}
		f.fresh = r
		go f.freshenAll(r, freshEvery-time.Since(f.freshAt))
	}
	f.mu.Unlock()
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *gatewayFleet) freshenAll(r *freshRound, after time.Duration) {
	defer close(r.done)
	select {
	case <-time.After(after):
	case <-f.background.Done():
	}
	f.mu.Lock()
	f.fresh, f.freshAt = nil, time.Now() // who comes from now on waits for the next one
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(f.background, settling)
	defer cancel()
	p := pool.New().WithMaxGoroutines(maxAsked)
	for _, l := range f.queen.registry.all() {
		p.Go(func() { l.ask(ctx) })
	}
	p.Wait()
}

// ask asks the hive how it is. Of two answers the one counts that the hive gave later.
func (l *link) ask(ctx context.Context) {
	d := l.lendDoor()
	if d == nil {
		return
	}
	defer d.close()
	s, err := d.snapshot(ctx)
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
		l.registry.queen.traffic.heard(l.hive.Alias, s.Workers)
		l.registry.news()
	}
}

// whyNot says, hive by hive, why nobody serves a model, from what hives have told.
func (f *gatewayFleet) whyNot(name string) error {
	op := operations.Infer{Model: name}
	var views []view
	for _, l := range f.queen.registry.all() {
		v := view{hive: l.hive, snapshot: l.view(time.Now()).Snapshot}
		if e := l.trouble(); e != nil {
			v.err = e
		}
		views = append(views, v)
	}
	f.queen.among(views, op)
	_, why := places(views, name)
	sayWhy(views, why)
	err := noOffer(op, views)
	for _, v := range views {
		if v.snapshot == nil { // unreachable is not absent
			return &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonOf(v.err), Subject: operations.SubjectModel.Named(name), Message: err.Error(), Err: err}
		}
	}
	return err
}
