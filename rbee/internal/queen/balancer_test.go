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

// withDevice adds a device with ready workers to a hive.
func (h *fakeHive) withDevice(free uint64, workers ...operations.WorkerProcess) *fakeHive {
	for i := range workers {
		workers[i].State, workers[i].Devices = operations.WorkerReady, []operations.WorkerDevice{{UUID: "g"}}
	}
	h.workers, h.machine.Devices = workers, []gpu.Device{{UUID: "g", MemoryFree: &free}}
	return h
}

// TestPick checks the order of workers: fewest requests, then most free memory, then the
// conversation. Excluded workers are never picked.
func TestPick(t *testing.T) {
	t.Parallel()
	small := newFakeHive(t, "small").withDevice(1<<30, operations.WorkerProcess{ID: "w1", Model: "m"}, operations.WorkerProcess{ID: "x", Model: "other"})
	large := newFakeHive(t, "large").withDevice(9<<30, operations.WorkerProcess{ID: "w2", Model: "m"}, operations.WorkerProcess{ID: "pictures", Model: "m", API: catalog.APIComfyUI})
	q, _ := startQueen(t, small, large)
	b := q.balancer
	pick := func(req gateway.RouteRequest) *gateway.Lease {
		t.Helper()
		req.Model = "m"
		lease, offline := b.pick(req)
		if lease == nil {
			t.Fatalf("pick() = nil, offline %v, want a worker", offline)
		}
		return lease
	}
	one := pick(gateway.RouteRequest{})
	two := pick(gateway.RouteRequest{})
	if one.Worker != "w2" || two.Worker != "w1" {
		t.Errorf("pick() = %s, then %s, want w2, w1", one.Worker, two.Worker)
	}
	if lease := pick(gateway.RouteRequest{Exclude: []string{one.Instance}}); lease.Worker != "w1" {
		t.Errorf("pick() without w2 = %s, want w1", lease.Worker)
	} else {
		lease.Release(nil)
	}
	if lease, _ := b.pick(gateway.RouteRequest{Model: "m", Exclude: []string{one.Instance, two.Instance}}); lease != nil {
		t.Errorf("pick() without w1 and w2 = %s, want nil", lease.Worker)
	}
	one.Release(nil)
	two.Release(nil)
	free := uint64(1 << 30)
	large.change(func() { large.machine.Devices = []gpu.Device{{UUID: "g", MemoryFree: &free}} })
	q.waitUntil(t, func() bool {
		return *q.connection("large").View(time.Now()).Snapshot.Machine.Devices[0].MemoryFree == free
	})
	seen := map[string]bool{}
	for affinity := range uint64(64) {
		lease := pick(gateway.RouteRequest{Affinity: affinity})
		lease.Release(nil)
		again := pick(gateway.RouteRequest{Affinity: affinity})
		again.Release(nil)
		seen[lease.Worker] = true
		if again.Worker != lease.Worker {
			t.Errorf("pick() with affinity %d = %s, then %s, want the same", affinity, lease.Worker, again.Worker)
		}
	}
	if len(seen) != 2 {
		t.Errorf("pick() with 64 affinities = %v, want both workers", seen)
	}
	small.disconnect(q, true)
	large.disconnect(q, true)
	if lease, offline := b.pick(gateway.RouteRequest{Model: "m"}); lease != nil || len(offline) != 2 {
		t.Errorf("pick() of offline hives = %v, offline %v, want nil, 2 hives", lease, offline)
	}
}

// TestUnreliableWorkers checks that the gateway and `rbee infer` avoid a worker that failed a
// moment ago, and a worker whose hive is stale.
func TestUnreliableWorkers(t *testing.T) {
	t.Parallel()
	wantW1 := func(t *testing.T, q *queen) {
		t.Helper()
		if lease, _ := q.balancer.pick(gateway.RouteRequest{Model: "m"}); lease == nil || lease.Worker != "w1" {
			t.Errorf("pick() = %+v, want w1", lease)
		} else {
			lease.Release(nil)
		}
		if r, err := q.infer(t.Context(), question("m"), nil); err != nil || r.WorkerID != "w1" {
			t.Errorf("infer() = %+v, %v, want a response of w1", r, err)
		}
	}
	start := func(t *testing.T, o Options) (q *queen, small *fakeHive) {
		t.Helper()
		small = newFakeHive(t, "small").withDevice(1<<30, operations.WorkerProcess{ID: "w1", Model: "m"})
		large := newFakeHive(t, "large").withDevice(9<<30, operations.WorkerProcess{ID: "w2", Model: "m"})
		q, _ = startQueenWith(t, o, small, large)
		return q, small
	}
	t.Run("failed", func(t *testing.T) {
		t.Parallel()
		q, _ := start(t, Options{})
		lease, _ := q.balancer.pick(gateway.RouteRequest{Model: "m"})
		if lease == nil || lease.Worker != "w2" {
			t.Fatalf("pick() = %+v, want w2", lease)
		}
		lease.Release(errors.New("failed"))
		wantW1(t, q)
	})
	t.Run("stale", func(t *testing.T) {
		t.Parallel()
		q, small := start(t, Options{staleAfter: time.Second})
		q.waitUntil(t, func() bool {
			small.change(func() {}) // sends a snapshot; the other hive sends none
			return q.connection("large").View(time.Now()).Link == operations.LinkStale
		})
		wantW1(t, q)
	})
}
