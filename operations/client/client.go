package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// Client runs operations on a queen or a hive over HTTP. It implements
// [operations.Runner]. Clients are safe for concurrent use by multiple goroutines; the
// fields must not be modified while a client is in use.
//
// Each operation runs on the server as a job, whether or not a client watches it.
// [Client.Run] starts a job and watches it until it ends. If the connection breaks, Run
// reconnects and continues after the last event; it delivers each event once and in
// order. [Client.Start] and [Client.Watch] perform these two steps separately. Client sends the
// request ID of the context (see [WithRequestID]) with each request, so that related log
// lines on both sides have the same ID.
//
// # Errors
//
// Errors are [*operations.Error] values. Errors that the server reports are returned
// unchanged. If the server cannot be reached or the connection is lost, the code is
// [operations.CodeUnreachable] and the reason is, for example, "resolve", "refused",
// "timeout" or "lost". If the response is not from rbee, or the server rejects the token
// (reason "auth"), the code is [operations.CodeFailed]. Errors never contain the token.
type Client struct {
	// URL is the base URL of the server, such as http://127.0.0.1:8600. Required.
	URL string

	// Token is sent as a bearer token. Empty means no token.
	Token operations.Secret

	// HTTP is the HTTP client. It should not have a Timeout, which would interrupt
	// streams. Nil means a client with the default transport that does not follow
	// redirects.
	HTTP *http.Client

	// Retry is the maximum time to retry after a connection has broken. Each event
	// that arrives resets it. 0 means 30 seconds; a negative duration means do not
	// retry. The client does not retry if the first attempt to connect fails.
	Retry time.Duration
}

var _ operations.Runner = (*Client)(nil)

const (
	defaultRetry      = 30 * time.Second // default of Client.Retry
	requestTimeout    = 30 * time.Second // for requests other than streams, without data sent or received
	streamIdleTimeout = 45 * time.Second // without data received; servers send some every 15 s
	cancelTimeout     = 5 * time.Second  // for the request that cancels a job
	cancelGracePeriod = 10 * time.Second // for a canceled job to end
)

// Run implements [operations.Runner].
//
// When ctx ends, Run cancels the job and waits up to 10 seconds for it to end. If the
// server sends a report, Run returns it. Otherwise, Run returns an error with
// [operations.CodeCanceled].
//
// If the connection was too slow or interrupted for too long, the server may have
// discarded events. Run then receives an event of type [operations.EventNote] instead.
func (c *Client) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	job, err := c.start(ctx, op, cancelTimeout)
	if err != nil {
		return nil, err
	}
	watchCtx, stop := delayCancel(ctx, func() time.Duration {
		c.cancelJob(ctx, job.ID)
		return cancelGracePeriod
	})
	defer stop()
	w := watch{client: c, id: job.ID, kind: op.Kind(), events: events, jobSeen: true}
	report, err := w.follow(watchCtx)
	switch {
	case err == nil || report != nil || ctx.Err() == nil:
		return report, err
	case watchCtx.Err() != nil:
		return nil, canceledError(ctx, fmt.Errorf("job %s has not ended within %v", job.ID, cancelGracePeriod))
	}
	return nil, canceledError(ctx, err)
}

// Start starts a job and returns without waiting for it to end. If the response is lost,
// Start repeats the request with the same idempotency key, so the operation runs only
// once. If the server was restarted in between and cannot check the key, it rejects the
// repeated request.
func (c *Client) Start(ctx context.Context, op operations.Operation) (Job, error) {
	return c.start(ctx, op, 0)
}

// Watch passes the events of a job to the handler and returns the report or error of the
// job. It omits the events up to the event with the ID after; 0 means all events. When ctx
// ends, Watch returns but the job continues.
func (c *Client) Watch(ctx context.Context, id string, after int64, events operations.Handler) (operations.Report, error) {
	w := watch{client: c, id: id, last: after, events: events}
	return w.follow(ctx)
}

// Jobs returns the running jobs and the jobs that ended recently, oldest first.
func (c *Client) Jobs(ctx context.Context) ([]Job, error) {
	var list struct {
		Jobs []Job `json:"jobs"`
	}
	err := c.get(ctx, "/v1/jobs", &list)
	return list.Jobs, err
}

// Job returns one job, including its report. The error code for an unknown job is
// [operations.CodeNotFound].
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	var job Job
	err := c.get(ctx, jobPath(id), &job)
	return job, err
}

// Cancel requests the cancellation of a job and does not wait for it to end. It does
// nothing if the job has already ended. The error code for an unknown job is
// [operations.CodeNotFound].
func (c *Client) Cancel(ctx context.Context, id string) error {
	var job Job
	return c.exchange(ctx, &request{method: http.MethodDelete, path: jobPath(id)}, &job)
}

// Health returns nil if the server responds and is rbee.
func (c *Client) Health(ctx context.Context) error {
	var body map[string]json.RawMessage // any JSON object is valid
	return c.get(ctx, "/health", &body)
}

// Info requests information about the server, such as its version and PID, and
// decodes the JSON response into v, as [json.Unmarshal] does.
func (c *Client) Info(ctx context.Context, v any) error {
	return c.get(ctx, "/v1/info", v)
}

func jobPath(id string) string { return "/v1/jobs/" + url.PathEscape(id) }

// start starts a job. If ctx ends after the request was sent, start waits up to grace for
// the response, so that the caller knows the ID and can cancel the job.
func (c *Client) start(ctx context.Context, op operations.Operation, grace time.Duration) (Job, error) {
	if op == nil {
		return Job{}, invalidOperation("invalid operation nil")
	}
	if err := op.Validate(); err != nil {
		return Job{}, err
	}
	if ctx.Err() != nil {
		return Job{}, canceledError(ctx, nil)
	}
	body, err := op.MarshalJSON()
	if err != nil {
		return Job{}, invalidOperation("%s: %v", op.Kind(), err)
	}
	req := &request{method: http.MethodPost, path: "/v1/jobs", body: body, header: http.Header{}}
	req.header.Set("Content-Type", "application/json")
	req.header.Set("Idempotency-Key", rand.Text())
	reqCtx, stop := delayCancel(ctx, func() time.Duration {
		if req.connected.Load() {
			return grace
		}
		return 0
	})
	defer stop()
	id, err := c.post(reqCtx, req)
	if err != nil {
		if ctx.Err() != nil {
			err = canceledError(ctx, err)
		}
		return Job{}, err
	}
	return NewJob(id, op), nil
}

// post sends the request, with retries, and returns the ID of the job.
func (c *Client) post(ctx context.Context, req *request) (string, error) {
	var created struct {
		JobID string `json:"job_id"`
	}
	first := time.Now()
	retry := c.newRetrier()
	for {
		err := c.exchange(ctx, req, &created)
		switch {
		case err == nil && created.JobID == "":
			return "", &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotRbee, Subject: operations.SubjectQueen.WithName(c.address()), Message: c.address() + " is not rbee: its response has no job id"}
		case err == nil:
			return created.JobID, nil
		case operations.CodeOf(err) != operations.CodeUnreachable || !req.connected.Load():
			return "", err // a response, or the request was not sent
		case !retry.wait(ctx):
			return "", wrapError(err, "%v; the operation may have started", err)
		}
		// The server may have received the request. The age of the key shows whether the
		// server would still have a record of it.
		req.header.Set("Idempotency-Age", strconv.FormatFloat(time.Since(first).Seconds(), 'f', 3, 64))
	}
}

// cancelJob cancels a job, with retries. It uses only the values of ctx, which has already
// ended.
func (c *Client) cancelJob(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	retry := c.newRetrier()
	for {
		err := c.Cancel(ctx, id)
		if operations.CodeOf(err) != operations.CodeUnreachable || !retry.wait(ctx) {
			return // errors are ignored: the stream reports how the job ends
		}
	}
}

// canceledError returns the error of an operation that was canceled through ctx. err is
// the error that the operation returned; it may be nil.
func canceledError(ctx context.Context, err error) error {
	e := &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: "canceled"}
	cause := context.Cause(ctx)
	var opErr *operations.Error
	switch {
	case errors.As(err, &opErr) && opErr.Code == operations.CodeCanceled:
		*e = *opErr
	case err != nil:
		e.Message = fmt.Sprintf("canceled: %v", err)
	case !errors.Is(cause, context.Canceled):
		e.Message = fmt.Sprintf("canceled: %v", cause)
	}
	e.Err = cause
	return e
}

func invalidOperation(format string, args ...any) *operations.Error {
	return &operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Message: fmt.Sprintf(format, args...)}
}
