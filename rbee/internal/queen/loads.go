package queen

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

// wanted is a model that somebody waits for: what is the same is loaded once, however
// many ask for it.
type wanted struct {
	model  string // by its id, where hives agree on that
	config string // the file; empty for the one that is served
	hive   string // the only one; empty for any
	device string // likewise
	fetch  bool   // it may be fetched to a hive, which a person may want, and no stranger
}

// loading is a model on its way to a worker. The queen's lock on loads guards all but
// done, cancel and telling.
type loading struct {
	done   chan struct{}
	cancel context.CancelFunc

	fetch   bool // a model may be fetched for it, which goes on only while a person waits
	err     error
	at      time.Time // when it ended
	stays   bool      // it goes on without anybody who waits
	givenUp bool      // nobody waited for it any more
	waiting int
	told    []*operations.Handler // those who hear how it goes
	telling sync.Mutex            // held while they are told
}

// load waits until a worker for a model was started, by this request or another.
// events may be nil: then the load goes on when its caller has left, for applications
// ask again.
func (f *gatewayFleet) load(ctx context.Context, w wanted, events *operations.Handler) error {
	for {
		l, err := f.join(ctx, w, events)
		if err != nil {
			return err
		}
		select {
		case <-l.done:
			err = l.err
		case <-ctx.Done():
			err = ctx.Err()
		}
		if f.leave(l, events); ctx.Err() != nil || !f.wasGivenUp(l) {
			return err
		}
	}
}

// wasGivenUp reports whether a load was given up under somebody who waited for it.
func (f *gatewayFleet) wasGivenUp(l *loading) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return l.givenUp
}

// join takes part in a load, and begins it if nobody has. Every join that succeeds is
// followed by a leave with the same handler.
func (f *gatewayFleet) join(ctx context.Context, w wanted, events *operations.Handler) (*loading, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.under(w, events)
	if l == nil || !ended(l.done) {
		if f.waiting >= maxWaiting {
			return nil, &gateway.Refusal{
				Status: http.StatusTooManyRequests, Type: "rate_limit_error", Code: "loading", RetryAfter: retryLoading,
				Message: fmt.Sprintf("%s is being loaded, and %d requests wait already", w.model, maxWaiting),
			}
		}
	}
	if l == nil {
		for key, old := range f.loads {
			if ended(old.done) && time.Since(old.at) > forgetLoad {
				delete(f.loads, key)
			}
		}
		ctx, cancel := context.WithCancel(operations.WithRequestID(f.background, operations.RequestID(ctx)))
		l = &loading{done: make(chan struct{}), cancel: cancel, fetch: w.fetch}
		f.loads[w] = l
		go f.start(ctx, l, w)
	}
	f.waiting++
	l.waiting++
	switch {
	case events != nil:
		l.told = append(l.told, events)
	case !l.fetch:
		l.stays = true
	}
	return l, nil
}

// under is the load that is under way for what is wanted, or has failed just now: who
// waits for its report tries again. Who may not fetch a model waits for one that does.
// The caller holds f.mu.
func (f *gatewayFleet) under(w wanted, events *operations.Handler) *loading {
	fetching := w
	fetching.fetch = true
	for _, key := range []wanted{w, fetching} {
		if l := f.loads[key]; l != nil && !l.givenUp && !ended(l.done) {
			return l
		}
	}
	if l := f.loads[w]; l != nil && !l.givenUp && events == nil && l.err != nil && !startsAgain(l.err) && time.Since(l.at) <= forgetLoad {
		return l
	}
	return nil
}

func (f *gatewayFleet) leave(l *loading, events *operations.Handler) {
	f.mu.Lock()
	f.waiting--
	l.waiting--
	l.told = slices.DeleteFunc(l.told, func(h *operations.Handler) bool { return h == events })
	if !l.stays && !ended(l.done) && (l.waiting == 0 || l.fetch && len(l.told) == 0) {
		l.givenUp = true
		l.cancel()
	}
	f.mu.Unlock()
	l.telling.Lock() // once it is let go, nobody calls the handler any more
	defer l.telling.Unlock()
}

// turn waits until nobody else is starting a worker for a model on a hive; done lets
// the next one begin.
func (f *gatewayFleet) turn(ctx context.Context, p place) (done func(), err error) {
	key := p.view.hive.Alias + "\x00" + p.model
	for {
		f.mu.Lock()
		other := f.turns[key]
		if other == nil {
			own := make(chan struct{})
			f.turns[key] = own
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				delete(f.turns, key)
				close(own)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// wanted is what an operation waits for.
func (f *gatewayFleet) wanted(op operations.Infer) wanted {
	w := wanted{model: op.Model, config: op.ConfigPath, hive: op.HiveID, device: op.Device, fetch: true}
	paths := f.queen.opts.Paths
	here, err := paths.ConfigFile(f.queen.registry.config)
	there, otherErr := paths.ConfigFile(op.ConfigPath)
	if err == nil && otherErr == nil && here == there {
		w.config, w.model = "", f.idOf(op.Model, op.HiveID)
	}
	return w
}

// waitingNow is how many requests wait for models to be loaded.
func (f *gatewayFleet) waitingNow() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting + f.freshening
}

// waits are the requests that wait for models to be loaded, by model: under an empty
// name those for models that no hive has, which are strangers' words.
func (f *gatewayFleet) waits() map[string]int {
	known := map[string]bool{}
	for _, l := range f.queen.registry.all() {
		if s := l.view(time.Now()).Snapshot; s != nil {
			for _, m := range s.Models {
				known[m.ID] = true
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := map[string]int{"": f.freshening}
	for w, l := range f.loads {
		name := w.model
		if !known[name] {
			name = ""
		}
		if l.waiting > 0 && !ended(l.done) {
			n[name] += l.waiting
		}
	}
	return n
}

// start starts a worker for a model, and waits until the registry knows of it.
func (f *gatewayFleet) start(ctx context.Context, l *loading, w wanted) {
	log := f.queen.registry.log
	err := errors.New("the queen failed")
	defer func() {
		if p := recover(); p != nil {
			log.Error("loading a model", "model", w.model, "panic", p)
		}
		f.mu.Lock()
		l.err, l.at = err, time.Now()
		f.mu.Unlock()
		l.cancel()
		close(l.done)
	}()
	err = f.spawn(ctx, w, func(e operations.Event) {
		l.telling.Lock()
		defer l.telling.Unlock()
		f.mu.Lock()
		told := slices.Clone(l.told)
		f.mu.Unlock()
		for _, events := range told {
			tell(*events, e)
		}
	})
	if err != nil {
		log.Warn("a model cannot be loaded", "model", w.model, "error", err)
	}
}

// spawn starts a worker. Idle ones that are there on demand make room for it.
func (f *gatewayFleet) spawn(ctx context.Context, w wanted, events operations.Handler) error {
	q := f.queen
	op := operations.Infer{Target: operations.Target{HiveID: w.hive, ConfigPath: w.config}, Model: w.model, Device: w.device}
	if w.config == "" {
		op.ConfigPath = q.registry.config
	}
	views, err := q.views(ctx, op.Target)
	if err != nil {
		return err
	}
	defer closeViews(views)
	if err := f.awaitEnding(ctx, views, w.model); err != nil {
		return err
	}
	q.refresh(ctx, views)
	offers := q.among(views, op)
	if len(offers) == 0 {
		offers, err = q.offerAnew(ctx, op, views, w.fetch, events)
	}
	for err != nil && noRoom(views) && f.makeRoom(ctx, views, w.model) {
		q.refresh(ctx, views)
		if offers = q.among(views, op); len(offers) > 0 {
			err = nil // somebody else has started one
			break
		}
		offers, err = q.offerAnew(ctx, op, views, w.fetch, events)
	}
	if err != nil {
		return withReason(err, views)
	}
	p := offers[0].worker
	q.registry.log.Info("a model is loaded", "model", w.model, "hive", p.Hive, "worker", p.ID)
	return q.registry.known(ctx, offers[0].door.hive, p)
}

// withReason gives the error of all hives the reason of one that has too little memory.
func withReason(err error, views []view) error {
	for _, reason := range []string{operations.ReasonNoRoom, operations.ReasonTooLarge} {
		for _, v := range views {
			if e := (*operations.Error)(nil); errors.As(v.err, &e) && e.Reason == reason {
				return &operations.Error{Code: operations.CodeOf(err), Reason: reason, Message: err.Error(), Err: err}
			}
		}
	}
	return err
}

// awaitEnding waits for workers of a model that are being ended, so that none of them
// is taken for one that serves.
func (f *gatewayFleet) awaitEnding(ctx context.Context, views []view, model string) error {
	for _, v := range views {
		if v.snapshot == nil {
			continue
		}
		serves := servesIn(v.snapshot.Models, model)
		for _, w := range v.snapshot.Workers {
			closing := f.queen.traffic.closing(w)
			if closing == nil || !serves(&w) {
				continue
			}
			select {
			case <-closing:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// known waits until the registry has heard of a worker that is ready.
func (r *registry) known(ctx context.Context, h config.Hive, w operations.WorkerProcess) error {
	l := r.find(h)
	if l == nil {
		return nil // a hive of another config
	}
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	for {
		next := r.next()
		if v := l.view(time.Now()); v.Snapshot != nil && slices.ContainsFunc(v.Snapshot.Workers, func(o operations.WorkerProcess) bool {
			return o.ID == w.ID && o.State == operations.WorkerReady
		}) {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("worker %s was ready, and its hive does not tell of it", w.ID)
		}
	}
}

// unknown words for an application that no hive has a model.
func unknown(model string, err error) *gateway.Refusal {
	if operations.CodeOf(err) == operations.CodeUnreachable {
		return refusal(model, nil, err)
	}
	return &gateway.Refusal{
		Status: http.StatusNotFound, Type: "not_found_error", Code: "model_not_found", Message: "no hive has the model " + model, Detail: inOneLine(err),
	}
}

func inOneLine(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " ")
}

// refusal words for an application why a model that a hive has is not served now.
func refusal(model string, away []string, err error) *gateway.Refusal {
	no := &gateway.Refusal{
		Status: http.StatusServiceUnavailable, Type: "server_error", Code: "not_loaded", RetryAfter: retryAway,
		Message: fmt.Sprintf("%s is served by nobody now, and could not be loaded", model), Detail: inOneLine(err),
	}
	var e *operations.Error
	switch {
	case len(away) > 0:
		no.Code = "hive_away"
		no.Detail = fmt.Sprintf("%s is served on %s, which cannot be reached now", model, strings.Join(away, ", "))
	case errors.As(err, &e) && (e.Reason == operations.ReasonNoRoom || e.Reason == operations.ReasonTooLarge):
		no.Code, no.RetryAfter = e.Reason, forgetLoad
		no.Message = fmt.Sprintf("%s is served by nobody now, and there is too little memory to load it", model)
	case operations.CodeOf(err) == operations.CodeUnreachable:
		no.Code = "hive_away"
	}
	return no
}
