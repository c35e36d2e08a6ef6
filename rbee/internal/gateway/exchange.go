package gateway

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// exchange is one request and its response.
type exchange struct {
	*gateway
	w          http.ResponseWriter
	r          *http.Request
	ctx        context.Context // canceled when the client disconnects
	control    *http.ResponseController
	sample     Sample
	headerSent bool // the response has started
	autoFlush  bool // flush after each write

	parsed   *apiRequest // nil until the request is read
	reserved int64       // bytes of the budget
}

func newExchange(g *gateway, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{gateway: g, w: w, r: r, ctx: r.Context(), control: http.NewResponseController(w)}
	x.sample.Start = time.Now()
	x.sample.RequestID = requestIDOf(r.Header.Get(requestIDHeader))
	w.Header().Set(requestIDHeader, x.sample.RequestID)
	return x
}

// requestIDOf returns the client's request ID if it is valid, or a new one.
func requestIDOf(clientID string) string {
	invalid := func(c rune) bool { return c <= ' ' || c > '~' }
	if clientID != "" && len(clientID) <= 128 && !strings.ContainsFunc(clientID, invalid) {
		return clientID
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// finish releases the body and reports the exchange to the observer.
func (x *exchange) finish() {
	x.releaseBody()
	if x.Observer == nil {
		return
	}
	x.sample.Duration = time.Since(x.sample.Start)
	x.Observer.Observe(x.sample)
}

// checkMethod reports whether the method of the request is allowed. If not, it responds with
// an error.
func (x *exchange) checkMethod(methods ...string) bool {
	if slices.Contains(methods, x.r.Method) {
		return true
	}
	allowed := strings.Join(methods, ", ")
	x.w.Header().Set("Allow", allowed)
	x.writeError(apiErrorf(http.StatusMethodNotAllowed, "method_not_allowed", "method %s is not allowed at %s: use %s", x.r.Method, x.r.URL.Path, allowed))
	return false
}

// infer forwards the request to a worker.
func (x *exchange) infer() {
	defer x.inFlight.Add(-1)
	if n := x.inFlight.Add(1); n > int64(x.MaxInFlight) {
		x.writeError(overloadedError("the server is overloaded: %d requests are in progress", x.MaxInFlight))
		return
	}
	r, err := x.read()
	if err != nil {
		x.writeError(err)
		return
	}
	x.parsed, x.sample.Model, x.sample.Stream = r, r.model, r.stream
	req := RouteRequest{Model: r.model, Path: x.sample.Path, Affinity: r.affinity, RequestID: x.sample.RequestID}
	for {
		lease, err := x.Router.Acquire(x.ctx, req)
		if err != nil {
			x.writeError(err)
			return
		}
		x.sample.Model, x.sample.Hive, x.sample.Worker, x.sample.Retries = cmp.Or(lease.Model, r.model), lease.Hive, lease.Worker, len(req.Exclude)
		err = x.attempt(r, lease)
		var failed *WorkerError
		switch {
		case err == nil:
			return
		case !errors.As(err, &failed):
			x.abort(err)
		}
		x.sample.Err = err
		req.Exclude = append(req.Exclude, cmp.Or(lease.Instance, lease.Worker))
		x.Log.Warn("worker failed", "request", x.sample.RequestID, "model", r.model, "hive", lease.Hive,
			"worker", lease.Worker, "attempt", len(req.Exclude), "response_started", x.headerSent, "error", err)
		switch {
		case x.headerSent:
			x.writeStreamError(failed)
			return
		case len(req.Exclude) == maxTries:
			x.writeError(failed.apiError(maxTries))
			return
		}
	}
}

// attempt forwards the request to one worker. It returns a [*WorkerError] if the worker
// failed, and another error if the client failed.
func (x *exchange) attempt(r *apiRequest, lease *Lease) (err error) {
	defer func() {
		var failed *WorkerError
		if errors.As(err, &failed) {
			lease.Release(failed)
			return
		}
		lease.Release(nil)
	}()
	resp, err := x.send(r, &lease.Backend)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return x.relay(resp, &lease.Backend)
}

// workerError returns a [*WorkerError], or another error if the client has disconnected,
// which also cancels the request to the worker.
func (x *exchange) workerError(b *Backend, status int, err error) error {
	if ctxErr := x.ctx.Err(); ctxErr != nil {
		return fmt.Errorf("client disconnected: %w", ctxErr)
	}
	return &WorkerError{Worker: b.Worker, Hive: b.Hive, Status: status, Err: err}
}

// abort ends an exchange whose client has disconnected, and closes the connection.
func (x *exchange) abort(err error) {
	x.sample.Status, x.sample.Err = statusClientClosed, err
	panic(http.ErrAbortHandler)
}

// writeError responds with an error, unless the client has disconnected.
func (x *exchange) writeError(err error) {
	if ctxErr := x.ctx.Err(); ctxErr != nil {
		x.abort(fmt.Errorf("client disconnected: %w; unsent error: %w", ctxErr, err))
	}
	apiErr := asAPIError(err)
	if previous := x.sample.Err; previous != nil {
		err = fmt.Errorf("%w (previous error: %w)", err, previous)
	}
	x.sample.Err = err
	if apiErr.RetryAfter > 0 {
		x.w.Header().Set("Retry-After", apiErr.retryAfter())
	}
	x.writeJSON(apiErr.Status, apiErr.json(x.ShowDetail != nil && x.ShowDetail(x.ctx)))
}
