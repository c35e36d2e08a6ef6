package queen

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

const (
	maxWaiting   = 256              // requests that wait for models to be loaded
	retryLoading = 5 * time.Second  // what those beyond are told to wait
	retryAway    = 10 * time.Second // and those whose model's hive is away
	settling     = 10 * time.Second // for a queen that was just started to hear its hives
	suspectFor   = 2 * time.Second  // a worker that failed is asked again after
	lastChoice   = 1 << 20          // requests that a doubtful worker counts as having
	forgetLoad   = 5 * time.Second  // a load that failed is not tried again before
)

// gatewayFleet chooses workers for the gateway.
type gatewayFleet struct {
	queen      *Queen
	background context.Context // of loads, which are for all who wait

	mu       sync.Mutex
	loads    map[string]*loading
	waiting  int
	suspects map[string]time.Time // workers that failed, until when
}

// loading is a model on its way to a worker.
type loading struct {
	done chan struct{}
	err  error
	at   time.Time // when it ended
}

var _ gateway.Fleet = (*gatewayFleet)(nil)

func newGatewayFleet(q *Queen, background context.Context) *gatewayFleet {
	return &gatewayFleet{queen: q, background: background, loads: map[string]*loading{}, suspects: map[string]time.Time{}}
}

// Models implements [gateway.Fleet]: models that are served, and those that can be.
func (f *gatewayFleet) Models(ctx context.Context) []gateway.ModelInfo {
	f.settle(ctx)
	found := map[string]*gateway.ModelInfo{}
	info := func(id string, created time.Time) *gateway.ModelInfo {
		m := found[id]
		if m == nil {
			m = &gateway.ModelInfo{ID: id, Created: created, Workers: []string{}}
			found[id] = m
		}
		return m
	}
	for _, l := range f.queen.registry.all() {
		v := l.view(time.Now())
		if v.Snapshot == nil || v.Link == operations.LinkOffline {
			continue
		}
		for _, w := range v.Snapshot.Workers {
			if w.API == "" && w.State == operations.WorkerReady {
				m := info(w.Model, w.ReadyAt)
				m.Loaded, m.Workers = true, append(m.Workers, w.ID)
			}
		}
		own := view{hive: l.hive, snapshot: v.Snapshot}
		for _, m := range v.Snapshot.Models {
			if m.Complete && engineFor(&own, m.Format) != "" {
				info(m.ID, m.ModifiedAt)
			}
		}
	}
	list := make([]gateway.ModelInfo, 0, len(found))
	for _, m := range found {
		list = append(list, *m)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list
}

// settle waits a little for hives that were not heard yet.
func (f *gatewayFleet) settle(ctx context.Context) {
	if time.Since(f.queen.registry.since) > settling {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	_ = f.queen.registry.settled(ctx) // those who are heard by then count
}

// Acquire implements [gateway.Fleet].
func (f *gatewayFleet) Acquire(ctx context.Context, wish gateway.Wish) (*gateway.Lease, error) {
	f.settle(ctx)
	for {
		lease, away := f.pick(wish)
		if lease != nil {
			return lease, nil
		}
		if len(wish.Avoid) > 0 {
			return nil, &gateway.Refusal{
				Status: http.StatusServiceUnavailable, Type: "server_error", Code: "worker_failed", RetryAfter: suspectFor,
				Message: fmt.Sprintf("the worker that serves %s failed, and there is no other", wish.Model),
			}
		}
		if err := f.load(ctx, wish.Model, away); err != nil {
			return nil, err
		}
	}
}

// pick takes the best ready worker. away are hives that serve the model, or could,
// and cannot be reached.
func (f *gatewayFleet) pick(wish gateway.Wish) (lease *gateway.Lease, away []string) {
	type candidate struct {
		link   *link
		worker operations.WorkerProcess
		busy   int
		room   uint64
		like   uint64
	}
	var list []candidate
	now := time.Now()
	f.mu.Lock()
	for key, until := range f.suspects {
		if now.After(until) {
			delete(f.suspects, key)
		}
	}
	suspects := make(map[string]bool, len(f.suspects))
	for key := range f.suspects {
		suspects[key] = true
	}
	f.mu.Unlock()
	for _, l := range f.queen.registry.all() {
		v := l.view(now)
		if v.Snapshot == nil {
			continue
		}
		for _, w := range v.Snapshot.Workers {
			if w.Model != wish.Model || w.API != "" || w.State != operations.WorkerReady || slices.Contains(wish.Avoid, w.ID) {
				continue
			}
			if v.Link == operations.LinkOffline {
				away = append(away, v.Alias)
				continue
			}
			c := candidate{link: l, worker: w, busy: f.queen.busy(w), room: room(v.Snapshot, w), like: mix(wish.Affinity, trafficKey(w))}
			if suspects[trafficKey(w)] || v.Link == operations.LinkStale {
				c.busy += lastChoice
			}
			list = append(list, c)
		}
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := &list[i], &list[j]
		switch {
		case a.busy != b.busy:
			return a.busy < b.busy
		case a.room != b.room:
			return a.room > b.room
		default:
			return a.like > b.like
		}
	})
	for _, c := range list {
		d := c.link.lendDoor()
		if d == nil {
			continue
		}
		return f.lease(d, c.worker), nil
	}
	return nil, away
}

// mix gives each worker another rank for each conversation, and always the same
// (rendezvous hashing, https://en.wikipedia.org/wiki/Rendezvous_hashing).
func mix(affinity uint64, key string) uint64 {
	h := affinity ^ 14695981039346656037
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	return h ^ h>>33
}

func (f *gatewayFleet) lease(d *door, w operations.WorkerProcess) *gateway.Lease {
	end := f.queen.traffic.begin(w)
	return &gateway.Lease{
		Backend: gateway.Backend{
			Worker: w.ID, Hive: w.Hive, Model: w.Model, Name: w.Serves,
			URL:       d.client.URL + "/v1/workers/" + w.ID + "/proxy",
			Header:    http.Header{"Authorization": {"Bearer " + string(d.client.Token)}},
			Transport: d.client.HTTP.Transport,
		},
		Done: func(err error) {
			end()
			d.close()
			if err == nil {
				return
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.suspects[trafficKey(w)] = time.Now().Add(suspectFor)
		},
	}
}

// load waits until a worker for the model was started, by this request or another.
func (f *gatewayFleet) load(ctx context.Context, model string, away []string) error {
	f.mu.Lock()
	l := f.loads[model]
	if l != nil && ended(l.done) && (l.err == nil || time.Since(l.at) > forgetLoad) {
		l = nil
	}
	if l == nil {
		for name, old := range f.loads { // names are strangers' words: they must not pile up
			if ended(old.done) && time.Since(old.at) > forgetLoad {
				delete(f.loads, name)
			}
		}
		l = &loading{done: make(chan struct{})}
		f.loads[model] = l
		go f.start(l, model, away)
	}
	if !ended(l.done) {
		if f.waiting >= maxWaiting {
			f.mu.Unlock()
			return &gateway.Refusal{
				Status: http.StatusTooManyRequests, Type: "rate_limit_error", Code: "loading", RetryAfter: retryLoading,
				Message: fmt.Sprintf("%s is being loaded, and %d requests wait already", model, maxWaiting),
			}
		}
		f.waiting++
		defer func() { f.mu.Lock(); f.waiting--; f.mu.Unlock() }()
	}
	f.mu.Unlock()
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// waits is how many requests wait for a model to be loaded.
func (f *gatewayFleet) waits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting
}

func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// start starts a worker for a model, and waits until the registry knows of it.
func (f *gatewayFleet) start(l *loading, model string, away []string) {
	log := f.queen.registry.log
	err := f.spawn(model)
	if err != nil {
		log.Warn("a model cannot be loaded", "model", model, "error", err)
		err = refusal(model, away, err)
	}
	f.mu.Lock()
	l.err, l.at = err, time.Now()
	f.mu.Unlock()
	close(l.done)
}

func (f *gatewayFleet) spawn(model string) error {
	ctx, q := f.background, f.queen
	op := operations.Infer{Target: operations.Target{ConfigPath: q.registry.config}, Model: model}
	views, err := q.views(ctx, op.Target)
	if err != nil {
		return err
	}
	defer closeViews(views)
	q.refresh(ctx, views)
	if offers := q.among(views, op); len(offers) > 0 {
		return q.registry.known(ctx, offers[0].door.hive, offers[0].worker) // somebody else has started one
	}
	offers, err := q.offerAnew(ctx, op, views, func(operations.Event) {})
	for noRoom(views) && err != nil && f.makeRoom(ctx, views, model) {
		q.refresh(ctx, views)
		q.among(views, op)
		offers, err = q.offerAnew(ctx, op, views, func(operations.Event) {})
	}
	switch {
	case err != nil && noRoom(views):
		return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoRoom, Message: err.Error(), Err: err}
	case err != nil:
		return err
	}
	w := offers[0].worker
	q.registry.log.Info("a model was loaded on demand", "model", model, "hive", w.Hive, "worker", w.ID)
	return q.registry.known(ctx, offers[0].door.hive, w)
}

// known waits until the registry has heard of a worker that is ready.
func (r *registry) known(ctx context.Context, h pkgmgr.Hive, w operations.WorkerProcess) error {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	for {
		next := r.next()
		if l := r.find(h); l != nil {
			if v := l.view(time.Now()); v.Snapshot != nil && slices.ContainsFunc(v.Snapshot.Workers, func(o operations.WorkerProcess) bool {
				return o.ID == w.ID && o.State == operations.WorkerReady
			}) {
				return nil
			}
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("worker %s was ready, and its hive does not tell of it", w.ID)
		}
	}
}

// refusal words for an application why nobody serves a model.
func refusal(model string, away []string, err error) *gateway.Refusal {
	text := strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " ")
	if len(away) > 0 {
		return &gateway.Refusal{
			Status: http.StatusServiceUnavailable, Type: "server_error", Code: "hive_away", RetryAfter: retryAway,
			Message: fmt.Sprintf("%s is served on %s, which cannot be reached now", model, strings.Join(away, ", ")),
		}
	}
	if e := (*operations.Error)(nil); errors.As(err, &e) && e.Reason == operations.ReasonNoRoom {
		return &gateway.Refusal{Status: http.StatusServiceUnavailable, Type: "server_error", Code: operations.ReasonNoRoom, RetryAfter: forgetLoad, Message: text}
	}
	if operations.CodeOf(err) == operations.CodeUnreachable {
		return &gateway.Refusal{Status: http.StatusServiceUnavailable, Type: "server_error", Code: "hive_away", RetryAfter: retryAway, Message: text}
	}
	return &gateway.Refusal{Status: http.StatusNotFound, Type: "not_found_error", Code: "model_not_found", Message: text}
}
