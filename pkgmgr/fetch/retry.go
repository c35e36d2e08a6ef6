package fetch

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// maxFailures is how many attempts in a row may fail without progress.
	maxFailures = 6

	// retryPause is the pause before the first retry.
	retryPause = 250 * time.Millisecond

	// maxPauseDoublings limits how often the pause is doubled.
	maxPauseDoublings = 5
)

// Retry calls attempt until it succeeds, and returns its last error after six failures,
// or at once after a [StatusError] that is not temporary. It waits pause before the
// first retry, 0 means 250 ms, then twice as long each time, and at least as long as the
// server asks. It ends with ctx.
func Retry(ctx context.Context, pause time.Duration, attempt func() error) error {
	return retry(ctx, pause, func(int) (bool, error) {
		err := attempt()
		var status *StatusError
		if errors.As(err, &status) && !status.Temporary() {
			err = backoff.Permanent(err)
		}
		return false, err
	})
}

// retry calls attempt until it succeeds, fails with a permanent error, or has failed
// maxFailures times in a row without progress. attempt gets the number of such failures
// before it.
func retry(ctx context.Context, pause time.Duration, attempt func(failures int) (progress bool, err error)) error {
	pause = cmp.Or(pause, retryPause)
	p := &pacer{ExponentialBackOff: backoff.ExponentialBackOff{InitialInterval: pause, Multiplier: 2, MaxInterval: pause << maxPauseDoublings}}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		progress, err := attempt(p.failures)
		if progress {
			p.Reset()
		}
		p.failed(err)
		return struct{}{}, err
	}, backoff.WithBackOff(p), backoff.WithMaxElapsedTime(0))
	return err
}

// pacer computes the pauses between attempts.
type pacer struct {
	backoff.ExponentialBackOff
	failures int           // in a row without progress
	atLeast  time.Duration // what the server asks for
}

// Reset implements [backoff.BackOff].
func (p *pacer) Reset() {
	p.ExponentialBackOff.Reset()
	p.failures = 0
}

// failed counts a failed attempt.
func (p *pacer) failed(err error) {
	p.failures++
	p.atLeast = 0
	var status *StatusError
	if errors.As(err, &status) {
		p.atLeast = status.RetryAfter
	}
}

// NextBackOff implements [backoff.BackOff].
func (p *pacer) NextBackOff() time.Duration {
	if p.failures >= maxFailures {
		return backoff.Stop
	}
	return max(p.ExponentialBackOff.NextBackOff(), p.atLeast)
}
