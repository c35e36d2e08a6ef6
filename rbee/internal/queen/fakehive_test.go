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
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
)

// fakeHive implements the API of a hive's daemon. It runs operations immediately, unless a
// test makes them block or fail.
type fakeHive struct {
	t     testing.TB
	alias string
	http  *httptest.Server

	mu          sync.Mutex
	changed     chan struct{} // closed at the next change
	models      []operations.Model
	workers     []operations.WorkerProcess
	ops         []string      // operations: kind, and model or worker ID
	chats       []string      // chat requests: worker and model
	proceed     chan struct{} // if not nil, operations block until it is closed
	runErr      error         // error of all operations
	chatStatus  int           // status of chat responses; 0 means 200
	canceled    int           // operations that were canceled
	watches     int           // streams of snapshots that were opened
	frozen      bool          // streams of snapshots send nothing
	daemonDown  bool          // the daemon is not running
	unreachable bool          // the host is unreachable
	scripts     int           // scripts run on the host
	machine     operations.HiveCapabilitiesReport
}

// fakeHost is the connection to the host of a fakeHive.
type fakeHost struct {
	pkgmgr.Host
	hive *fakeHive
}

func (h *fakeHive) dial() (pkgmgr.Host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unreachable {
		return nil, errors.New("no route to host")
	}
	return &fakeHost{hive: h}, nil
}

// Script implements [pkgmgr.Host] for the script that finds the daemon.
func (p *fakeHost) Script(_ context.Context, _ string, stdout, _ io.Writer) error {
	h := p.hive
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scripts++
	if h.unreachable {
		return errors.New("no route to host")
	}
	record := ""
	if !h.daemonDown {
		record = fmt.Sprintf(`{"port": %d}`, h.http.Listener.Addr().(*net.TCPAddr).Port)
	}
	_, err := fmt.Fprintf(stdout, "\x1ehome /h\n\x1etoken %s\n\x1erecord %s\x1eend\n", h.alias, record)
	return err
}

// Dial implements [pkgmgr.Host].
func (p *fakeHost) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	p.hive.mu.Lock()
	ok := !p.hive.daemonDown && !p.hive.unreachable
	p.hive.mu.Unlock()
	if !ok {
		return nil, syscall.ECONNREFUSED
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Close implements [pkgmgr.Host].
func (*fakeHost) Close() error { return nil }

// disconnect stops the daemon or makes the host unreachable, and waits until the queen reports
// the hive as offline.
func (h *fakeHive) disconnect(q *queen, unreachable bool) {
	h.t.Helper()
	h.change(func() { h.daemonDown, h.unreachable = true, unreachable })
	h.http.CloseClientConnections()
	q.waitUntil(h.t, func() bool { return q.connection(h.alias).View(time.Now()).Link == operations.LinkOffline })
}

var llama = operations.Model{ID: "org/m:Q4", Repo: "org/m", Format: "gguf", Complete: true}

func newFakeHive(t testing.TB, alias string, models ...operations.Model) *fakeHive {
	h := &fakeHive{t: t, alias: alias, changed: make(chan struct{}), models: models, machine: operations.HiveCapabilitiesReport{MemoryTotal: 64 << 30}}
	mux := http.NewServeMux()
	jobsServer := jobs.New(h, jobs.Options{})
	mux.Handle("/v1/jobs", jobsServer)
	mux.Handle("/v1/jobs/", jobsServer)
	mux.HandleFunc("GET "+operations.WatchPath, h.watch)
	mux.HandleFunc("POST /v1/workers/{id}/proxy/v1/chat/completions", h.chat)
	h.http = httptest.NewServer(mux)
	t.Cleanup(func() {
		h.http.CloseClientConnections()
		h.http.Close()
	})
	return h
}

func (h *fakeHive) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	close(h.changed)
	h.changed = make(chan struct{})
}

// waitUntil waits until a condition on the state of the hive is true.
func (h *fakeHive) waitUntil(condition func() bool) {
	h.t.Helper()
	deadline := time.After(time.Minute)
	for {
		h.mu.Lock()
		ok, changed := condition(), h.changed
		h.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			h.t.Fatal("timeout while waiting for a condition of the hive")
		}
	}
}

func (h *fakeHive) watch(w http.ResponseWriter, r *http.Request) {
	frozen := false
	h.change(func() { h.watches++; frozen = h.frozen })
	if frozen {
		<-r.Context().Done()
		return
	}
	for {
		h.mu.Lock()
		s := operations.HiveSnapshot{
			Time: time.Now(), Models: h.models, Workers: h.workers, WorkerTypes: []operations.InstalledWorkerType{{Type: "llama-cpp", Formats: []string{"gguf"}}},
			Machine: h.machine,
		}
		data, err := json.Marshal(s)
		changed := h.changed
		h.mu.Unlock()
		if err != nil {
			h.t.Errorf("cannot encode the snapshot of %s: %v", h.alias, err)
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

func (h *fakeHive) chat(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	var body struct{ Model string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	var status int
	h.change(func() {
		h.chats = append(h.chats, id+" "+body.Model)
		status = h.chatStatus
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
func (h *fakeHive) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	var proceed chan struct{}
	var runErr error
	h.change(func() {
		subject := ""
		switch op := op.(type) {
		case operations.WorkerSpawn:
			subject = op.Model
		case operations.WorkerProcessDelete:
			subject = op.ID
		case operations.ModelDownload:
			subject = op.Model
		}
		h.ops = append(h.ops, string(op.Kind())+" "+subject)
		proceed, runErr = h.proceed, h.runErr
	})
	events(operations.Event{Type: operations.EventNote, Message: "started"})
	if proceed != nil {
		select {
		case <-proceed:
		case <-ctx.Done():
			h.change(func() { h.canceled++ })
			return nil, ctx.Err()
		}
	}
	if runErr != nil {
		return nil, runErr
	}
	switch op := op.(type) {
	case operations.WorkerSpawn:
		w := operations.WorkerProcess{Worker: op.Worker, Model: op.Model, ModelID: op.Model, State: operations.WorkerReady, OnDemand: op.OnDemand, ReadyAt: time.Now()}
		h.change(func() {
			w.ID = fmt.Sprintf("llama-cpp-%d", len(h.ops))
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
	return nil, errors.New("unsupported operation")
}

// startQueen returns a queen that is connected to the hives. Its pool runs until stop is
// called, the queen until the test ends.
func startQueen(t *testing.T, hives ...*fakeHive) (q *queen, stop func()) {
	t.Helper()
	return startQueenWith(t, Options{}, hives...)
}

func startQueenWith(t testing.TB, o Options, hives ...*fakeHive) (q *queen, stop func()) {
	t.Helper()
	paths := testPaths(t)
	text, byAlias := "", map[string]*fakeHive{}
	for i, h := range hives {
		text += fmt.Sprintf("[[hive]]\nalias = %q\nhostname = \"127.0.%d.%d\"\n", h.alias, i/250, i%250+1)
		byAlias[h.alias] = h
	}
	if err := errors.Join(os.MkdirAll(paths.ConfigDir, 0o700), os.WriteFile(filepath.Join(paths.ConfigDir, "hives.conf"), []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	o.Log, o.responseTimeout = slog.New(slog.DiscardHandler), cmp.Or(o.responseTimeout, 5*time.Second)
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
	q.waitUntil(t, func() bool { return len(q.pool.Connections()) == len(hives) && q.online() == len(hives) })
	return q, stop
}

// online returns the number of hives that are online.
func (q *queen) online() (n int) {
	for _, h := range q.snapshot().Hives {
		if h.Link == operations.LinkOnline {
			n++
		}
	}
	return n
}

// waitUntil waits until a condition on the state of the queen is true.
func (q *queen) waitUntil(t testing.TB, condition func() bool) {
	t.Helper()
	waittest.Until(t, "state of the queen", condition)
}

// waitForWaiting waits until n requests wait for loads.
func (q *queen) waitForWaiting(t *testing.T, n int) {
	t.Helper()
	q.waitUntil(t, func() bool { return q.loader.Waiting() == n })
}

// connection returns the connection to a hive.
func (q *queen) connection(alias string) *registry.Connection {
	for _, conn := range q.pool.Connections() {
		if conn.Hive().Alias == alias {
			return conn
		}
	}
	return nil
}

// worker returns the first worker in the snapshot of a hive.
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
