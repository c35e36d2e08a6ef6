package queen

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
	"github.com/rbee-keeper/rbee/rbee/internal/loader"
)

// TestConcurrentRequestsShareLoad checks that operations and API requests for a model, by any
// of its names, share one load.
func TestConcurrentRequestsShareLoad(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	h.proceed = make(chan struct{})
	q, _ := startQueen(t, h)
	var all sync.WaitGroup
	for _, name := range []string{"org/m", "org/m:Q4", "ORG/M:q4"} {
		all.Go(func() {
			r, err := q.infer(t.Context(), question(name), nil)
			if err != nil || r.Text != "honey" {
				t.Errorf("infer(%s) = %+v, %v, want text honey", name, r, err)
			}
		})
		all.Go(func() {
			lease, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: name})
			if err != nil || lease.Model != "org/m:Q4" || lease.Name != "org/m:Q4" {
				t.Errorf("Acquire(%s) = %+v, %v, want model org/m:Q4", name, lease, err)
				return
			}
			lease.Release(nil)
		})
	}
	h.waitUntil(func() bool { return len(h.ops) > 0 })
	q.waitForWaiting(t, 6)
	if n := q.loader.WaitingByModel()["org/m:Q4"]; n != 6 {
		t.Errorf("WaitingByModel() = %d for org/m:Q4, want 6", n)
	}
	close(h.proceed)
	all.Wait()
	if want := []string{"worker_spawn org/m:Q4"}; !slices.Equal(h.ops, want) {
		t.Errorf("operations on the hive = %v, want %v", h.ops, want)
	}
	var b strings.Builder
	q.traffic.WriteMetrics(&b, q.loader.WaitingByModel(), q.snapshot().Hives)
	for _, want := range []string{
		`rbee_requests_total{path="infer",code="200",model="org/m:Q4",hive="gpu-1",worker="llama-cpp-1"} 3`,
		`rbee_requests_in_flight{model="org/m:Q4",hive="gpu-1",worker="llama-cpp-1"} 0`,
		`rbee_requests_waiting{model=""} 0`, `rbee_hive_memory_bytes{hive="gpu-1"} 68719476736`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("metrics =\n%s\nwant %s", b.String(), want)
		}
	}
}

// TestLoadCanceledWithoutWaiters checks that a load is canceled when no operation waits for
// it, and continues if an API request has waited, because API clients retry.
func TestLoadCanceledWithoutWaiters(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	h.proceed = make(chan struct{})
	q, _ := startQueen(t, h)
	start := func(call func(context.Context) error) (cancel func() error) {
		ctx, cancelCtx := context.WithCancel(t.Context())
		before, result := q.loader.Waiting(), make(chan error, 1)
		go func() { result <- call(ctx) }()
		q.waitForWaiting(t, before+1)
		return func() error { cancelCtx(); return <-result }
	}
	infer := func(ctx context.Context) error { _, err := q.infer(ctx, question("org/m"), nil); return err }
	cancel1, cancel2 := start(infer), start(infer)
	h.waitUntil(func() bool { return len(h.ops) == 1 })
	if err := cancel1(); err == nil {
		t.Error("infer() after cancellation = nil error, want an error")
	}
	cancel3 := start(infer)
	if err := cancel2(); err == nil {
		t.Error("infer() after cancellation = nil error, want an error")
	}
	if len(h.ops) != 1 {
		t.Errorf("operations on the hive = %v, want the first load to continue", h.ops)
	}
	if err := cancel3(); err == nil {
		t.Error("infer() after cancellation = nil error, want an error")
	}
	h.waitUntil(func() bool { return h.canceled == 1 })

	cancelAcquire := start(func(ctx context.Context) error {
		_, err := q.balancer.Acquire(ctx, gateway.RouteRequest{Model: "org/m"})
		return err
	})
	h.waitUntil(func() bool { return len(h.ops) == 2 })
	if err := cancelAcquire(); err == nil {
		t.Error("Acquire() after cancellation = nil error, want an error")
	}
	close(h.proceed)
	h.waitUntil(func() bool { return len(h.workers) == 1 })
}

// TestAcquireDuringEviction checks that a request for the model of a worker that is being
// evicted loads the model again.
func TestAcquireDuringEviction(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	q, _ := startQueen(t, h)
	lease, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
	if err != nil {
		t.Fatal(err)
	}
	conn, worker := q.connection("gpu-1"), q.worker("gpu-1")
	if q.loader.Evict(t.Context(), conn, worker, 0, "test") {
		t.Error("Evict() of a busy worker = true, want false")
	}
	lease.Release(nil)
	h.change(func() { h.proceed = make(chan struct{}) })
	evicted, result := make(chan bool, 1), make(chan error, 1)
	go func() { evicted <- q.loader.Evict(t.Context(), conn, worker, 0, "test") }()
	h.waitUntil(func() bool { return len(h.ops) == 2 })
	if _, ok := q.traffic.Begin(worker); ok {
		t.Error("Begin() of a worker that is being evicted = true, want false")
	}
	go func() {
		lease, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
		if err == nil && lease.Worker == worker.ID {
			err = errors.New("acquired the worker that is being evicted")
		}
		result <- err
	}()
	q.waitForWaiting(t, 1)
	close(h.proceed)
	if !<-evicted {
		t.Error("Evict() = false, want true")
	}
	if err := <-result; err != nil {
		t.Errorf("Acquire() = %v, want another worker", err)
	}
	if len(h.ops) != 3 {
		t.Errorf("operations on the hive = %v, want load, eviction, load", h.ops)
	}
}

// TestInferDuringEviction checks that an operation for the model of a worker that is being
// evicted loads the model again.
func TestInferDuringEviction(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	q, _ := startQueen(t, h)
	if _, err := q.infer(t.Context(), question("org/m"), nil); err != nil {
		t.Fatal(err)
	}
	h.change(func() { h.proceed = make(chan struct{}) })
	conn, worker := q.connection("gpu-1"), q.worker("gpu-1")
	evicted, result := make(chan bool, 1), make(chan error, 1)
	go func() { evicted <- q.loader.Evict(t.Context(), conn, worker, 0, "test") }()
	h.waitUntil(func() bool { return len(h.ops) == 2 })
	go func() {
		_, err := q.infer(t.Context(), question("org/m"), nil)
		result <- err
	}()
	q.waitForWaiting(t, 1)
	close(h.proceed)
	if err := <-result; err != nil || !<-evicted || len(h.ops) != 3 {
		t.Errorf("infer() = %v after operations %v, want load, eviction, load", err, h.ops)
	}
}

// TestUnresponsiveHive checks that a hive that does not respond does not prevent a load on
// another hive.
func TestUnresponsiveHive(t *testing.T) {
	t.Parallel()
	frozen, healthy := newFakeHive(t, "gpu-1", llama), newFakeHive(t, "gpu-2", llama)
	q, _ := startQueenWith(t, Options{responseTimeout: 300 * time.Millisecond}, frozen, healthy)
	frozen.change(func() { frozen.frozen = true })
	lease, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
	if err != nil || lease.Hive != "gpu-2" || len(frozen.ops) > 0 {
		t.Errorf("Acquire() = %+v, %v, want a worker on gpu-2", lease, err)
	}
}

// TestMaxWaiting checks that requests above the limit are rejected and start no load.
func TestMaxWaiting(t *testing.T) {
	t.Parallel()
	other := operations.Model{ID: "org/n:Q4", Repo: "org/n", Format: "gguf", Complete: true}
	h := newFakeHive(t, "gpu-1", llama, other)
	h.proceed = make(chan struct{})
	q, _ := startQueen(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range loader.MaxWaiting {
		all.Go(func() { _, _ = q.balancer.Acquire(ctx, gateway.RouteRequest{Model: "org/m"}) })
	}
	q.waitForWaiting(t, loader.MaxWaiting)
	h.waitUntil(func() bool { return len(h.ops) == 1 })
	for range 10 {
		for _, name := range []string{"org/m", "org/n"} {
			_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: name})
			if apiErr := (*gateway.APIError)(nil); !errors.As(err, &apiErr) || apiErr.Status != http.StatusTooManyRequests || apiErr.RetryAfter == 0 {
				t.Fatalf("Acquire(%s) = %v, want 429 with Retry-After", name, err)
			}
		}
	}
	if len(h.ops) != 1 {
		t.Errorf("operations on the hive = %v, want one load", h.ops)
	}
	cancel()
	all.Wait()
}

// TestCanceledInfer checks that the handler of an operation is not called after the operation
// has ended, and that an API request that waits for the same load starts a new one.
func TestCanceledInfer(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	h.proceed = make(chan struct{})
	q, _ := startQueen(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	returned := make(chan struct{})
	go func() {
		var ended bool
		_, _ = q.infer(ctx, question("org/m"), func(operations.Event) {
			if ended {
				t.Error("infer() called the handler after it returned, want no call")
			}
		})
		ended = true
		close(returned)
	}()
	h.waitUntil(func() bool { return len(h.ops) == 1 })
	result := make(chan error, 1)
	go func() {
		_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
		result <- err
	}()
	// Waiting also counts requests that refresh snapshots and have not joined the load yet.
	q.waitUntil(t, func() bool { return q.loader.WaitingByModel()["org/m:Q4"] == 2 })
	cancel()
	<-returned
	// The load of the operation is canceled, and the API request starts another one.
	h.waitUntil(func() bool { return h.canceled == 1 && len(h.ops) == 2 })
	close(h.proceed)
	if err := <-result; err != nil || len(h.ops) != 2 {
		t.Errorf("Acquire() = %v after operations %v, want two loads", err, h.ops)
	}
}

// TestAbandonedLoad checks that a request does not receive the error of a load that was
// canceled because nothing waited for it.
func TestAbandonedLoad(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	h.proceed = make(chan struct{})
	q, _ := startQueen(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		h.waitUntil(func() bool { return len(h.ops) == 1 })
		cancel()
	}()
	if _, err := q.infer(ctx, question("org/m"), nil); err == nil {
		t.Fatal("infer() after cancellation = nil error, want an error")
	}
	close(h.proceed)
	if _, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"}); err != nil {
		t.Errorf("Acquire() = %v, want a worker", err)
	}
}

// TestDownloadCanceledWithoutOperation checks that a download is canceled when no operation
// waits for it, even if an API request does.
func TestDownloadCanceledWithoutOperation(t *testing.T) {
	t.Parallel()
	part := llama
	part.Complete = false
	h := newFakeHive(t, "gpu-1", part)
	h.proceed = make(chan struct{})
	q, _ := startQueen(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	inferResult := make(chan error, 1)
	go func() {
		_, err := q.infer(ctx, question("org/m:Q4"), nil)
		inferResult <- err
	}()
	h.waitUntil(func() bool { return len(h.ops) == 1 })
	result := make(chan error, 1)
	go func() {
		_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m:Q4"})
		result <- err
	}()
	q.waitForWaiting(t, 2)
	cancel()
	if err := <-inferResult; err == nil {
		t.Error("infer() after cancellation = nil error, want an error")
	}
	h.waitUntil(func() bool { return h.canceled == 1 })
	if err := <-result; err == nil || operations.CodeOf(err) == operations.CodeCanceled || strings.Contains(err.Error(), "canceled") {
		t.Errorf("Acquire() = %v, want an error other than canceled", err)
	}
	if want := []string{"model_download org/m:Q4"}; !slices.Equal(h.ops, want) {
		t.Errorf("operations on the hive = %v, want %v", h.ops, want)
	}
}

// TestAcquireWaitsForRestart checks that a request waits for a worker that restarts soon.
func TestAcquireWaitsForRestart(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	failed := operations.WorkerProcess{ID: "mine-1", Model: "org/m:Q4", State: operations.WorkerFailed, RestartAt: time.Now().Add(time.Second)}
	h.workers = []operations.WorkerProcess{failed}
	q, _ := startQueen(t, h)
	result := make(chan error, 1)
	go func() {
		_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
		result <- err
	}()
	h.waitUntil(func() bool { return h.watches > 2 }) // the queen has refreshed the snapshot
	failed.State = operations.WorkerReady
	h.change(func() { h.workers = []operations.WorkerProcess{failed} })
	if err := <-result; err != nil || len(h.ops) > 0 {
		t.Errorf("Acquire() = %v after operations %v, want the restarted worker", err, h.ops)
	}
}

// TestOneStartPerModel checks that different loads of the same model start only one worker on
// a hive.
func TestOneStartPerModel(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	h.proceed = make(chan struct{})
	q, _ := startQueen(t, h)
	var all sync.WaitGroup
	onHive := question("org/m")
	onHive.HiveID = "gpu-1"
	for _, op := range []operations.Infer{onHive, question("org/m")} {
		all.Go(func() {
			if _, err := q.infer(t.Context(), op, nil); err != nil {
				t.Errorf("infer() with hive %q = %v, want a response", op.HiveID, err)
			}
		})
	}
	all.Go(func() {
		if _, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"}); err != nil {
			t.Errorf("Acquire() = %v, want a worker", err)
		}
	})
	q.waitForWaiting(t, 3)
	h.waitUntil(func() bool { return len(h.ops) == 1 })
	close(h.proceed)
	all.Wait()
	if len(h.ops) != 1 {
		t.Errorf("operations on the hive = %v, want one load", h.ops)
	}
}

// TestFailedWorker checks that a retry starts another worker if the failed one was stopped,
// and otherwise waits for a restart.
func TestFailedWorker(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	q, _ := startQueen(t, h)
	first, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
	if err != nil {
		t.Fatal(err)
	}
	h.change(func() { h.workers = nil })
	lease, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m", Exclude: []string{first.Instance}})
	if err != nil || lease.Worker != "llama-cpp-2" {
		t.Errorf("Acquire() after the worker was stopped = %+v, %v, want llama-cpp-2", lease, err)
	}
	// A failed worker that is still running is not replaced.
	if lease == nil {
		return
	}
	exclude := []string{lease.Instance}
	if _, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m", Exclude: exclude}); err == nil {
		t.Error("Acquire() without the failed worker = nil error, want an error")
	}
	// After a restart the worker counts as another instance.
	result := make(chan error, 1)
	go func() {
		_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m", Exclude: exclude})
		result <- err
	}()
	h.waitUntil(func() bool { return h.watches > 3 }) // the queen has refreshed the snapshot
	h.change(func() {
		h.workers = slices.Clone(h.workers)
		h.workers[0].StartedAt = time.Now()
	})
	if err := <-result; err != nil {
		t.Errorf("Acquire() after the restart = %v, want the worker", err)
	}
	if len(h.ops) != 2 {
		t.Errorf("operations on the hive = %v, want two loads", h.ops)
	}
}

// TestPendingWorker checks that a request waits for a worker that is loading, and that no
// second worker is started while the first one restarts.
func TestPendingWorker(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	loading := operations.WorkerProcess{ID: "mine-1", Model: "org/m", State: operations.WorkerLoading}
	h.workers = []operations.WorkerProcess{loading}
	q, _ := startQueen(t, h)
	result := make(chan error, 1)
	go func() {
		_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m:Q4"})
		result <- err
	}()
	q.waitForWaiting(t, 1)
	loading.State = operations.WorkerReady
	h.change(func() { h.workers = []operations.WorkerProcess{loading} })
	if err := <-result; err != nil || len(h.ops) != 0 {
		t.Errorf("Acquire() = %v after operations %v, want the loading worker", err, h.ops)
	}
	failed := loading
	failed.State, failed.Problem, failed.RestartAt = operations.WorkerFailed, "exit status 1", time.Now().Add(time.Minute)
	h.change(func() { h.workers = []operations.WorkerProcess{failed} })
	q.waitUntil(t, func() bool {
		return q.worker("gpu-1").State == operations.WorkerFailed
	})
	_, err := q.infer(t.Context(), question("org/m"), nil)
	if err == nil || !strings.Contains(err.Error(), "mine-1 failed and will restart at") || len(h.ops) != 0 {
		t.Errorf("infer() = %v after operations %v, want an error about the restart, no operations", err, h.ops)
	}
}

// TestInferDownloadsModel checks that an operation downloads a model that no hive has, and that
// an API request does not.
func TestInferDownloadsModel(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1")
	q, _ := startQueen(t, h)
	if _, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"}); err == nil {
		t.Error("Acquire() of an unknown model = nil error, want an error")
	}
	op := question("org/m")
	op.NoSpawn = true
	if _, err := q.infer(t.Context(), op, nil); operations.CodeOf(err) != operations.CodeNotFound {
		t.Errorf("infer() without spawning = %v, want code not_found", err)
	}
	if len(h.ops) != 0 {
		t.Errorf("operations on the hive = %v, want none", h.ops)
	}
	var messages []string
	r, err := q.infer(t.Context(), question("org/m"), func(e operations.Event) { messages = append(messages, e.Message) })
	if err != nil || r.Text != "honey" || !slices.Contains(messages, "no hive has org/m: fetching it") {
		t.Errorf("infer() = %+v, %v with messages %q, want text honey and a message about fetching", r, err, messages)
	}
	if want := []string{"model_download org/m", "worker_spawn org/m:Q4"}; !slices.Equal(h.ops, want) {
		t.Errorf("operations on the hive = %v, want %v", h.ops, want)
	}
}

// TestNoDownload checks when a model is not downloaded: never for an API request, and not for
// an operation if an offline hive has the model or the name is ambiguous.
func TestNoDownload(t *testing.T) {
	t.Parallel()
	other := operations.Model{ID: "org/m:Q8", Repo: "org/m", Format: "gguf", Complete: true}
	part := llama
	part.Complete = false
	for name, c := range map[string]struct {
		models  []operations.Model
		workers []operations.WorkerProcess
		offline bool
		infer   bool // an operation, not an API request
		message string
	}{
		"infer, hive offline": {models: []operations.Model{llama}, offline: true, infer: true, message: "gpu-1"},
		"hive offline":        {models: []operations.Model{llama}, offline: true},
		"incomplete":          {models: []operations.Model{part}},
		"failed worker":       {workers: []operations.WorkerProcess{{ID: "w", Model: "org/m", State: operations.WorkerFailed}}},
		"infer, ambiguous":    {models: []operations.Model{llama, other}, infer: true, message: "the model name is ambiguous: org/m:Q4, org/m:Q8"},
		"ambiguous":           {models: []operations.Model{llama, other}},
	} {
		first, second := newFakeHive(t, "gpu-1", c.models...), newFakeHive(t, "gpu-2")
		first.workers = c.workers
		q, _ := startQueen(t, first, second)
		if c.offline {
			first.disconnect(q, true)
		}
		var err error
		if c.infer {
			_, err = q.infer(t.Context(), question("org/m"), nil)
		} else {
			_, err = q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
		}
		if err == nil || !strings.Contains(err.Error(), c.message) || len(first.ops)+len(second.ops) > 0 {
			t.Errorf("%s: error = %v after operations %v, %v, want an error with %q, no operations", name, err, first.ops, second.ops, c.message)
		}
	}
}

// TestModelNamePerHive checks that the requested hive determines the meaning of a model name.
func TestModelNamePerHive(t *testing.T) {
	t.Parallel()
	other := operations.Model{ID: "org/m:Q8", Repo: "org/m", Format: "gguf", Complete: true}
	one, two := newFakeHive(t, "gpu-1", llama), newFakeHive(t, "gpu-2", other)
	q, _ := startQueen(t, one, two)
	op := question("org/m")
	op.HiveID = "gpu-2"
	if _, err := q.infer(t.Context(), op, nil); err != nil || !slices.Equal(two.ops, []string{"worker_spawn org/m:Q8"}) || len(one.ops) > 0 {
		t.Errorf("infer() = %v after operations %v, %v, want a load of org/m:Q8 on gpu-2", err, one.ops, two.ops)
	}
}

// TestUnknownModelRunsNoScripts checks that a request for an unknown model runs no scripts on
// hives whose daemon is not running.
func TestUnknownModelRunsNoScripts(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	q, stop := startQueen(t, h)
	h.disconnect(q, false)
	q.waitUntil(t, func() bool { return strings.Contains(q.snapshot().Hives[0].Problem, "the hive daemon is not running") })
	stop() // the pool runs the script periodically
	before := h.scripts
	_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "unknown"})
	if operations.CodeOf(err) == "" || !strings.Contains(err.Error(), "the hive daemon is not running") || h.scripts != before {
		t.Errorf("Acquire() = %v after %d scripts, want an error about the daemon, 0 scripts", err, h.scripts-before)
	}
}

// TestDownloadTooLarge checks that the download of a model that exceeds the memory of the hive
// is canceled.
func TestDownloadTooLarge(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1")
	h.machine.MemoryTotal = 1 << 20
	q, _ := startQueen(t, h)
	if _, err := q.infer(t.Context(), question("org/m"), nil); err == nil || !strings.Contains(err.Error(), "the model needs 1.0 GiB, but the hive has only 1.0 MiB of memory") {
		t.Errorf("infer() = %v, want an error about the size of the model", err)
	}
}

// TestInferRetries checks which failures are retried on another worker.
func TestInferRetries(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{http.StatusBadRequest: 1, http.StatusInternalServerError: 1, http.StatusServiceUnavailable: 3} {
		h := newFakeHive(t, "gpu-1", llama)
		h.chatStatus = status
		for i := range 5 {
			h.workers = append(h.workers, operations.WorkerProcess{ID: fmt.Sprintf("w-%d", i), Model: "org/m:Q4", State: operations.WorkerReady})
		}
		q, _ := startQueen(t, h)
		if _, err := q.infer(t.Context(), question("org/m"), nil); err == nil || len(h.chats) != want {
			t.Errorf("infer() with status %d = %v after requests %v, want an error after %d", status, err, h.chats, want)
		}
	}
}

// TestUnknownModels checks that concurrent requests for unknown models share one refresh of
// the snapshots, and that the error does not expose names of hives.
func TestUnknownModels(t *testing.T) {
	t.Parallel()
	h := newFakeHive(t, "gpu-1", llama)
	q, _ := startQueen(t, h)
	h.mu.Lock()
	before := h.watches
	h.mu.Unlock()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: fmt.Sprintf("org/unknown-%d", i)})
			if apiErr := (*gateway.APIError)(nil); !errors.As(err, &apiErr) || apiErr.Status != http.StatusNotFound || !strings.Contains(apiErr.Detail, "gpu-1") || strings.Contains(apiErr.Message, "gpu-1") {
				t.Errorf("Acquire() = %v, want 404 with gpu-1 only in the detail", err)
			}
		})
	}
	all.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.watches - before; n > 2 || len(h.ops) > 0 {
		t.Errorf("%d requests for snapshots, operations %v, want at most 2, none", n, h.ops)
	}
}
