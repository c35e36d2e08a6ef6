// Package timeout provides time limits that can be paused, for example while a user answers
// a question.
package timeout

import (
	"context"
	"sync"
	"time"
)

// Clock cancels a context after a time limit. It can be paused. Its methods may be called
// concurrently.
type Clock struct {
	mu        sync.Mutex
	remaining time.Duration
	since     time.Time
	timer     *time.Timer
	pauses    int
	expired   func()
}

// WithClock returns a context that is canceled with cause when the returned clock has run
// for limit. The clock is paused until the first call of Resume. The returned function
// cancels the context and stops the clock.
func WithClock(ctx context.Context, limit time.Duration, cause error) (context.Context, *Clock, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &Clock{remaining: limit, pauses: 1, expired: func() { cancel(cause) }}
	return ctx, c, func() { c.Pause(); cancel(context.Canceled) }
}

// Pause stops the clock until Resume has been called as often as Pause.
func (c *Clock) Pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pauses++; c.pauses == 1 {
		c.timer.Stop()
		c.remaining -= time.Since(c.since)
	}
}

// Resume ends one pause. Each call must follow a call of Pause or [WithClock].
func (c *Clock) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pauses--; c.pauses == 0 {
		c.since = time.Now()
		c.timer = time.AfterFunc(c.remaining, c.expired)
	}
}
