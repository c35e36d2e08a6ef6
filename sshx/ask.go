package sshx

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Prompter asks the user. It is called from any goroutine, but only one call at a time per [Dialer]. The time that
// questions take does not count against the dial's Timeout.
type Prompter interface {
	// Secret asks for a password or passphrase, which must not be echoed.
	Secret(ctx context.Context, question string) (string, error)
	// Confirm asks yes or no. The question about an unknown host key shows host, key type and SHA256 fingerprint.
	Confirm(ctx context.Context, question string) (bool, error)
}

var errNoPrompter = errors.New("there is nobody to ask")

// asker lets one question through at a time.
type asker struct {
	prompter Prompter      // nil: nobody to ask
	busy     chan struct{} // holds one token while a question is open
}

// turn waits until no other question is open and then calls fn, while the clock stands.
func (a *asker) turn(ctx context.Context, c *clock, fn func(context.Context, Prompter) error) error {
	if a.prompter == nil {
		return errNoPrompter
	}
	c.pause()
	defer c.resume()
	select {
	case a.busy <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-a.busy }()
	return fn(ctx, a.prompter)
}

// clock ends a context after a time limit that does not run on while somebody is being asked.
type clock struct {
	mu      sync.Mutex
	left    time.Duration
	since   time.Time
	timer   *time.Timer
	holds   int
	expired func()
}

// startClock gives a context that expire ends after limit. The clock stands until the first resume.
func startClock(ctx context.Context, limit time.Duration, cause error) (context.Context, *clock, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &clock{left: limit, holds: 1, expired: func() { cancel(cause) }}
	return ctx, c, func() { c.pause(); cancel(context.Canceled) }
}

func (c *clock) pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds++; c.holds == 1 {
		c.timer.Stop()
		c.left -= time.Since(c.since)
	}
}

func (c *clock) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holds--; c.holds == 0 {
		c.since = time.Now()
		c.timer = time.AfterFunc(c.left, c.expired)
	}
}
