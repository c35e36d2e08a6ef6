package queen

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
)

// playedHive answers as a hive's daemon does, and does what it is told at once: a test
// may have it wait, or refuse.
type playedHive struct {
	t     *testing.T
	alias string
	http  *httptest.Server

	mu       sync.Mutex
	changed  chan struct{} // closed when it has changed
	models   []operations.Model
	workers  []operations.WorkerProcess
	done     []string // operations that it was told to do, with what they are about
	asked    []string // workers that were asked
	hold     chan struct{}
	refuse   error
	answer   int // the status of workers' answers; 0: 200
	canceled int
	watched  int  // who began to listen
	frozen   bool // it takes connections, and answers nothing
}

var llama = operations.Model{ID: "org/m:Q4", Repo: "org/m", Format: "gguf", Complete: true}

func newPlayedHive(t *testing.T, alias string, models ...operations.Model) *playedHive {
	h := &playedHive{t: t, alias: alias, changed: make(chan struct{}), models: models}
	mux := http.NewServeMux()
	work := jobs.New(h, jobs.Options{})
	mux.Handle("/v1/jobs", work)
	mux.Handle("/v1/jobs/", work)
	mux.HandleFunc("GET "+operations.WatchPath, h.watch)
	mux.HandleFunc("POST /v1/workers/{id}/proxy/v1/chat/completions", h.chat)
	h.http = httptest.NewServer(mux)
	t.Cleanup(func() {
		h.http.CloseClientConnections()
		h.http.Close()
	})
	return h
}

func (h *playedHive) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

// until waits until something is so.
func (h *playedHive) until(so func() bool) {
	h.t.Helper()
	deadline := time.After(time.Minute)
	for {
		h.mu.Lock()
		ok, changed := so(), h.changed
		h.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			h.t.Fatal("it did not come to that")
		}
	}
}

func (h *playedHive) watch(w http.ResponseWriter, r *http.Request) {
	frozen := false
	h.change(func() { h.watched++; frozen = h.frozen })
	if frozen {
		<-r.Context().Done()
		return
	}
	for {
		h.mu.Lock()
		s := operations.HiveSnapshot{
			Time: time.Now(), Models: h.models, Workers: h.workers, Installed: []operations.InstalledType{{Type: "llama-cpp", Formats: []string{"gguf"}}},
			Machine: operations.HiveCapabilitiesReport{MemoryTotal: 64 << 30},
		}
		data, err := json.Marshal(s)
		changed := h.changed
		h.mu.Unlock()
		if err != nil {
			h.t.Error(err)
		}
		fmt.Fprintf(w, "data: %s\n\n", data)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (h *playedHive) chat(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var q struct{ Model string }
	_ = json.NewDecoder(r.Body).Decode(&q)
	var status int
	h.change(func() {
		h.asked = append(h.asked, id+" "+q.Model)
		status = h.answer
		if !slices.ContainsFunc(h.workers, func(p operations.WorkerProcess) bool { return p.ID == id }) {
			status = http.StatusNotFound
			w.Header().Set("X-Rbee-Error", "not_found")
		}
	})
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	_, _ = io.WriteString(w, `{"choices":[{"message":{"role":"assistant","content":"honey"}}]}`)
}

// Run implements [operations.Runner].
func (h *playedHive) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	var hold chan struct{}
	var refuse error
	h.change(func() {
		about := ""
		switch op := op.(type) {
		case operations.WorkerSpawn:
			about = op.Model
		case operations.WorkerProcessDelete:
			about = op.ID
		case operations.ModelDownload:
			about = op.Model
		}
		h.done = append(h.done, string(op.Kind())+" "+about)
		hold, refuse = h.hold, h.refuse
	})
	events(operations.Event{Type: operations.EventNote, Message: "it begins"})
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			h.change(func() { h.canceled++ })
			return nil, ctx.Err()
		}
	}
	if refuse != nil {
		return nil, refuse
	}
	switch op := op.(type) {
	case operations.WorkerSpawn:
		w := operations.WorkerProcess{Worker: op.Worker, Model: op.Model, ModelID: op.Model, State: operations.WorkerReady, OnDemand: op.OnDemand, ReadyAt: time.Now()}
		h.change(func() {
			w.ID = fmt.Sprintf("llama-cpp-%d", len(h.done))
			h.workers = append(slices.Clone(h.workers), w)
		})
		return &operations.WorkerSpawnReport{Worker: w}, nil
	case operations.WorkerProcessDelete:
		h.change(func() {
			h.workers = slices.DeleteFunc(slices.Clone(h.workers), func(w operations.WorkerProcess) bool { return w.ID == op.ID })
		})
		return &operations.WorkerDeleteReport{}, nil
	case operations.ModelDownload:
		events(operations.Event{Type: operations.EventProgress, Bytes: 1, Total: 1 << 30})
		h.change(func() { h.models = append(slices.Clone(h.models), llama) })
		return &operations.ModelDownloadReport{Model: llama}, nil
	}
	return nil, errors.New("a played hive does not do that")
}

// playedFleet is a queen that listens to played hives.
func playedFleet(t *testing.T, hives ...*playedHive) *Queen {
	q := testQueen(t)
	q.registry = newRegistry(q, "", slog.New(slog.DiscardHandler))
	q.registry.read = true
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	t.Cleanup(func() { cancel(); all.Wait() })
	q.front = newGatewayFleet(q, ctx)
	text := ""
	for i, h := range hives {
		text += fmt.Sprintf("[[hive]]\nalias = %q\nhostname = \"127.0.0.%d\"\n", h.alias, i+1)
	}
	path := filepath.Join(q.opts.Paths.ConfigDir, "hives.conf")
	if err := errors.Join(os.MkdirAll(q.opts.Paths.ConfigDir, 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	d, err := q.load("")
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range hives {
		l := newLink(q.registry, d.config.Hives[i])
		l.host = &heldHost{Host: &closing{}}
		q.registry.links[h.alias] = l
		all.Go(func() {
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			_ = l.watch(ctx, cancel, &door{hive: l.hive, host: l.host, patience: 300 * time.Millisecond, client: &client.Client{URL: h.http.URL, HTTP: h.http.Client()}})
		})
	}
	q.until(t, func() bool {
		return !slices.ContainsFunc(q.registry.all(), func(l *link) bool { return !l.tried() })
	})
	return q
}

// until waits until something is so, which the queen hears or does.
func (q *Queen) until(t *testing.T, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that")
		}
	}
}

// waiting waits until so many wait for loads.
func (q *Queen) waiting(t *testing.T, n int) {
	t.Helper()
	q.until(t, func() bool { return q.front.waitingNow() == n })
}

func question(model string) operations.Infer {
	return operations.Infer{Model: model, Prompt: "What do bees make?", MaxTokens: 10}
}

// TestLoadedOnce holds that a model is loaded once, whoever asks for it, how, and by
// whatever name.
func TestLoadedOnce(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	h.hold = make(chan struct{})
	q := playedFleet(t, h)
	var all sync.WaitGroup
	for _, name := range []string{"org/m", "org/m:Q4", "ORG/M:q4"} {
		all.Go(func() {
			r, err := q.infer(t.Context(), question(name), nil)
			if err != nil || r.Text != "honey" {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
		})
		all.Go(func() {
			l, err := q.front.Acquire(t.Context(), gateway.Wish{Model: name})
			if err != nil || l.Model != "org/m:Q4" || l.Name != "org/m:Q4" {
				t.Errorf("%s: %+v, %v", name, l, err)
				return
			}
			l.Done(nil)
		})
	}
	h.until(func() bool { return len(h.done) > 0 })
	q.waiting(t, 6)
	if n := q.front.waits()["org/m:Q4"]; n != 6 {
		t.Errorf("%d wait", n)
	}
	close(h.hold)
	all.Wait()
	if want := []string{"worker_spawn org/m:Q4"}; !slices.Equal(h.done, want) {
		t.Errorf("the hive was told %v", h.done)
	}
	var b strings.Builder
	q.registry.traffic = func() operations.Traffic { return q.traffic.report(0) }
	q.writeMetrics(&b, q.front.waits())
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

// TestLoadIsCancelled holds that a load ends when nobody waits for it any more, unless
// an application asked: that asks again.
func TestLoadIsCancelled(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	h.hold = make(chan struct{})
	q := playedFleet(t, h)
	wait := func(ask func(context.Context) error) (leave func() error) {
		ctx, cancel := context.WithCancel(t.Context())
		before, err := q.front.waitingNow(), make(chan error, 1)
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
		_, err := q.front.Acquire(ctx, gateway.Wish{Model: "org/m"})
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
	q := playedFleet(t, h)
	lease, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"})
	if err != nil {
		t.Fatal(err)
	}
	l := q.registry.links["gpu-1"]
	worker := l.view(time.Now()).Snapshot.Workers[0]
	if q.front.end(t.Context(), l, worker, 0, "a test wants it") {
		t.Error("a worker was ended that answers")
	}
	lease.Done(nil)
	h.change(func() { h.hold = make(chan struct{}) })
	ended, asked := make(chan bool, 1), make(chan error, 1)
	go func() { ended <- q.front.end(t.Context(), l, worker, 0, "a test wants it") }()
	h.until(func() bool { return len(h.done) == 2 })
	if _, ok := q.traffic.begin(worker); ok {
		t.Error("a worker that is being ended takes a request")
	}
	go func() {
		l, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"})
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
	q := playedFleet(t, h)
	if _, err := q.infer(t.Context(), question("org/m"), nil); err != nil {
		t.Fatal(err)
	}
	h.change(func() { h.hold = make(chan struct{}) })
	l := q.registry.links["gpu-1"]
	worker := l.view(time.Now()).Snapshot.Workers[0]
	ended, asked := make(chan bool, 1), make(chan error, 1)
	go func() { ended <- q.front.end(t.Context(), l, worker, 0, "a test wants it") }()
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
	q := playedFleet(t, silent, well)
	silent.change(func() { silent.frozen = true })
	l, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"})
	if err != nil || l.Hive != "gpu-2" || len(silent.done) > 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestTooManyWait holds that those beyond the limit are refused, and start nothing.
func TestTooManyWait(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	q := playedFleet(t, h)
	q.front.waiting = maxWaiting
	for range 10 {
		_, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"})
		if no := (*gateway.Refusal)(nil); !errors.As(err, &no) || no.Status != http.StatusTooManyRequests || no.RetryAfter == 0 {
			t.Fatalf("%v", err)
		}
	}
	if len(q.front.loads) > 0 {
		t.Error("a load was begun")
	}
}

// TestNobodyHearsAfterLeaving holds that a handler is not called once its operation
// has ended, and that an application takes over what a person has given up.
func TestNobodyHearsAfterLeaving(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	h.hold = make(chan struct{})
	q := playedFleet(t, h)
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
		_, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"})
		asked <- err
	}()
	q.waiting(t, 2)
	cancel()
	<-left
	close(h.hold)
	if err := <-asked; err != nil || len(h.done) != 1 {
		t.Errorf("%v; the hive was told %v", err, h.done)
	}
}

// TestGivenUp holds that a load which nobody waited for any more is nobody's answer.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	h.hold = make(chan struct{})
	q := playedFleet(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		h.until(func() bool { return len(h.done) == 1 })
		cancel()
	}()
	if _, err := q.infer(ctx, question("org/m"), nil); err == nil {
		t.Fatal("somebody who left was answered")
	}
	close(h.hold)
	if _, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"}); err != nil {
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
	q := playedFleet(t, h)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := q.infer(ctx, question("org/m:Q4"), nil)
		left <- err
	}()
	h.until(func() bool { return len(h.done) == 1 })
	asked := make(chan error, 1)
	go func() {
		_, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m:Q4"})
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
	q := playedFleet(t, h)
	asked := make(chan error, 1)
	go func() {
		_, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"})
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
	q := playedFleet(t, h)
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
		if _, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"}); err != nil {
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
	q := playedFleet(t, h)
	first, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"})
	if err != nil {
		t.Fatal(err)
	}
	h.change(func() { h.workers = nil })
	l, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m", Avoid: []string{first.Instance}})
	if err != nil || l.Worker != "llama-cpp-2" {
		t.Errorf("%+v, %v", l, err)
	}
	// One that is there and failed is not made better by another one.
	if l == nil {
		return
	}
	avoid := []string{l.Instance}
	if _, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m", Avoid: avoid}); err == nil {
		t.Error("a second worker was started beside one that fails")
	}
	// It crashed, and is started again: the same, and another one.
	asked := make(chan error, 1)
	go func() {
		_, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m", Avoid: avoid})
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
	q := playedFleet(t, h)
	asked := make(chan error, 1)
	go func() {
		_, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m:Q4"})
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
		return q.registry.links["gpu-1"].view(time.Now()).Snapshot.Workers[0].State == operations.WorkerFailed
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
	q := playedFleet(t, h)
	if _, err := q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"}); err == nil {
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
		q := playedFleet(t, has, free)
		if l := q.registry.links["gpu-1"]; c.away {
			l.set(func() { l.door, l.host, l.failed = nil, nil, true })
		}
		var err error
		if c.person {
			_, err = q.infer(t.Context(), question("org/m"), nil)
		} else {
			_, err = q.front.Acquire(t.Context(), gateway.Wish{Model: "org/m"})
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
	q := playedFleet(t, one, two)
	op := question("org/m")
	op.HiveID = "gpu-2"
	if _, err := q.infer(t.Context(), op, nil); err != nil || !slices.Equal(two.done, []string{"worker_spawn org/m:Q8"}) || len(one.done) > 0 {
		t.Errorf("%v; they were told %v, %v", err, one.done, two.done)
	}
	if id := q.front.idOf("org/m", ""); id != "org/m" {
		t.Errorf("hives that do not agree: %s", id)
	}
}

// TestWhyNotAsksNobody holds that a stranger's name makes nobody run commands on
// machines whose daemon is down.
func TestWhyNotAsksNobody(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1", llama)
	q := playedFleet(t, h)
	l := q.registry.links["gpu-1"]
	l.set(func() {
		l.door, l.problem = nil, &operations.Error{Code: operations.CodeUnreachable, Message: "the hive daemon does not run"}
	})
	// Its host is none that runs anything.
	if err := q.front.whyNot("nobody"); operations.CodeOf(err) == "" || !strings.Contains(err.Error(), "the hive daemon does not run") {
		t.Errorf("%v", err)
	}
}

// TestTooLargeToFetch holds that a model that no memory of the hive could hold is given
// up as soon as that is known.
func TestTooLargeToFetch(t *testing.T) {
	t.Parallel()
	h := newPlayedHive(t, "gpu-1")
	q := playedFleet(t, h)
	views, err := q.views(t.Context(), operations.Target{})
	if err != nil {
		t.Fatal(err)
	}
	defer closeViews(views)
	views[0].snapshot.Machine.MemoryTotal = 1 << 20
	if err := q.fetchModel(t.Context(), "org/m", views, nil); err != nil {
		t.Error(err)
	}
	if err := views[0].err; err == nil || !strings.Contains(err.Error(), "1073741824 bytes") {
		t.Errorf("%v", err)
	}
}

// TestAskedAgain holds which failures of a worker have another one asked.
func TestAskedAgain(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]int{http.StatusBadRequest: 1, http.StatusInternalServerError: 1, http.StatusServiceUnavailable: maxInferTries} {
		h := newPlayedHive(t, "gpu-1", llama)
		h.answer = status
		for i := range 5 {
			h.workers = append(h.workers, operations.WorkerProcess{ID: fmt.Sprintf("w-%d", i), Model: "org/m:Q4", State: operations.WorkerReady})
		}
		q := playedFleet(t, h)
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
	q := playedFleet(t, h)
	h.mu.Lock()
	before := h.watched
	h.mu.Unlock()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			_, err := q.front.Acquire(t.Context(), gateway.Wish{Model: fmt.Sprintf("org/nobody-%d", i)})
			if no := (*gateway.Refusal)(nil); !errors.As(err, &no) || no.Status != http.StatusNotFound || !strings.Contains(no.Detail, "gpu-1") || strings.Contains(no.Message, "gpu-1") {
				t.Errorf("%v", err)
			}
		})
	}
	all.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.watched - before; n > 2 || len(h.done) > 0 || len(q.front.loads) > 0 {
		t.Errorf("it was asked %d times and told %v", n, h.done)
	}
}

// TestOthersRequests holds that requests which did not come through the queen count.
func TestOthersRequests(t *testing.T) {
	t.Parallel()
	tr := newTraffic()
	w := operations.WorkerProcess{ID: "w", Hive: "h", State: operations.WorkerReady}
	end, _ := tr.begin(w)
	w.Requests = 3
	tr.heard("h", []operations.WorkerProcess{w})
	if n := tr.busy(w); n != 3 {
		t.Errorf("%d", n)
	}
	end()
	if n := tr.busy(w); n != 2 {
		t.Errorf("%d after the own one has ended", n)
	}
	tr.heard("h", nil)
	if n := tr.busy(w); n != 0 {
		t.Errorf("%d of a worker that is gone", n)
	}
}

var _ pkgmgr.Host = (*closing)(nil)
