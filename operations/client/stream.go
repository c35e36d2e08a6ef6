package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
)

var errSilent = errors.New("nothing came for 45 seconds")

// watch follows one job. It belongs to one goroutine, from which it calls events.
type watch struct {
	client *Client
	id     string
	kind   operations.Kind    // empty: what the result says
	events operations.Handler // nil: discarded
	last   int64              // id of the last event that was given
	report []byte             // as far as it came in pieces before the result
	begun  bool               // the job is known to have been there
}

// brokenError is the end of a stream that may go on when it is asked for again.
type brokenError struct{ error }

func (e brokenError) Unwrap() error { return e.error }

// follow reads the job's stream to its result, and again where it breaks.
func (w *watch) follow(ctx context.Context) (operations.Report, error) {
	wait := w.client.patience()
	for {
		if ctx.Err() != nil {
			return nil, canceledError(ctx, nil)
		}
		result, err := w.stream(ctx, wait)
		if err == nil {
			return w.conclude(result)
		}
		var broken brokenError
		if !errors.As(err, &broken) {
			return nil, err
		}
		if !w.begun {
			return nil, broken.error // there never was a stream
		}
		if !wait.pause(ctx) {
			if ctx.Err() != nil {
				return nil, canceledError(ctx, nil)
			}
			e := wrapError(broken.error, "%v; job %s may go on there", broken.error, w.id)
			e.Reason = operations.ReasonLost
			return nil, e
		}
	}
}

// stream reads the job's stream once, from where the last one stopped.
func (w *watch) stream(ctx context.Context, wait *patience) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer silent.Stop()
	broken := func(r *request, err error) error {
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
			return brokenError{w.client.transportError(context.Background(), r, err)}
		}
		return brokenError{w.client.transportError(ctx, r, err)}
	}

	r := &request{method: http.MethodGet, path: jobPath(w.id) + "/stream", header: http.Header{}}
	r.header.Set("Accept", sse.ContentType)
	if w.last > 0 {
		r.header.Set("Last-Event-ID", strconv.FormatInt(w.last, 10))
	}
	resp, err := w.client.send(ctx, r)
	if err != nil {
		var known *operations.Error
		if errors.As(err, &known) && known.Code != operations.CodeUnreachable {
			return nil, known // nothing was asked
		}
		return nil, broken(r, err)
	}
	defer resp.Body.Close()
	if err := w.check(resp); err != nil {
		return nil, err
	}
	w.begun, w.report = true, nil
	body := &watched{r: resp.Body, timer: silent}
	result, err := w.read(sse.NewReader(body, 0), body, wait)
	var known *operations.Error
	if err != nil && !errors.As(err, &known) {
		return nil, broken(r, err)
	}
	return result, err
}

// check tells whether an answer is the stream that was asked for.
func (w *watch) check(resp *http.Response) error {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // no type is the wrong type
	switch {
	case resp.StatusCode == http.StatusOK && kind == sse.ContentType:
		return nil
	case resp.StatusCode == http.StatusOK:
		return w.client.noRbee(resp)
	}
	err := w.client.refusal(resp)
	if operations.CodeOf(err) == operations.CodeNotFound && w.begun {
		return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotFound, Subject: operations.SubjectJob.Named(w.id), Message: fmt.Sprintf("job %s is not known any more: rbee there was restarted, or has forgotten it", w.id), Err: err}
	}
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return brokenError{err} // a proxy whose other side is away
	}
	return err
}

// read gives the events of one stream and returns the result at its end.
func (w *watch) read(s *sse.Reader, body *watched, wait *patience) (result []byte, err error) {
	for {
		f, err := s.Next()
		switch {
		case result != nil && err != nil:
			return result, nil
		case errors.Is(err, sse.ErrTooLong):
			return nil, w.unreadable(err)
		case err != nil:
			return nil, err
		case result != nil: // the last line, which says nothing more
		case f.Comment:
			wait.reset()
		case f.Name == "event" && f.ID > w.last:
			if err := w.give(f); err != nil {
				return nil, err
			}
			wait.reset()
		case f.Name == "report":
			if len(w.report)+len(f.Data) > maxReport {
				return nil, w.unreadable(errors.New("the report is bigger than 512 MiB"))
			}
			w.report = append(w.report, f.Data...)
		case f.Name == "result":
			result = append([]byte{}, f.Data...)
			body.finish() // the rest is read only to keep the connection
		case f.Name == "" && len(f.Data) > 0 && f.Data[0] == '[':
			return nil, w.unreadable(fmt.Errorf("it ended without a result: %.200s", f.Data))
		default: // what a newer rbee may send, and what was given already
		}
	}
}

// give hands one event on.
func (w *watch) give(f sse.Event) error {
	w.last = f.ID
	if w.events == nil {
		return nil
	}
	var e operations.Event
	if err := json.Unmarshal(f.Data, &e); err != nil {
		return w.unreadable(fmt.Errorf("event %d: %w", f.ID, err))
	}
	w.events(e)
	return nil
}

func (w *watch) unreadable(err error) error {
	return &operations.Error{
		Code: operations.CodeFailed, Reason: operations.ReasonOtherProgram, Subject: operations.SubjectJob.Named(w.id), Message: fmt.Sprintf("the events of job %s from %s cannot be read: %v", w.id, w.client.where(), err), Err: err,
	}
}

// conclude reads a result.
func (w *watch) conclude(data []byte) (operations.Report, error) {
	var result struct {
		Operation operations.Kind   `json:"operation"`
		Report    json.RawMessage   `json:"report"`
		Bytes     int               `json:"report_bytes"`
		Error     *operations.Error `json:"error"`
	}
	if err := json.Unmarshal(data, &result); err != nil {
		return nil, w.unreadable(err)
	}
	if result.Bytes > 0 {
		if len(w.report) != result.Bytes {
			return nil, w.unreadable(fmt.Errorf("%d bytes of a report came, of %d", len(w.report), result.Bytes))
		}
		result.Report, w.report = w.report, nil
	}
	kind := w.kind
	if kind == "" {
		kind = result.Operation
	}
	var report operations.Report
	if len(result.Report) > 0 && string(result.Report) != "null" {
		var err error
		if report, err = operations.ParseReport(kind, result.Report); err != nil {
			return nil, w.unreadable(err)
		}
	}
	switch {
	case result.Error != nil:
		return report, result.Error
	case report == nil:
		return nil, w.unreadable(errors.New("the result is empty"))
	}
	return report, nil
}

// watched is a body whose reads are limited in time, by a timer that ends the
// request. What is done between them may last.
type watched struct {
	r     io.Reader
	timer *time.Timer
	last  bool
}

func (b *watched) Read(p []byte) (int, error) {
	if b.last {
		return b.r.Read(p)
	}
	b.timer.Reset(silence)
	n, err := b.r.Read(p)
	b.timer.Stop()
	return n, err
}

// finish leaves one second for all that is still to be read.
func (b *watched) finish() {
	b.last = true
	b.timer.Reset(time.Second)
}

// patience says how long something is tried again. The time begins with the
// first pause, and anew with reset.
type patience struct {
	limit  time.Duration
	since  time.Time // zero: no pause yet
	pauses backoff.ExponentialBackOff
}

func (c *Client) patience() *patience {
	limit := c.Retry
	if limit == 0 {
		limit = defaultRetry
	}
	// From 10 to 20 ms at first, from 1.5 to 3 s at last.
	return &patience{limit: limit, pauses: backoff.ExponentialBackOff{
		InitialInterval: 15 * time.Millisecond, RandomizationFactor: 1. / 3, Multiplier: 2, MaxInterval: 2250 * time.Millisecond,
	}}
}

func (p *patience) reset() {
	p.since = time.Time{}
	p.pauses.Reset()
}

// pause waits before the next try, longer each time and not always the same. It
// returns false, at once, when no other try should be made.
func (p *patience) pause(ctx context.Context) bool {
	if p.since.IsZero() {
		p.since = time.Now()
	}
	d := p.pauses.NextBackOff()
	if time.Since(p.since)+d > p.limit {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// linger makes a context that lives on after ctx has ended: for as long as last
// says, which is called then, in another goroutine. stop ends the context and
// waits for that goroutine.
func linger(ctx context.Context, last func() time.Duration) (_ context.Context, stop func()) {
	longer, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	done := make(chan struct{})
	unused := context.AfterFunc(ctx, func() {
		defer close(done)
		t := time.NewTimer(last())
		defer t.Stop()
		select {
		case <-longer.Done():
		case <-t.C:
			cancel(context.Cause(ctx))
		}
	})
	return longer, func() {
		cancel(nil)
		if !unused() {
			<-done
		}
	}
}
