package sshx

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Prompter asks the user questions. A [Dialer] calls it from any goroutine, but makes only one call at a time. The time of a
// call does not count against [Dialer.Timeout].
type Prompter interface {
	// Secret asks for a password or passphrase. The input must not be echoed.
	Secret(ctx context.Context, question string) (string, error)
	// Confirm asks a yes/no question. The question about an unknown host key contains the host, the key type and the SHA256
	// fingerprint.
	Confirm(ctx context.Context, question string) (bool, error)
}

var errNoPrompter = errors.New("prompts are disabled")

// promptQueue serializes the calls of a Prompter.
type promptQueue struct {
	prompter Prompter      // may be nil
	sem      chan struct{} // contains one token while a prompt is open
}

// do waits until no other prompt is open and then calls fn. It pauses the clock until fn returns.
func (q *promptQueue) do(ctx context.Context, c *clock, fn func(context.Context, Prompter) error) error {
	if q.prompter == nil {
		return errNoPrompter
	}
	c.pause()
	defer c.resume()
	select {
	case q.sem <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-q.sem }()
	return fn(ctx, q.prompter)
}

// clock cancels a context after a time limit. It can be paused while the user is prompted.
type clock struct {
	mu        sync.Mutex
	remaining time.Duration
	since     time.Time
	timer     *time.Timer
	pauses    int
	expired   func()
}

// startClock returns a context that is canceled with cause after limit. The clock is paused until the first resume.
func startClock(ctx context.Context, limit time.Duration, cause error) (context.Context, *clock, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &clock{remaining: limit, pauses: 1, expired: func() { cancel(cause) }}
	return ctx, c, func() { c.pause(); cancel(context.Canceled) }
}

func (c *clock) pause() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pauses++; c.pauses == 1 {
		c.timer.Stop()
		c.remaining -= time.Since(c.since)
	}
}

func (c *clock) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pauses--; c.pauses == 0 {
		c.since = time.Now()
		c.timer = time.AfterFunc(c.remaining, c.expired)
	}
}
