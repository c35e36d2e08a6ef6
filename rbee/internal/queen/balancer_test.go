package queen

import (
	"errors"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

// withDevice gives a played hive one device, and workers on it that are ready.
func (h *playedHive) withDevice(free uint64, workers ...operations.WorkerProcess) *playedHive {
	for i := range workers {
		workers[i].State, workers[i].Devices = operations.WorkerReady, []operations.WorkerDevice{{UUID: "g"}}
	}
	h.workers, h.machine.Devices = workers, []gpu.Device{{UUID: "g", MemoryFree: &free}}
	return h
}

// TestPick holds the order of workers: fewest requests, then most room, then the
// same for the same conversation; and never one that was tried already.
func TestPick(t *testing.T) {
	t.Parallel()
	small := newPlayedHive(t, "small").withDevice(1<<30, operations.WorkerProcess{ID: "w1", Model: "m"}, operations.WorkerProcess{ID: "x", Model: "other"})
	large := newPlayedHive(t, "large").withDevice(9<<30, operations.WorkerProcess{ID: "w2", Model: "m"}, operations.WorkerProcess{ID: "pictures", Model: "m", API: catalog.APIComfyUI})
	q, _ := playedFleet(t, small, large)
	f := q.balancer
	take := func(wish gateway.RouteRequest) *gateway.Lease {
		t.Helper()
		wish.Model = "m"
		l, away := f.pick(wish)
		if l == nil {
			t.Fatalf("nobody; away %v", away)
		}
		return l
	}
	one := take(gateway.RouteRequest{})
	two := take(gateway.RouteRequest{})
	if one.Worker != "w2" || two.Worker != "w1" {
		t.Errorf("%s, then %s", one.Worker, two.Worker)
	}
	if l := take(gateway.RouteRequest{Exclude: []string{one.Instance}}); l.Worker != "w1" {
		t.Errorf("%s, which was tried", l.Worker)
	} else {
		l.Release(nil)
	}
	if l, _ := f.pick(gateway.RouteRequest{Model: "m", Exclude: []string{one.Instance, two.Instance}}); l != nil {
		t.Errorf("%s", l.Worker)
	}
	one.Release(nil)
	two.Release(nil)
	free := uint64(1 << 30)
	large.change(func() { large.machine.Devices = []gpu.Device{{UUID: "g", MemoryFree: &free}} })
	q.until(t, func() bool {
		return *q.connection("large").View(time.Now()).Snapshot.Machine.Devices[0].MemoryFree == free
	})
	seen := map[string]bool{}
	for affinity := range uint64(64) {
		l := take(gateway.RouteRequest{Affinity: affinity})
		l.Release(nil)
		again := take(gateway.RouteRequest{Affinity: affinity})
		again.Release(nil)
		seen[l.Worker] = true
		if again.Worker != l.Worker {
			t.Errorf("conversation %d went to %s and %s", affinity, l.Worker, again.Worker)
		}
	}
	if len(seen) != 2 {
		t.Errorf("all conversations went to %v", seen)
	}
	small.leave(q, true)
	large.leave(q, true)
	if l, away := f.pick(gateway.RouteRequest{Model: "m"}); l != nil || len(away) != 2 {
		t.Errorf("%v, %v", l, away)
	}
}

// TestDoubtfulWorkers checks that the gateway and `rbee infer` both avoid a worker that
// failed a moment ago, and one whose hive is stale.
func TestDoubtfulWorkers(t *testing.T) {
	t.Parallel()
	first := func(t *testing.T, q *queen) {
		t.Helper()
		if l, _ := q.balancer.pick(gateway.RouteRequest{Model: "m"}); l == nil || l.Worker != "w1" {
			t.Errorf("pick() = %+v, want w1", l)
		} else {
			l.Release(nil)
		}
		if r, err := q.infer(t.Context(), question("m"), nil); err != nil || r.WorkerID != "w1" {
			t.Errorf("infer() = %+v, %v, want an answer of w1", r, err)
		}
	}
	fleet := func(t *testing.T, o Options) (q *queen, small *playedHive) {
		t.Helper()
		small = newPlayedHive(t, "small").withDevice(1<<30, operations.WorkerProcess{ID: "w1", Model: "m"})
		large := newPlayedHive(t, "large").withDevice(9<<30, operations.WorkerProcess{ID: "w2", Model: "m"})
		q, _ = playedFleetWith(t, o, small, large)
		return q, small
	}
	t.Run("failed", func(t *testing.T) {
		t.Parallel()
		q, _ := fleet(t, Options{})
		l, _ := q.balancer.pick(gateway.RouteRequest{Model: "m"})
		if l == nil || l.Worker != "w2" {
			t.Fatalf("pick() = %+v, want w2", l)
		}
		l.Release(errors.New("it broke"))
		first(t, q)
	})
	t.Run("stale", func(t *testing.T) {
		t.Parallel()
		q, small := fleet(t, Options{staleAfter: time.Second})
		q.until(t, func() bool {
			small.change(func() {}) // it says something, and the other one does not
			return q.connection("large").View(time.Now()).Link == operations.LinkStale
		})
		first(t, q)
	})
}
