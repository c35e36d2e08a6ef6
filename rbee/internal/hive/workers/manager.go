package workers

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// Options are what a [Manager] works with. Dir, Logs and Engine are required.
type Options struct {
	// Dir holds the records, Logs the workers' logs. They are made when needed.
	Dir, Logs string

	// Engine finds an installed worker type; its error is shown as it is. It is
	// asked again once a record in Dir has the program, see [Programs].
	Engine func(ctx context.Context, workerType string) (engine.Engine, error)

	// Verify is called before each start of an engine that has a verify command;
	// its error fails the start. Nil verifies nothing.
	Verify func(ctx context.Context, workerType string, e engine.Engine) error

	// Model finds a model on disk and estimates what it takes with a context of
	// so many tokens; 0 is its usual one. Nil finds none.
	Model func(ctx context.Context, model string, context int) (engine.Model, error)

	// Devices and Processes ask for the accelerators and who holds memory there.
	// Nil means that there are none.
	Devices   func(ctx context.Context) ([]gpu.Device, error)
	Processes func(ctx context.Context) ([]operations.DeviceProcess, error)

	// Scopes puts each worker into a systemd user scope of its own, so that
	// whatever is done to the hive's service leaves workers alone.
	Scopes bool

	// Log is the hive's own; nil discards.
	Log *slog.Logger

	// Times are the limits; zero ones are the usual.
	Times Times
}

// Times are the limits of waiting. Zero means the usual value.
type Times struct {
	Stall   time.Duration   // of loading without a sign of life (5 min)
	Drain   time.Duration   // for requests under way when a worker stops (30 s)
	Grace   time.Duration   // from SIGTERM to SIGKILL (20 s)
	Kill    time.Duration   // for processes to be gone after SIGKILL (10 s)
	Memory  time.Duration   // for device memory to come back (30 s)
	Settle  time.Duration   // without more of it, where nobody can tell who holds the rest (2 s)
	Steady  time.Duration   // of serving, after which earlier failures no longer count (5 min)
	Watch   time.Duration   // between two looks at a worker that serves (15 s)
	Backoff []time.Duration // before each try after a failure; the last one repeats (0, 10, 20 … 300 s)
}

func (t Times) withDefaults() Times {
	t.Stall = cmp.Or(t.Stall, 5*time.Minute)
	t.Drain = cmp.Or(t.Drain, 30*time.Second)
	t.Grace = cmp.Or(t.Grace, 20*time.Second)
	t.Kill = cmp.Or(t.Kill, 10*time.Second)
	t.Memory = cmp.Or(t.Memory, 30*time.Second)
	t.Settle = cmp.Or(t.Settle, 2*time.Second)
	t.Steady = cmp.Or(t.Steady, 5*time.Minute)
	t.Watch = cmp.Or(t.Watch, 15*time.Second)
	if t.Backoff == nil {
		s := time.Second
		t.Backoff = []time.Duration{0, 10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 300 * s}
	}
	return t
}

// maxEnded is how many workers that have ended are remembered.
const maxEnded = 50

// Manager keeps the workers of one machine. There must be no more than one for a
// directory of records. Its methods may be called from several goroutines.
type Manager struct {
	o    Options
	t    Times
	log  *slog.Logger
	boot string

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	keep   sync.WaitGroup

	placing sync.Mutex // one worker at a time looks for devices and a port

	maxLog int64 // bytes, beyond which a log is begun anew; the old one is kept once

	mu      sync.Mutex
	workers map[string]*worker
	newer   map[string]error // why records of a newer rbee cannot be read, by worker id

	reached func(point string) // for tests: told of points at which the process may be killed
}

func (m *Manager) reach(point string) {
	if m.reached != nil {
		m.reached(point)
	}
}

// New makes a manager that knows of nothing yet.
func New(o Options) *Manager {
	m := &Manager{o: o, t: o.Times.withDefaults(), log: o.Log, maxLog: maxLog, workers: map[string]*worker{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Start reads the records and goes on with every worker in them: those whose
// processes still run are adopted.
func (m *Manager) Start() error {
	return m.load(func(*record) bool { return true }, func(*worker) {})
}

// load takes over the workers of the records that are wanted; each is given to
// first before anything is done with it. No worker goes on before all are known:
// whoever is placed must see what is promised to the others.
func (m *Manager) load(wanted func(*record) bool, first func(*worker)) error {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return fmt.Errorf("finding this process's start time: %w", err)
	}
	m.boot = self.BootID
	records, newer, err := m.takeRecords()
	if err != nil {
		return fmt.Errorf("reading the records of workers: %w", err)
	}
	m.mu.Lock()
	m.newer = newer
	m.mu.Unlock()
	var taken []*worker
	for _, r := range records {
		if !wanted(r) {
			continue
		}
		w := m.add(r)
		first(w)
		w.adopt()
		w.upgrade()
		taken = append(taken, w)
	}
	for _, w := range taken {
		m.keep.Go(w.resume)
	}
	return nil
}

// Close lets go of all workers. Their processes run on. It may be called twice.
func (m *Manager) Close() {
	m.cancel()
	m.keep.Wait()
}

// add makes the worker of a record.
func (m *Manager) add(r *record) *worker {
	w := &worker{m: m, rec: *r, changed: make(chan struct{}), stop: make(chan struct{}), settled: make(chan struct{})}
	m.mu.Lock()
	m.workers[r.ID] = w
	m.mu.Unlock()
	return w
}

// all lists the workers, oldest first.
func (m *Manager) all() []*worker {
	m.mu.Lock()
	list := make([]*worker, 0, len(m.workers))
	for _, w := range m.workers {
		list = append(list, w)
	}
	m.mu.Unlock()
	age := map[*worker]time.Time{}
	for _, w := range list {
		age[w] = w.record().CreatedAt
	}
	slices.SortFunc(list, func(a, b *worker) int {
		return cmp.Or(age[a].Compare(age[b]), cmp.Compare(a.rec.ID, b.rec.ID))
	})
	return list
}

// List tells of all workers, oldest first; of those that were stopped only if
// stopped is set.
func (m *Manager) List(stopped bool) []operations.WorkerProcess {
	list := []operations.WorkerProcess{}
	for _, w := range m.all() {
		if p := w.public(); stopped || p.State != operations.WorkerStopped {
			list = append(list, p)
		}
	}
	return append(list, m.unreadable()...)
}

// unreadable lists the workers whose records only a newer rbee can read, sorted by id.
// Their processes may run.
func (m *Manager) unreadable() (list []operations.WorkerProcess) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(m.newer)) {
		typ := id
		if i := strings.LastIndexByte(id, '-'); i > 0 {
			typ = id[:i]
		}
		list = append(list, operations.WorkerProcess{ID: id, Worker: typ, State: operations.WorkerFailed, Problem: m.newer[id].Error()})
	}
	return list
}

// Get tells of one worker, with the end of its log.
func (m *Manager) Get(ref operations.WorkerRef) (*operations.WorkerProcess, error) {
	w, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	p := w.public()
	p.LogTail = m.logTail(p.ID, tailLines)
	return &p, nil
}

// find looks a worker up. The error is an [*operations.Error] with CodeNotFound.
func (m *Manager) find(ref operations.WorkerRef) (*worker, error) {
	var begin, live []*worker // of those that begin so; a worker that was stopped is hardly meant
	var ids []string
	for _, w := range m.all() {
		p := w.public()
		switch {
		case ref.ID != "" && p.ID == ref.ID, ref.ID == "" && p.PID == ref.PID:
			return w, nil
		case ref.ID != "" && strings.HasPrefix(p.ID, ref.ID):
			begin = append(begin, w)
			ids = append(ids, p.ID)
			if p.State != operations.WorkerStopped {
				live = append(live, w)
			}
		}
	}
	m.mu.Lock()
	newer := m.newer[ref.ID]
	m.mu.Unlock()
	switch {
	case newer != nil:
		return nil, failure(operations.ReasonNewerFile, ref.ID, "cannot use worker %s: %v", ref.ID, newer)
	case len(live) == 1:
		return live[0], nil
	case len(begin) == 1:
		return begin[0], nil
	case len(begin) > 1:
		return nil, notFound(operations.ReasonWorkerAmbiguous, ref.ID, "%q is the beginning of several workers: %s", ref.ID, strings.Join(ids, ", "))
	case ref.ID != "":
		return nil, notFound(operations.ReasonWorkerNotFound, ref.ID, "no worker %q runs here%s", ref.ID, m.others())
	default:
		return nil, notFound(operations.ReasonWorkerNotFound, strconv.Itoa(ref.PID), "process %d is no worker that rbee started%s", ref.PID, m.others())
	}
}

func (m *Manager) others() string {
	var ids []string
	for _, p := range m.List(false) {
		ids = append(ids, p.ID)
	}
	if len(ids) == 0 {
		return "; there are none"
	}
	return "; there are " + strings.Join(ids, ", ")
}

func notFound(reason operations.Reason, worker, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeNotFound, Reason: reason, Subject: operations.SubjectWorker.Named(worker), Message: fmt.Sprintf(format, args...)}
}

func failure(reason operations.Reason, worker, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: operations.SubjectWorker.Named(worker), Message: fmt.Sprintf(format, args...)}
}

// create makes a new worker and its record.
func (m *Manager) create(op operations.WorkerSpawn) (*worker, error) {
	m.forget()
	r := &record{
		Worker: op.Worker, Model: op.Model, Device: op.Device, AskedPort: op.Port, ContextLength: op.ContextLength, Parallel: op.Parallel, OnDemand: op.OnDemand,
		Env: op.Env, Args: op.Args, State: operations.WorkerStarting, Mark: random(16), Boot: m.boot, CreatedAt: time.Now().UTC(),
	}
	m.mu.Lock()
	for r.ID = ""; r.ID == "" || m.workers[r.ID] != nil || m.newer[r.ID] != nil; {
		r.ID = op.Worker + "-" + random(2)
	}
	m.mu.Unlock()
	w := m.add(r)
	if err := w.save(); err != nil {
		m.drop(w)
		return nil, fmt.Errorf("writing the record of a new worker: %w", err)
	}
	return w, nil
}

// drop forgets a worker that has no process, with its record and its log.
func (m *Manager) drop(w *worker) {
	id := w.record().ID
	m.mu.Lock()
	delete(m.workers, id)
	m.mu.Unlock()
	for _, path := range []string{m.path(id), m.logPath(id), m.oldLogPath(id), m.stateDir(id)} {
		if err := os.RemoveAll(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.log.Warn("a file of a worker that is gone stays", "file", path, "error", err)
		}
	}
}

// forget drops the oldest of the workers that have ended, beyond maxEnded.
func (m *Manager) forget() {
	var ended []*worker
	for _, w := range m.all() {
		if r := w.record(); r.ended() {
			ended = append(ended, w)
		}
	}
	for _, w := range ended[:max(0, len(ended)-maxEnded)] {
		m.drop(w)
	}
}

// random is n random bytes in hex.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// stateDir is the directory that belongs to a worker alone while it lives.
func (m *Manager) stateDir(id string) string { return filepath.Join(m.o.Dir, id+".state") }

func (m *Manager) logPath(id string) string    { return filepath.Join(m.o.Logs, id+".log") }
func (m *Manager) oldLogPath(id string) string { return m.logPath(id) + ".1" }
