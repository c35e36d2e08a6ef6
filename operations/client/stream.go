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

var errStreamIdle = errors.New("no data received for 45 seconds")

// watch reads the stream of one job. It is used by one goroutine, which calls events.
type watch struct {
	client  *Client
	id      string
	kind    operations.Kind    // empty if not known before the result
	events  operations.Handler // may be nil
	last    int64              // ID of the last event passed to events
	report  []byte             // the part of the report received so far
	jobSeen bool               // the server has confirmed that the job exists
}

// brokenError is the error of a stream that can be resumed.
type brokenError struct{ error }

func (e brokenError) Unwrap() error { return e.error }

// follow reads the stream of the job until the result. It reconnects if the connection
// breaks.
func (w *watch) follow(ctx context.Context) (operations.Report, error) {
	retry := w.client.newRetrier()
	for {
		if ctx.Err() != nil {
			return nil, canceledError(ctx, nil)
		}
		result, err := w.stream(ctx, retry)
		if err == nil {
			return w.parseResult(result)
		}
		var broken brokenError
		if !errors.As(err, &broken) {
			return nil, err
		}
		if !w.jobSeen {
			return nil, broken.error // the first attempt failed
		}
		if !retry.wait(ctx) {
			if ctx.Err() != nil {
				return nil, canceledError(ctx, nil)
			}
			e := wrapError(broken.error, "%v; job %s may still be running", broken.error, w.id)
			e.Reason = operations.ReasonLost
			return nil, e
		}
	}
}

// stream opens the stream of the job once, after the last event, and reads the result.
func (w *watch) stream(ctx context.Context, retry *retrier) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := time.AfterFunc(streamIdleTimeout, func() { cancel(errStreamIdle) })
	defer idle.Stop()
	broken := func(r *request, err error) error {
		if errors.Is(context.Cause(ctx), errStreamIdle) {
			err = errStreamIdle
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
		var opErr *operations.Error
		if errors.As(err, &opErr) && opErr.Code != operations.CodeUnreachable {
			return nil, opErr // the request was not sent
		}
		return nil, broken(r, err)
	}
	defer resp.Body.Close()
	if err := w.check(resp); err != nil {
		return nil, err
	}
	w.jobSeen, w.report = true, nil
	body := &timedBody{r: resp.Body, timer: idle}
	result, err := w.read(sse.NewReader(body, 0), body, retry)
	var opErr *operations.Error
	if err != nil && !errors.As(err, &opErr) {
		return nil, broken(r, err)
	}
	return result, err
}

// check returns an error unless the response is an event stream.
func (w *watch) check(resp *http.Response) error {
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // empty for an invalid type
	switch {
	case resp.StatusCode == http.StatusOK && mediaType == sse.ContentType:
		return nil
	case resp.StatusCode == http.StatusOK:
		return w.client.notRbeeError(resp)
	}
	err := w.client.responseError(resp)
	if operations.CodeOf(err) == operations.CodeNotFound && w.jobSeen {
		return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotFound, Subject: operations.SubjectJob.WithName(w.id), Message: fmt.Sprintf("job %s no longer exists: rbee was restarted or has discarded it", w.id), Err: err}
	}
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return brokenError{err} // a proxy that cannot reach rbee
	}
	return err
}

// read passes the events of one stream to the handler, and returns the result of the job.
func (w *watch) read(r *sse.Reader, body *timedBody, retry *retrier) (result []byte, err error) {
	for {
		event, err := r.Next()
		switch {
		case result != nil && err != nil:
			return result, nil
		case errors.Is(err, sse.ErrTooLong):
			return nil, w.streamError(err)
		case err != nil:
			return nil, err
		case result != nil: // the marker after the result
		case event.Comment:
			retry.reset()
		case event.Name == "event" && event.ID > w.last:
			if err := w.dispatch(event); err != nil {
				return nil, err
			}
			retry.reset()
		case event.Name == "report":
			if len(w.report)+len(event.Data) > maxReportBytes {
				return nil, w.streamError(errors.New("the report is larger than 512 MiB"))
			}
			w.report = append(w.report, event.Data...)
		case event.Name == "result":
			result = append([]byte{}, event.Data...)
			body.finish() // read to the end, so that the connection can be reused
		case event.Name == "" && len(event.Data) > 0 && event.Data[0] == '[':
			return nil, w.streamError(fmt.Errorf("the stream ended without a result: %.200s", event.Data))
		default: // an unknown event of a newer rbee, or a repeated event
		}
	}
}

// dispatch passes one event to the handler.
func (w *watch) dispatch(event sse.Event) error {
	w.last = event.ID
	if w.events == nil {
		return nil
	}
	var e operations.Event
	if err := json.Unmarshal(event.Data, &e); err != nil {
		return w.streamError(fmt.Errorf("event %d: %w", event.ID, err))
	}
	w.events(e)
	return nil
}

func (w *watch) streamError(err error) error {
	return &operations.Error{
		Code: operations.CodeFailed, Reason: operations.ReasonNotRbee, Subject: operations.SubjectJob.WithName(w.id), Message: fmt.Sprintf("cannot read the events of job %s from %s: %v", w.id, w.client.address(), err), Err: err,
	}
}

// parseResult returns the report and the error of the job.
func (w *watch) parseResult(data []byte) (operations.Report, error) {
	var result struct {
		Operation operations.Kind   `json:"operation"`
		Report    json.RawMessage   `json:"report"`
		Bytes     int               `json:"report_bytes"`
		Error     *operations.Error `json:"error"`
	}
	if err := json.Unmarshal(data, &result); err != nil {
		return nil, w.streamError(err)
	}
	if result.Bytes > 0 {
		if len(w.report) != result.Bytes {
			return nil, w.streamError(fmt.Errorf("received %d of %d bytes of the report", len(w.report), result.Bytes))
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
			return nil, w.streamError(err)
		}
	}
	switch {
	case result.Error != nil:
		return report, result.Error
	case report == nil:
		return nil, w.streamError(errors.New("empty result"))
	}
	return report, nil
}

// timedBody is a response body with a timeout for each read. The timer cancels the request
// and is stopped between reads.
type timedBody struct {
	r         io.Reader
	timer     *time.Timer
	finishing bool
}

func (b *timedBody) Read(p []byte) (int, error) {
	if b.finishing {
		return b.r.Read(p)
	}
	b.timer.Reset(streamIdleTimeout)
	n, err := b.r.Read(p)
	b.timer.Stop()
	return n, err
}

// finish limits the time for the rest of the body to one second.
func (b *timedBody) finish() {
	b.finishing = true
	b.timer.Reset(time.Second)
}

// retrier limits the total time of retries, measured from the first call of wait after
// newRetrier or reset.
type retrier struct {
	limit   time.Duration
	since   time.Time // zero before the first wait
	backoff backoff.ExponentialBackOff
}

func (c *Client) newRetrier() *retrier {
	limit := c.Retry
	if limit == 0 {
		limit = defaultRetry
	}
	// The first interval is 10 to 20 ms, the longest 1.5 to 3 s.
	return &retrier{limit: limit, backoff: backoff.ExponentialBackOff{
		InitialInterval: 15 * time.Millisecond, RandomizationFactor: 1. / 3, Multiplier: 2, MaxInterval: 2250 * time.Millisecond,
	}}
}

func (r *retrier) reset() {
	r.since = time.Time{}
	r.backoff.Reset()
}

// wait waits before the next attempt, with exponential backoff and jitter. It returns false
// immediately if the limit would be exceeded, or when ctx ends.
func (r *retrier) wait(ctx context.Context) bool {
	if r.since.IsZero() {
		r.since = time.Now()
	}
	d := r.backoff.NextBackOff()
	if time.Since(r.since)+d > r.limit {
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

// delayCancel returns a context that is canceled later than ctx. When ctx ends, delayCancel
// calls delay in another goroutine, and cancels the returned context after the duration that
// delay returns. stop cancels the returned context and waits for the goroutine.
func delayCancel(ctx context.Context, delay func() time.Duration) (_ context.Context, stop func()) {
	delayed, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	done := make(chan struct{})
	unregister := context.AfterFunc(ctx, func() {
		defer close(done)
		t := time.NewTimer(delay())
		defer t.Stop()
		select {
		case <-delayed.Done():
		case <-t.C:
			cancel(context.Cause(ctx))
		}
	})
	return delayed, func() {
		cancel(nil)
		if !unregister() {
			<-done
		}
	}
}
