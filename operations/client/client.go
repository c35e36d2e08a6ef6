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

// Client has a queen or a hive do operations, over HTTP. It is the same for
// both, and a [operations.Runner] as the queen's router in this process is one.
//
// An operation becomes a job there, which runs whether it is watched or not.
// [Client.Run] begins a job and watches it to its end; a connection that breaks
// meanwhile is made anew, and the events go on where they stopped: each is given
// once and in order. [Client.Start] and [Client.Watch] are the two halves. The id
// that [WithRequestID] gave to a context goes along, so that the logs on both sides
// tell of one thing.
//
// # Errors
//
// Errors are [*operations.Error] values. What the other side reported comes as it was
// there. [operations.CodeUnreachable] means that it could not be reached, with the Reason
// "resolve", "refused" (nothing listens), "timeout" or "lost" (a connection
// broke), or none. An answer that is not rbee's, and a token that is refused
// (Reason "auth"), are [operations.CodeFailed]. Errors never hold the token.
//
// The fields must not change while the client is used; any number of goroutines
// may use it at once.
type Client struct {
	// URL is where the other side listens, such as http://127.0.0.1:8600. Required.
	URL string

	// Token is sent as a bearer token; empty sends none.
	Token operations.Secret

	// HTTP does the requests. It should have no overall timeout, which would cut
	// streams. Nil means the standard library's default transport, with redirects
	// not followed.
	HTTP *http.Client

	// Retry is how long a connection that broke is tried again before the job is
	// given up as lost; every event that comes begins it anew. 0 means 30
	// seconds, a negative duration not to try again. What could not be reached in
	// the first place is not tried again.
	Retry time.Duration
}

var _ operations.Runner = (*Client)(nil)

// How long the client waits.
const (
	defaultRetry   = 30 * time.Second
	requestTimeout = 30 * time.Second // without a byte out or in, for requests that are no stream
	silence        = 45 * time.Second // without a byte a stream is lost; servers send some every 15 s
	cancelTimeout  = 5 * time.Second  // to tell the other side that a job is canceled
	lastWords      = 10 * time.Second // for a canceled job to end
)

// Run implements [operations.Runner].
//
// When ctx ends, the job is canceled there, and Run goes on reading for up to 10
// seconds: if the other side tells what was done, Run returns that report, and
// else an error with [operations.CodeCanceled].
//
// Events that the server no longer has, because the connection was too slow or
// away for too long, are missing; an event of type [operations.EventNote] stands for them.
func (c *Client) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	job, err := c.start(ctx, op, cancelTimeout)
	if err != nil {
		return nil, err
	}
	watching, stop := linger(ctx, func() time.Duration {
		c.tellCanceled(ctx, job.ID)
		return lastWords
	})
	defer stop()
	w := watch{client: c, id: job.ID, kind: op.Kind(), events: events, begun: true}
	report, err := w.follow(watching)
	switch {
	case err == nil || report != nil || ctx.Err() == nil:
		return report, err
	case watching.Err() != nil:
		return nil, canceledError(ctx, fmt.Errorf("job %s has not ended %v later", job.ID, lastWords))
	}
	return nil, canceledError(ctx, err)
}

// Start begins a job and returns without waiting for it. A request whose answer
// was lost is repeated under the same key, by which the server knows it: the
// operation is done once. Where the server cannot know, because it was started
// meanwhile, it refuses.
func (c *Client) Start(ctx context.Context, op operations.Operation) (Job, error) {
	return c.start(ctx, op, 0)
}

// Watch gives the events of a job that come after the event with this id (0:
// all), and what the job ends with. Ending ctx ends the watching, not the job.
func (c *Client) Watch(ctx context.Context, id string, after int64, events operations.Handler) (operations.Report, error) {
	w := watch{client: c, id: id, last: after, events: events}
	return w.follow(ctx)
}

// Jobs lists the jobs that run and those that ended lately, oldest first.
func (c *Client) Jobs(ctx context.Context) ([]Job, error) {
	var list struct {
		Jobs []Job `json:"jobs"`
	}
	err := c.get(ctx, "/v1/jobs", &list)
	return list.Jobs, err
}

// Job tells about one job, with its report if it has ended in one. A job that is
// not known is [operations.CodeNotFound].
func (c *Client) Job(ctx context.Context, id string) (Job, error) {
	var job Job
	err := c.get(ctx, jobPath(id), &job)
	return job, err
}

// Cancel tells a job to end and does not wait until it has. For a job that has
// ended it does nothing; one that is not known is [operations.CodeNotFound].
func (c *Client) Cancel(ctx context.Context, id string) error {
	var job Job
	return c.exchange(ctx, &request{method: http.MethodDelete, path: jobPath(id)}, &job)
}

// Health returns nil if rbee answers there.
func (c *Client) Health(ctx context.Context) error {
	var answer map[string]json.RawMessage // any JSON object will do
	return c.get(ctx, "/health", &answer)
}

// Info fills into, as [json.Unmarshal] does, with what the other side says of itself.
func (c *Client) Info(ctx context.Context, into any) error {
	return c.get(ctx, "/v1/info", into)
}

func jobPath(id string) string { return "/v1/jobs/" + url.PathEscape(id) }

// start begins a job. If ctx ends after the request went out, the answer is waited
// for a little longer, so that the job does not run without anybody knowing its id.
func (c *Client) start(ctx context.Context, op operations.Operation, grace time.Duration) (Job, error) {
	if op == nil {
		return Job{}, invalidOperation("there is no operation")
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
	asking, stop := linger(ctx, func() time.Duration {
		if req.connected.Load() {
			return grace
		}
		return 0
	})
	defer stop()
	id, err := c.post(asking, req)
	if err != nil {
		if ctx.Err() != nil {
			err = canceledError(ctx, err)
		}
		return Job{}, err
	}
	return NewJob(id, op), nil
}

// post sends the request until it is answered, and returns the id of the job.
func (c *Client) post(ctx context.Context, req *request) (string, error) {
	var created struct {
		JobID string `json:"job_id"`
	}
	first := time.Now()
	wait := c.patience()
	for {
		err := c.exchange(ctx, req, &created)
		switch {
		case err == nil && created.JobID == "":
			return "", &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOtherProgram, Subject: operations.SubjectQueen.Named(c.where()), Message: c.where() + " answered without a job id, which is no rbee"}
		case err == nil:
			return created.JobID, nil
		case operations.CodeOf(err) != operations.CodeUnreachable || !req.connected.Load():
			return "", err // an answer, or nothing was asked yet
		case !wait.pause(ctx):
			return "", wrapError(err, "%v; the operation may have been begun there", err)
		}
		// The server may have received it. It needs the age to know whether it
		// would remember the key then.
		req.header.Set("Idempotency-Age", strconv.FormatFloat(time.Since(first).Seconds(), 'f', 3, 64))
	}
}

// tellCanceled asks for the end of a job on behalf of ctx, which has ended.
func (c *Client) tellCanceled(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	wait := c.patience()
	for {
		err := c.Cancel(ctx, id)
		if operations.CodeOf(err) != operations.CodeUnreachable || !wait.pause(ctx) {
			return // done, or nothing more can be; whoever watches the job learns how it ends
		}
	}
}

// canceledError is the error of an operation that ended because ctx did; err, if
// there is one, is what came back.
func canceledError(ctx context.Context, err error) error {
	e := &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: "canceled"}
	cause := context.Cause(ctx)
	var known *operations.Error
	switch {
	case errors.As(err, &known) && known.Code == operations.CodeCanceled:
		*e = *known
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
