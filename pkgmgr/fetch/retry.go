package fetch

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// maxFailures is the maximum number of consecutive attempts that fail without
	// progress.
	maxFailures = 6

	// retryPause is the default pause before the first retry.
	retryPause = 250 * time.Millisecond

	// maxPauseDoublings limits how often the pause is doubled.
	maxPauseDoublings = 5
)

// Retry calls attempt until it succeeds. It returns the last error after six failures, and
// immediately after a [StatusError] that is not temporary. The pause before the first retry
// is pause, where 0 means 250 ms. It doubles with each retry and is at least the time that
// the server requests. Retry stops when ctx is done.
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

// retry calls attempt until it succeeds, returns a permanent error, or has failed maxFailures
// consecutive times without progress. The argument of attempt is the current number of such
// failures.
func retry(ctx context.Context, pause time.Duration, attempt func(failures int) (progress bool, err error)) error {
	pause = cmp.Or(pause, retryPause)
	p := &pacer{ExponentialBackOff: backoff.ExponentialBackOff{InitialInterval: pause, Multiplier: 2, MaxInterval: pause << maxPauseDoublings}}
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		progress, err := attempt(p.failures)
		if progress {
			p.Reset()
		}
		p.addFailure(err)
		return struct{}{}, err
	}, backoff.WithBackOff(p), backoff.WithMaxElapsedTime(0))
	return err
}

// pacer computes the pauses between attempts.
type pacer struct {
	backoff.ExponentialBackOff
	failures int           // consecutive failures without progress
	minPause time.Duration // requested by the server
}

// Reset implements [backoff.BackOff].
func (p *pacer) Reset() {
	p.ExponentialBackOff.Reset()
	p.failures = 0
}

// addFailure counts a failed attempt.
func (p *pacer) addFailure(err error) {
	p.failures++
	p.minPause = 0
	var status *StatusError
	if errors.As(err, &status) {
		p.minPause = status.RetryAfter
	}
}

// NextBackOff implements [backoff.BackOff].
func (p *pacer) NextBackOff() time.Duration {
	if p.failures >= maxFailures {
		return backoff.Stop
	}
	return max(p.ExponentialBackOff.NextBackOff(), p.minPause)
}
