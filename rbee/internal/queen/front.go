package queen

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

const (
	maxWaiting   = 256              // requests that wait for models to be loaded
	retryLoading = 5 * time.Second  // what those beyond are told to wait
	retryAway    = 10 * time.Second // and those whose model's hive is away
	settling     = 10 * time.Second // for a queen that was just started to hear its hives
	suspectFor   = 2 * time.Second  // a worker that failed is asked again after
	lookAgain    = 200 * time.Millisecond
	lastChoice   = 1 << 20         // requests that a doubtful worker counts as having
	forgetLoad   = 5 * time.Second // a load that failed is not tried again before
)

// gatewayFleet chooses workers for the gateway.
type gatewayFleet struct {
	queen      *Queen
	background context.Context // of loads, which are for all who wait

	mu    sync.Mutex
	loads map[wanted]*loading
	turns map[string]chan struct{} // who is starting a worker, by hive and model; closed when it has

	fresh      *freshRound // the next one; nil if nobody waits for one
	freshAt    time.Time   // when the last one began
	freshening int         // who waits for one
	waiting    int
	suspects   map[string]time.Time // workers that failed, until when
}

var _ gateway.Fleet = (*gatewayFleet)(nil)

func newGatewayFleet(q *Queen, background context.Context) *gatewayFleet {
	return &gatewayFleet{queen: q, background: background, loads: map[wanted]*loading{}, turns: map[string]chan struct{}{}, suspects: map[string]time.Time{}}
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
				m := info(served(w), w.ReadyAt)
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

// Acquire implements [gateway.Fleet]. Where a worker failed and no other is there, it
// may have been ended, and then another one is started, or be about to be started
// again: that is waited for, for a little.
func (f *gatewayFleet) Acquire(ctx context.Context, wish gateway.Wish) (*gateway.Lease, error) {
	f.settle(ctx)
	for start := time.Now(); ; {
		next := f.queen.registry.next()
		lease, away := f.pick(wish)
		if lease != nil {
			return lease, nil
		}
		err := f.loadKnown(ctx, wish)
		var no *gateway.Refusal
		switch {
		case err == nil:
		case ctx.Err() != nil || errors.As(err, &no):
			return nil, err
		case !startsAgain(err) || time.Since(start) > suspectFor:
			return nil, refusal(wish.Model, away, err)
		}
		if lease, _ := f.pick(wish); lease != nil {
			return lease, nil
		}
		if time.Since(start) > suspectFor {
			return nil, &gateway.Refusal{
				Status: http.StatusServiceUnavailable, Type: "server_error", Code: "worker_failed", RetryAfter: suspectFor,
				Message: fmt.Sprintf("the worker that serves %s failed, and there is no other", wish.Model),
			}
		}
		select {
		case <-next:
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// instance tells a worker from what it was before it was started again.
func instance(w operations.WorkerProcess) string {
	return w.ID + "@" + strconv.FormatInt(w.StartedAt.UnixNano(), 36)
}

// loadKnown loads a model that some hive has. For any other name, which is a stranger's
// word, all that is done is to ask whether one has it by now.
func (f *gatewayFleet) loadKnown(ctx context.Context, wish gateway.Wish) error {
	if !f.knows(wish.Model) {
		if err := f.freshen(ctx); err != nil {
			return err
		}
		if !f.knows(wish.Model) {
			return unknown(wish.Model, f.whyNot(wish.Model))
		}
	}
	ctx = client.WithRequestID(ctx, wish.RequestID)
	return f.load(ctx, wanted{model: f.idOf(wish.Model, "")}, nil)
}

// knows reports whether a hive has told of a model, or of a worker that serves it.
func (f *gatewayFleet) knows(name string) bool {
	for _, l := range f.queen.registry.all() {
		s := l.view(time.Now()).Snapshot
		if s != nil && (len(findModels(s.Models, name)) > 0 || someServes(s, name)) {
			return true
		}
	}
	return false
}

func someServes(s *operations.HiveSnapshot, name string) bool {
	serves := servesIn(s.Models, name)
	for i := range s.Workers {
		if serves(&s.Workers[i]) {
			return true
		}
	}
	return false
}

// idOf is the id of the model that somebody calls name: if all hives, or the one that
// is given, agree on it that are here and have an engine for it. Else the name stays.
func (f *gatewayFleet) idOf(name, hive string) string {
	id := ""
	for _, l := range f.queen.registry.all() {
		v := l.view(time.Now())
		if v.Snapshot == nil || v.Link == operations.LinkOffline || hive != "" && v.Alias != hive {
			continue
		}
		found := findModels(v.Snapshot.Models, name)
		if len(found) == 0 || len(found) == 1 && engineFor(&view{hive: l.hive, snapshot: v.Snapshot}, found[0].Format) == "" {
			continue
		}
		if len(found) > 1 || id != "" && id != found[0].ID {
			return name
		}
		id = found[0].ID
	}
	return cmp.Or(id, name)
}

// pick takes the best ready worker. away are hives that serve the model, or could,
// and cannot be reached.
func (f *gatewayFleet) pick(wish gateway.Wish) (lease *gateway.Lease, away []string) {
	type candidate struct {
		link   *link
		worker *operations.WorkerProcess
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
		serves := servesIn(v.Snapshot.Models, wish.Model)
		for i := range v.Snapshot.Workers {
			w := &v.Snapshot.Workers[i]
			if w.API != "" || w.State != operations.WorkerReady || !serves(w) {
				continue // most of them, so nothing else is looked at before
			}
			if len(wish.Avoid) > 0 && slices.Contains(wish.Avoid, instance(*w)) || f.queen.traffic.closing(*w) != nil {
				continue
			}
			if v.Link == operations.LinkOffline {
				away = append(away, v.Alias)
				continue
			}
			c := candidate{link: l, worker: w, busy: f.queen.busy(*w), room: room(v.Snapshot, *w), like: mix(wish.Affinity, trafficKey(*w))}
			if suspects[trafficKey(*w)] || v.Link == operations.LinkStale {
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
		if lease := f.lease(d, *c.worker); lease != nil {
			return lease, nil
		}
		d.close()
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

// lease takes a worker; nil if it has just begun to end.
func (f *gatewayFleet) lease(d *door, w operations.WorkerProcess) *gateway.Lease {
	end, ok := f.queen.traffic.begin(w)
	if !ok {
		return nil
	}
	return &gateway.Lease{
		Backend: gateway.Backend{
			Worker: w.ID, Instance: instance(w), Hive: w.Hive, Model: served(w), Name: cmp.Or(w.Serves, w.Model),
			URL:       d.client.URL + "/v1/workers/" + w.ID + "/proxy",
			Header:    http.Header{"Authorization": {"Bearer " + string(d.client.Token)}},
			Transport: d.client.HTTP.Transport,
		},
		Done: func(err error) {
			end()
			d.close()
			if err != nil {
				f.suspect(w)
			}
		},
	}
}

// suspect makes a worker that failed the last choice for a while.
func (f *gatewayFleet) suspect(w operations.WorkerProcess) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.suspects[trafficKey(w)] = time.Now().Add(suspectFor)
}

func ended(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
