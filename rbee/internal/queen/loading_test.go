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

// TestLoadedOnce holds that a model is loaded once, whoever asks for it, how, and by
// whatever name.
func TestLoadedOnce(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	h.hold = make(chan struct{})
	q, _ := playedFleet(t, h)
	var all sync.WaitGroup
	for _, name := range []string{"org/m", "org/m:Q4", "ORG/M:q4"} {
		all.Go(func() {
			r, err := q.infer(t.Context(), question(name), nil)
			if err != nil || r.Text != "honey" {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		})
		all.Go(func() {
			l, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: name})
			if err != nil || l.Model != "org/m:Q4" || l.Name != "org/m:Q4" {
				t.Errorf("%s: %+v, %v", name, l, err)
				return
			}
			l.Release(nil)
		})
	}
	h.until(func() bool { return len(h.done) > 0 })
	q.waiting(t, 6)
	if n := q.loader.WaitingByModel()["org/m:Q4"]; n != 6 {
		t.Errorf("%d wait", n)
	}
	close(h.hold)
	all.Wait()
	if want := []string{"worker_spawn org/m:Q4"}; !slices.Equal(h.done, want) {
		t.Errorf("the hive was told %v", h.done)
	}
	var b strings.Builder
	q.traffic.WriteMetrics(&b, q.loader.WaitingByModel(), q.snapshot().Hives)
	for _, want := range []string{
		`rbee_requests_total{path="infer",code="200",model="org/m:Q4",hive="gpu-1",worker="llama-cpp-1"} 3`,
		`rbee_requests_in_flight{model="org/m:Q4",hive="gpu-1",worker="llama-cpp-1"} 0`,
		`rbee_requests_waiting{model=""} 0`, `rbee_hive_memory_bytes{hive="gpu-1"} 68719476736`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("%s is not in\n%s", want, b.String())
		}
	}
}

// TestLoadIsCanceled holds that a load ends when nobody waits for it any more, unless
// an application asked: that asks again.
func TestLoadIsCanceled(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	h.hold = make(chan struct{})
	q, _ := playedFleet(t, h)
	wait := func(ask func(context.Context) error) (leave func() error) {
		ctx, cancel := context.WithCancel(t.Context())
		before, err := q.loader.Waiting(), make(chan error, 1)
		go func() { err <- ask(ctx) }()
		q.waiting(t, before+1)
		return func() error { cancel(); return <-err }
	}
	infer := func(ctx context.Context) error { _, err := q.infer(ctx, question("org/m"), nil); return err }
	one, two := wait(infer), wait(infer)
	h.until(func() bool { return len(h.done) == 1 })
	if err := one(); err == nil {
		t.Error("somebody who left was answered")
	}
	three := wait(infer)
	if err := two(); err == nil {
		t.Error("somebody who left was answered")
	}
	if len(h.done) != 1 {
		t.Errorf("a load was given up for which somebody waits: %v", h.done)
	}
	if err := three(); err == nil {
		t.Error("somebody who left was answered")
	}
	h.until(func() bool { return h.canceled == 1 })

	app := wait(func(ctx context.Context) error {
		_, err := q.balancer.Acquire(ctx, gateway.RouteRequest{Model: "org/m"})
		return err
	})
	h.until(func() bool { return len(h.done) == 2 })
	if err := app(); err == nil {
		t.Error("somebody who left was answered")
	}
	close(h.hold)
	h.until(func() bool { return len(h.workers) == 1 })
}

// TestAskedWhileItEnds holds that who asks for a model whose worker is just being ended
// has it loaded again.
func TestAskedWhileItEnds(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	q, _ := playedFleet(t, h)
	lease, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
	if err != nil {
		t.Fatal(err)
	}
	l, worker := q.connection("gpu-1"), q.worker("gpu-1")
	if q.loader.Evict(t.Context(), l, worker, 0, "a test wants it") {
		t.Error("a worker was ended that answers")
	}
	lease.Release(nil)
	h.change(func() { h.hold = make(chan struct{}) })
	ended, asked := make(chan bool, 1), make(chan error, 1)
	go func() { ended <- q.loader.Evict(t.Context(), l, worker, 0, "a test wants it") }()
	h.until(func() bool { return len(h.done) == 2 })
	if _, ok := q.traffic.Begin(worker); ok {
		t.Error("a worker that is being ended takes a request")
	}
	go func() {
		l, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
		if err == nil && l.Worker == worker.ID {
			err = errors.New("it was given the worker that is ending")
		}
		asked <- err
	}()
	q.waiting(t, 1)
	close(h.hold)
	if !<-ended {
		t.Error("it did not end")
	}
	if err := <-asked; err != nil {
		t.Error(err)
	}
	if len(h.done) != 3 {
		t.Errorf("the hive was told %v", h.done)
	}
}

// TestAskedByAPersonWhileItEnds holds the same for rbee infer.
func TestAskedByAPersonWhileItEnds(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	q, _ := playedFleet(t, h)
	if _, err := q.infer(t.Context(), question("org/m"), nil); err != nil {
		t.Fatal(err)
	}
	h.change(func() { h.hold = make(chan struct{}) })
	l, worker := q.connection("gpu-1"), q.worker("gpu-1")
	ended, asked := make(chan bool, 1), make(chan error, 1)
	go func() { ended <- q.loader.Evict(t.Context(), l, worker, 0, "a test wants it") }()
	h.until(func() bool { return len(h.done) == 2 })
	go func() {
		_, err := q.infer(t.Context(), question("org/m"), nil)
		asked <- err
	}()
	q.waiting(t, 1)
	close(h.hold)
	if err := <-asked; err != nil || !<-ended || len(h.done) != 3 {
		t.Errorf("%v; the hive was told %v", err, h.done)
	}
}

// TestSilentHive holds that a hive which does not answer keeps nobody from another.
func TestSilentHive(t *testing.T) {
	t.Parallel()
	silent, well := newPlayedHive(t, "gpu-1", llama), newPlayedHive(t, "gpu-2", llama)
	q, _ := playedFleetWith(t, Options{answerTimeout: 300 * time.Millisecond}, silent, well)
	silent.change(func() { silent.frozen = true })
	l, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
	if err != nil || l.Hive != "gpu-2" || len(silent.done) > 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestTooManyWait holds that those beyond the limit are refused, and start nothing.
func TestTooManyWait(t *testing.T) {
	t.Parallel()
	other := operations.Model{ID: "org/n:Q4", Repo: "org/n", Format: "gguf", Complete: true}
	h := newPlayedHive(t, "gpu-1", llama, other)
	h.hold = make(chan struct{})
	q, _ := playedFleet(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range loader.MaxWaiting {
		all.Go(func() { _, _ = q.balancer.Acquire(ctx, gateway.RouteRequest{Model: "org/m"}) })
	}
	q.waiting(t, loader.MaxWaiting)
	h.until(func() bool { return len(h.done) == 1 })
	for range 10 {
		for _, name := range []string{"org/m", "org/n"} {
			_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: name})
			if no := (*gateway.APIError)(nil); !errors.As(err, &no) || no.Status != http.StatusTooManyRequests || no.RetryAfter == 0 {
				t.Fatalf("%v", err)
			}
		}
	}
	if len(h.done) != 1 {
		t.Errorf("a load was begun: %v", h.done)
	}
	cancel()
	all.Wait()
}

// TestNobodyHearsAfterLeaving holds that a handler is not called once its operation
// has ended, and that an application takes over what a person has given up.
func TestNobodyHearsAfterLeaving(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	h.hold = make(chan struct{})
	q, _ := playedFleet(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		var gone bool
		_, _ = q.infer(ctx, question("org/m"), func(operations.Event) {
			if gone {
				t.Error("it hears after it has ended")
			}
		})
		gone = true
		close(left)
	}()
	h.until(func() bool { return len(h.done) == 1 })
	asked := make(chan error, 1)
	go func() {
		_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
		asked <- err
	}()
	// Waiting also counts requests for which hives are asked once more: those have not joined.
	q.until(t, func() bool { return q.loader.WaitingByModel()["org/m:Q4"] == 2 })
	cancel()
	<-left
	// The load of the person who left is canceled, and the application has one of its own.
	h.until(func() bool { return h.canceled == 1 && len(h.done) == 2 })
	close(h.hold)
	if err := <-asked; err != nil || len(h.done) != 2 {
		t.Errorf("%v; the hive was told %v", err, h.done)
	}
}

// TestGivenUp holds that a load which nobody waited for any more is nobody's answer.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	h.hold = make(chan struct{})
	q, _ := playedFleet(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		h.until(func() bool { return len(h.done) == 1 })
		cancel()
	}()
	if _, err := q.infer(ctx, question("org/m"), nil); err == nil {
		t.Fatal("somebody who left was answered")
	}
	close(h.hold)
	if _, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"}); err != nil {
		t.Error(err)
	}
}

// TestFetchIsGivenUp holds that a download ends when no person waits for it any more,
// whatever applications wait for.
func TestFetchIsGivenUp(t *testing.T) {
	t.Parallel()
	part := llama
	part.Complete = false
	h := newPlayedHive(t, "gpu-1", part)
	h.hold = make(chan struct{})
	q, _ := playedFleet(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := q.infer(ctx, question("org/m:Q4"), nil)
		left <- err
	}()
	h.until(func() bool { return len(h.done) == 1 })
	asked := make(chan error, 1)
	go func() {
		_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m:Q4"})
		asked <- err
	}()
	q.waiting(t, 2)
	cancel()
	if err := <-left; err == nil {
		t.Error("somebody who left was answered")
	}
	h.until(func() bool { return h.canceled == 1 })
	if err := <-asked; err == nil || operations.CodeOf(err) == operations.CodeCanceled || strings.Contains(err.Error(), "canceled") {
		t.Errorf("an application heard %v", err)
	}
	if want := []string{"model_download org/m:Q4"}; !slices.Equal(h.done, want) {
		t.Errorf("the hive was told %v", h.done)
	}
}

// TestStartsAgainSoon holds that a worker which is started again in a moment is waited
// for.
func TestStartsAgainSoon(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	failed := operations.WorkerProcess{ID: "mine-1", Model: "org/m:Q4", State: operations.WorkerFailed, RestartAt: time.Now().Add(time.Second)}
	h.workers = []operations.WorkerProcess{failed}
	q, _ := playedFleet(t, h)
	asked := make(chan error, 1)
	go func() {
		_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
		asked <- err
	}()
	h.until(func() bool { return h.watched > 2 }) // it was looked at anew
	failed.State = operations.WorkerReady
	h.change(func() { h.workers = []operations.WorkerProcess{failed} })
	if err := <-asked; err != nil || len(h.done) > 0 {
		t.Errorf("%v; the hive was told %v", err, h.done)
	}
}

// TestOneAtATime holds that those who want the same model on a hive for reasons of
// their own start one worker.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	h.hold = make(chan struct{})
	q, _ := playedFleet(t, h)
	var all sync.WaitGroup
	here := question("org/m")
	here.HiveID = "gpu-1"
	for _, op := range []operations.Infer{here, question("org/m")} {
		all.Go(func() {
			if _, err := q.infer(t.Context(), op, nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Go(func() {
		if _, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"}); err != nil {
			t.Error(err)
		}
	})
	q.waiting(t, 3)
	h.until(func() bool { return len(h.done) == 1 })
	close(h.hold)
	all.Wait()
	if len(h.done) != 1 {
		t.Errorf("the hive was told %v", h.done)
	}
}

// TestGoneWorker holds that a worker that somebody else has ended is noticed by the one
// who asks it, and another one is started.
func TestGoneWorker(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	q, _ := playedFleet(t, h)
	first, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
	if err != nil {
		t.Fatal(err)
	}
	h.change(func() { h.workers = nil })
	l, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m", Exclude: []string{first.Instance}})
	if err != nil || l.Worker != "llama-cpp-2" {
		t.Errorf("%+v, %v", l, err)
	}
	// One that is there and failed is not made better by another one.
	if l == nil {
		return
	}
	avoid := []string{l.Instance}
	if _, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m", Exclude: avoid}); err == nil {
		t.Error("a second worker was started beside one that fails")
	}
	// It crashed, and is started again: the same, and another one.
	asked := make(chan error, 1)
	go func() {
		_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m", Exclude: avoid})
		asked <- err
	}()
	h.until(func() bool { return h.watched > 3 }) // it looks how the worker is
	h.change(func() {
		h.workers = slices.Clone(h.workers)
		h.workers[0].StartedAt = time.Now()
	})
	if err := <-asked; err != nil {
		t.Error(err)
	}
	if len(h.done) != 2 {
		t.Errorf("the hive was told %v", h.done)
	}
}

// TestUnderway holds that a worker which is loading is waited for, and one that will be
// started again gets no second one beside it.
func TestUnderway(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	loading := operations.WorkerProcess{ID: "mine-1", Model: "org/m", State: operations.WorkerLoading}
	h.workers = []operations.WorkerProcess{loading}
	q, _ := playedFleet(t, h)
	asked := make(chan error, 1)
	go func() {
		_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m:Q4"})
		asked <- err
	}()
	q.waiting(t, 1)
	loading.State = operations.WorkerReady
	h.change(func() { h.workers = []operations.WorkerProcess{loading} })
	if err := <-asked; err != nil || len(h.done) != 0 {
		t.Errorf("%v; the hive was told %v", err, h.done)
	}
	failed := loading
	failed.State, failed.Problem, failed.RestartAt = operations.WorkerFailed, "exit status 1", time.Now().Add(time.Minute)
	h.change(func() { h.workers = []operations.WorkerProcess{failed} })
	q.until(t, func() bool {
		return q.worker("gpu-1").State == operations.WorkerFailed
	})
	_, err := q.infer(t.Context(), question("org/m"), nil)
	if err == nil || !strings.Contains(err.Error(), "mine-1 failed and is started again at") || len(h.done) != 0 {
		t.Errorf("%v; the hive was told %v", err, h.done)
	}
}

// TestFetched holds that a person who asks for a model that no hive has gets it, and an
// application does not.
func TestFetched(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1")
	q, _ := playedFleet(t, h)
	if _, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"}); err == nil {
		t.Error("an application had a model fetched")
	}
	op := question("org/m")
	op.NoSpawn = true
	if _, err := q.infer(t.Context(), op, nil); operations.CodeOf(err) != operations.CodeNotFound {
		t.Errorf("%v", err)
	}
	if len(h.done) != 0 {
		t.Errorf("the hive was told %v", h.done)
	}
	var told []string
	r, err := q.infer(t.Context(), question("org/m"), func(e operations.Event) { told = append(told, e.Message) })
	if err != nil || r.Text != "honey" || !slices.Contains(told, "no hive has org/m: fetching it") {
		t.Errorf("%+v, %v, told %q", r, err, told)
	}
	if want := []string{"model_download org/m", "worker_spawn org/m:Q4"}; !slices.Equal(h.done, want) {
		t.Errorf("the hive was told %v", h.done)
	}
}

// TestNotFetched holds when nothing is fetched, whoever asks: for an application never,
// and for nobody while a hive that has the model is away, or where it has several of
// that name.
func TestNotFetched(t *testing.T) {
	t.Parallel()
	other := operations.Model{ID: "org/m:Q8", Repo: "org/m", Format: "gguf", Complete: true}
	part := llama
	part.Complete = false
	for name, c := range map[string]struct {
		models  []operations.Model
		workers []operations.WorkerProcess
		away    bool
		person  bool
		says    string
	}{
		"its hive is away, a person": {models: []operations.Model{llama}, away: true, person: true, says: "gpu-1"},
		"its hive is away":           {models: []operations.Model{llama}, away: true},
		"not whole":                  {models: []operations.Model{part}},
		"a worker that failed":       {workers: []operations.WorkerProcess{{ID: "w", Model: "org/m", State: operations.WorkerFailed}}},
		"several, a person":          {models: []operations.Model{llama, other}, person: true, says: "several models of that name are there: org/m:Q4, org/m:Q8"},
		"several":                    {models: []operations.Model{llama, other}},
	} {
		has, free := newPlayedHive(t, "gpu-1", c.models...), newPlayedHive(t, "gpu-2")
		has.workers = c.workers
		q, _ := playedFleet(t, has, free)
		if c.away {
			has.leave(q, true)
		}
		var err error
		if c.person {
			_, err = q.infer(t.Context(), question("org/m"), nil)
		} else {
			_, err = q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "org/m"})
		}
		if err == nil || !strings.Contains(err.Error(), c.says) || len(has.done)+len(free.done) > 0 {
			t.Errorf("%s: %v; they were told %v, %v", name, err, has.done, free.done)
		}
	}
}

// TestNameOfTheHive holds that a name means what it means on the hive that is asked.
func TestNameOfTheHive(t *testing.T) {
	t.Parallel()
	other := operations.Model{ID: "org/m:Q8", Repo: "org/m", Format: "gguf", Complete: true}
	one, two := newPlayedHive(t, "gpu-1", llama), newPlayedHive(t, "gpu-2", other)
	q, _ := playedFleet(t, one, two)
	op := question("org/m")
	op.HiveID = "gpu-2"
	if _, err := q.infer(t.Context(), op, nil); err != nil || !slices.Equal(two.done, []string{"worker_spawn org/m:Q8"}) || len(one.done) > 0 {
		t.Errorf("%v; they were told %v, %v", err, one.done, two.done)
	}
}

// TestWhyNotAsksNobody holds that a stranger's name makes nobody run commands on
// machines whose daemon is down.
func TestWhyNotAsksNobody(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	q, stop := playedFleet(t, h)
	h.leave(q, false)
	q.until(t, func() bool { return strings.Contains(q.snapshot().Hives[0].Problem, "the hive daemon does not run") })
	stop() // it would look for the daemon by itself
	before := h.scripts
	_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: "nobody"})
	if operations.CodeOf(err) == "" || !strings.Contains(err.Error(), "the hive daemon does not run") || h.scripts != before {
		t.Errorf("%v; %d scripts were run", err, h.scripts-before)
	}
}

// TestTooLargeToFetch holds that a model that no memory of the hive could hold is given
// up as soon as that is known.
func TestTooLargeToFetch(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1")
	h.machine.MemoryTotal = 1 << 20
	q, _ := playedFleet(t, h)
	if _, err := q.infer(t.Context(), question("org/m"), nil); err == nil || !strings.Contains(err.Error(), "1073741824 bytes") {
		t.Errorf("%v", err)
	}
}

// TestAskedAgain holds which failures of a worker have another one asked.
func TestAskedAgain(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{http.StatusBadRequest: 1, http.StatusInternalServerError: 1, http.StatusServiceUnavailable: 3} {
		h := newPlayedHive(t, "gpu-1", llama)
		h.answer = status
		for i := range 5 {
			h.workers = append(h.workers, operations.WorkerProcess{ID: fmt.Sprintf("w-%d", i), Model: "org/m:Q4", State: operations.WorkerReady})
		}
		q, _ := playedFleet(t, h)
		if _, err := q.infer(t.Context(), question("org/m"), nil); err == nil || len(h.asked) != want {
			t.Errorf("%d: %v; asked %v", status, err, h.asked)
		}
	}
}

// TestStrangersNames holds that for names that no hive knows nothing is done but to ask
// all of them, once for all who wait; and that one is known as soon as it is there.
func TestStrangersNames(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	q, _ := playedFleet(t, h)
	h.mu.Lock()
	before := h.watched
	h.mu.Unlock()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			_, err := q.balancer.Acquire(t.Context(), gateway.RouteRequest{Model: fmt.Sprintf("org/nobody-%d", i)})
			if no := (*gateway.APIError)(nil); !errors.As(err, &no) || no.Status != http.StatusNotFound || !strings.Contains(no.Detail, "gpu-1") || strings.Contains(no.Message, "gpu-1") {
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.watched - before; n > 2 || len(h.done) > 0 {
		t.Errorf("it was asked %d times and told %v", n, h.done)
	}
}
