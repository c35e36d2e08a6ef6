package sshx

import (
	"context"
	"errors"

	"github.com/rbee-keeper/rbee/sshx/internal/timeout"
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
func (q *promptQueue) do(ctx context.Context, c *timeout.Clock, fn func(context.Context, Prompter) error) error {
	if q.prompter == nil {
		return errNoPrompter
	}
	c.Pause()
	defer c.Resume()
	select {
	case q.sem <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-q.sem }()
	return fn(ctx, q.prompter)
}
