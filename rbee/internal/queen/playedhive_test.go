package queen

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
)

// playedHive answers as a hive's daemon does, and does what it is told at once: a test
// may have it wait, or refuse.
type playedHive struct {
	t     testing.TB
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
	down     bool // its daemon does not run
	gone     bool // the machine cannot be reached
	scripts  int  // that were run on the machine
	machine  operations.HiveCapabilitiesReport
}

// playedHost is the connection to the machine of a played hive.
type playedHost struct {
	pkgmgr.Host
	hive *playedHive
}

func (h *playedHive) dial() (pkgmgr.Host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return nil, errors.New("no route to host")
	}
	return &playedHost{hive: h}, nil
}

// Script implements [pkgmgr.Host]: it answers the script that finds the daemon.
func (p *playedHost) Script(_ context.Context, _ string, stdout, _ io.Writer) error {
	h := p.hive
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scripts++
	if h.gone {
		return errors.New("no route to host")
	}
	record := ""
	if !h.down {
		record = fmt.Sprintf(`{"port": %d}`, h.http.Listener.Addr().(*net.TCPAddr).Port)
	}
	_, err := fmt.Fprintf(stdout, "\x1ehome /h\n\x1etoken %s\n\x1erecord %s\x1eend\n", h.alias, record)
	return err
}

// Dial implements [pkgmgr.Host].
func (p *playedHost) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	p.hive.mu.Lock()
	ok := !p.hive.down && !p.hive.gone
	p.hive.mu.Unlock()
	if !ok {
		return nil, syscall.ECONNREFUSED
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Close implements [pkgmgr.Host].
func (*playedHost) Close() error { return nil }

// leave stops the daemon or, if gone is true, the whole machine, and waits until the
// queen has noticed.
func (h *playedHive) leave(q *queen, gone bool) {
	h.t.Helper()
	h.change(func() { h.down, h.gone = true, gone })
	h.http.CloseClientConnections()
	q.until(h.t, func() bool { return q.connection(h.alias).View(time.Now()).Link == operations.LinkOffline })
}

var llama = operations.Model{ID: "org/m:Q4", Repo: "org/m", Format: "gguf", Complete: true}

func newPlayedHive(t testing.TB, alias string, models ...operations.Model) *playedHive {
	h := &playedHive{t: t, alias: alias, changed: make(chan struct{}), models: models, machine: operations.HiveCapabilitiesReport{MemoryTotal: 64 << 30}}
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
			Machine: h.machine,
		}
		data, err := json.Marshal(s)
		changed := h.changed
		h.mu.Unlock()
		if err != nil {
			h.t.Error(err)
		}
		_, _ = w.Write(sse.Append(nil, sse.Event{Data: data}))
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

// playedFleet is a queen that listens to played hives. Its pool runs until stop, the
// queen itself until the test ends.
func playedFleet(t *testing.T, hives ...*playedHive) (q *queen, stop func()) {
	t.Helper()
	return playedFleetWith(t, Options{}, hives...)
}

func playedFleetWith(t testing.TB, o Options, hives ...*playedHive) (q *queen, stop func()) {
	t.Helper()
	paths := testPaths(t)
	text, byAlias := "", map[string]*playedHive{}
	for i, h := range hives {
		text += fmt.Sprintf("[[hive]]\nalias = %q\nhostname = \"127.0.%d.%d\"\n", h.alias, i/250, i%250+1)
		byAlias[h.alias] = h
	}
	if err := errors.Join(os.MkdirAll(paths.ConfigDir, 0o700), os.WriteFile(filepath.Join(paths.ConfigDir, "hives.conf"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	o.Log, o.answerTimeout = slog.New(slog.DiscardHandler), cmp.Or(o.answerTimeout, 5*time.Second)
	o.dial = func(_ context.Context, h config.Hive) (pkgmgr.Host, error) { return byAlias[h.Alias].dial() }
	background, cancel := context.WithCancel(context.Background())
	q, err := newQueen(background, controller.Options{Version: "1", Paths: paths}, o)
	if err != nil {
		t.Fatal(err)
	}
	running, stopRunning := context.WithCancel(background)
	stopped := make(chan struct{})
	go func() { defer close(stopped); q.pool.Run(running) }()
	stop = func() { stopRunning(); <-stopped }
	t.Cleanup(func() { cancel(); <-stopped })
	q.until(t, func() bool { return len(q.pool.Connections()) == len(hives) && q.online() == len(hives) })
	return q, stop
}

// online is how many hives are online.
func (q *queen) online() (n int) {
	for _, h := range q.snapshot().Hives {
		if h.Link == operations.LinkOnline {
			n++
		}
	}
	return n
}

// until waits until something is so, which the queen hears or does.
func (q *queen) until(t testing.TB, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come to that")
		}
	}
}

// waiting waits until so many wait for loads.
func (q *queen) waiting(t *testing.T, n int) {
	t.Helper()
	q.until(t, func() bool { return q.loader.Waiting() == n })
}

// connection is the connection to a hive.
func (q *queen) connection(alias string) *registry.Connection {
	for _, l := range q.pool.Connections() {
		if l.Hive().Alias == alias {
			return l
		}
	}
	return nil
}

// worker is the first worker that a hive has told of.
func (q *queen) worker(alias string) operations.WorkerProcess {
	return q.connection(alias).View(time.Now()).Snapshot.Workers[0]
}

// infer runs one operation.
func (q *queen) infer(ctx context.Context, op operations.Infer, events operations.Handler) (*operations.InferReport, error) {
	r, err := q.controller.Run(ctx, op, events)
	report, _ := r.(*operations.InferReport)
	return report, err
}

func question(model string) operations.Infer {
	return operations.Infer{Model: model, Prompt: "What do bees make?", MaxTokens: 10}
}
