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

// exchange is one request and its answer.
type exchange struct {
	*gateway
	w       http.ResponseWriter
	r       *http.Request
	ctx     context.Context // the client is there
	control *http.ResponseController
	sample  Sample
	began   bool // the answer: its status is sent
	flush   bool // the answer, piece by piece

	asked *ask  // what a worker is asked; nil until it was read
	held  int64 // of the budget, for its body
}

func newExchange(g *gateway, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{gateway: g, w: w, r: r, ctx: r.Context(), control: http.NewResponseController(w)}
	x.sample.Start = time.Now()
	x.sample.RequestID = idOf(r.Header.Get(requestID))
	w.Header().Set(requestID, x.sample.RequestID)
	return x
}

// idOf is the client's id for a request, if it is fit to be written anywhere, or a
// new one.
func idOf(theirs string) string {
	odd := func(c rune) bool { return c <= ' ' || c > '~' }
	if theirs != "" && len(theirs) <= 128 && !strings.ContainsFunc(theirs, odd) {
		return theirs
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// end tells the observer.
func (x *exchange) end() {
	x.letGo()
	if x.Observer == nil {
		return
	}
	x.sample.Duration = time.Since(x.sample.Start)
	x.Observer.Observe(x.sample)
}

// allow refuses requests of other methods.
func (x *exchange) allow(methods ...string) bool {
	if slices.Contains(methods, x.r.Method) {
		return true
	}
	allowed := strings.Join(methods, ", ")
	x.w.Header().Set("Allow", allowed)
	x.refuse(refusalf(http.StatusMethodNotAllowed, "method_not_allowed", "%s is not possible at %s, only %s", x.r.Method, x.r.URL.Path, allowed))
	return false
}

// infer has a worker answer.
func (x *exchange) infer() {
	defer x.inFlight.Add(-1)
	if n := x.inFlight.Add(1); n > int64(x.MaxInFlight) {
		x.refuse(overloaded("%d requests are under way already, which is the most", x.MaxInFlight))
		return
	}
	a, err := x.read()
	if err != nil {
		x.refuse(err)
		return
	}
	x.asked, x.sample.Model, x.sample.Stream = a, a.model, a.stream
	wish := Wish{Model: a.model, Path: x.sample.Path, Affinity: a.affinity, RequestID: x.sample.RequestID}
	for {
		lease, err := x.Fleet.Acquire(x.ctx, wish)
		if err != nil {
			x.refuse(err)
			return
		}
		x.sample.Model, x.sample.Hive, x.sample.Worker, x.sample.Retries = cmp.Or(lease.Model, a.model), lease.Hive, lease.Worker, len(wish.Avoid)
		err = x.try(a, lease)
		var failed *WorkerError
		switch {
		case err == nil:
			return
		case !errors.As(err, &failed):
			x.leave(err)
		}
		x.sample.Err = err
		wish.Avoid = append(wish.Avoid, cmp.Or(lease.Instance, lease.Worker))
		x.Log.Warn("a worker failed", "request", x.sample.RequestID, "model", a.model, "hive", lease.Hive,
			"worker", lease.Worker, "try", len(wish.Avoid), "answering", x.began, "error", err)
		switch {
		case x.began:
			x.breakOff(failed)
			return
		case len(wish.Avoid) == maxTries:
			x.refuse(failed.refusal(maxTries))
			return
		}
	}
}

// try has one worker answer. A [*WorkerError] says that the worker failed; any
// other error, that the client did.
func (x *exchange) try(a *ask, lease *Lease) (err error) {
	defer func() {
		var failed *WorkerError
		if errors.As(err, &failed) {
			lease.Done(failed)
			return
		}
		lease.Done(nil)
	}()
	resp, err := x.send(a, &lease.Backend)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return x.relay(resp, &lease.Backend)
}

// fault is an error on the worker's side, unless the client has left: then it is
// just what comes of that.
func (x *exchange) fault(b *Backend, status int, err error) error {
	if gone := x.ctx.Err(); gone != nil {
		return fmt.Errorf("the client left: %w", gone)
	}
	return &WorkerError{Worker: b.Worker, Hive: b.Hive, Status: status, Err: err}
}

// leave ends an exchange whose client has left. Should anybody still be there, the
// cut connection tells that this is not an answer.
func (x *exchange) leave(err error) {
	x.sample.Status, x.sample.Err = statusLeft, err
	panic(http.ErrAbortHandler)
}

// refuse answers with an error, if anybody is there.
func (x *exchange) refuse(err error) {
	if gone := x.ctx.Err(); gone != nil {
		x.leave(fmt.Errorf("the client left: %w, before it was told: %w", gone, err))
	}
	no := asRefusal(err)
	if before := x.sample.Err; before != nil {
		err = fmt.Errorf("%w, after %w", err, before)
	}
	x.sample.Err = err
	if no.RetryAfter > 0 {
		x.w.Header().Set("Retry-After", no.retryAfter())
	}
	x.reply(no.Status, no.json(x.MayKnow != nil && x.MayKnow(x.ctx)))
}
