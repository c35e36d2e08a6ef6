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

// Options configure a [Manager]. Dir, Logs and Engine are required.
type Options struct {
	// Dir holds the records, and Logs the workers' logs. Both directories are created
	// when needed.
	Dir, Logs string

	// Engine returns the engine of an installed worker type. Its error is returned
	// unchanged. A start calls Engine again after the program was recorded, because an
	// installation may have moved the program before that; see [Programs].
	Engine func(ctx context.Context, workerType string) (engine.Engine, error)

	// Verify is called before each start of an engine that has a verify command; an error
	// prevents the start. If Verify is nil, nothing is verified.
	Verify func(ctx context.Context, workerType string, e engine.Engine) error

	// Model finds a model on disk and estimates its memory with a context of the given
	// number of tokens; 0 means the model's default. If Model is nil, engines get no
	// model path.
	Model func(ctx context.Context, model string, context int) (engine.Model, error)

	// Devices returns the accelerators, and Processes the processes with memory on
	// them. Nil means that the machine has no accelerators.
	Devices   func(ctx context.Context) ([]gpu.Device, error)
	Processes func(ctx context.Context) ([]operations.DeviceProcess, error)

	// Scopes runs each worker in a separate systemd user scope, so that stopping the
	// hive's service does not stop the workers.
	Scopes bool

	// Log is the log of the hive daemon; nil discards its lines.
	Log *slog.Logger

	// Timing holds timeouts and intervals; zero values mean the defaults.
	Timing Timing
}

// Timing holds the timeouts and intervals of a [Manager]. Zero means the default, which is
// given in parentheses.
type Timing struct {
	StallTimeout  time.Duration   // maximum time without activity while loading (5 min)
	DrainTimeout  time.Duration   // maximum wait for active requests when a worker stops (30 s)
	GracePeriod   time.Duration   // between SIGTERM and SIGKILL (20 s)
	KillTimeout   time.Duration   // maximum wait for processes to exit after SIGKILL (10 s)
	MemoryTimeout time.Duration   // maximum wait for device memory to be released (30 s)
	MemorySettle  time.Duration   // maximum wait for more released memory if not all its users are known (2 s)
	SteadyAfter   time.Duration   // time in state ready after which earlier failures no longer count (5 min)
	WatchInterval time.Duration   // between checks of a ready worker (15 s)
	Backoff       []time.Duration // delays before restarts; the last one repeats (0, 10, 20 … 300 s)
}

func (t Timing) withDefaults() Timing {
	t.StallTimeout = cmp.Or(t.StallTimeout, 5*time.Minute)
	t.DrainTimeout = cmp.Or(t.DrainTimeout, 30*time.Second)
	t.GracePeriod = cmp.Or(t.GracePeriod, 20*time.Second)
	t.KillTimeout = cmp.Or(t.KillTimeout, 10*time.Second)
	t.MemoryTimeout = cmp.Or(t.MemoryTimeout, 30*time.Second)
	t.MemorySettle = cmp.Or(t.MemorySettle, 2*time.Second)
	t.SteadyAfter = cmp.Or(t.SteadyAfter, 5*time.Minute)
	t.WatchInterval = cmp.Or(t.WatchInterval, 15*time.Second)
	if t.Backoff == nil {
		s := time.Second
		t.Backoff = []time.Duration{0, 10 * s, 20 * s, 40 * s, 80 * s, 160 * s, 300 * s}
	}
	return t
}

// maxTerminalRecords is the maximum number of records of workers in a final state.
const maxTerminalRecords = 50

// Manager manages the workers of one machine. A directory of records must not have more
// than one manager. Its methods may be called concurrently.
type Manager struct {
	o      Options
	timing Timing
	log    *slog.Logger
	boot   string

	ctx         context.Context // ends with Close
	cancel      context.CancelFunc
	supervisors sync.WaitGroup

	placementMu sync.Mutex // held while a worker selects devices and a port

	maxLog int64 // bytes at which a log is rotated

	mu        sync.Mutex
	workers   map[string]*worker
	newerErrs map[string]error // by worker id: errors of records that only a newer rbee can read

	testHook func(point string) // called at the points at which tests kill the process; nil outside tests
}

func (m *Manager) callTestHook(point string) {
	if m.testHook != nil {
		m.testHook(point)
	}
}

// New returns a manager without workers. Call [Manager.Start] to restore recorded ones.
func New(o Options) *Manager {
	m := &Manager{o: o, timing: o.Timing.withDefaults(), log: o.Log, maxLog: maxLog, workers: map[string]*worker{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Start reads the records and continues every worker. It adopts processes that still run.
func (m *Manager) Start() error {
	return m.restore(func(*record) bool { return true }, func(*worker) {})
}

// restore creates the workers of the records that include selects. It calls prepare for
// each worker before it adopts the worker's process. No worker continues before all are
// restored, because placement must know the memory that is reserved for the others.
func (m *Manager) restore(include func(*record) bool, prepare func(*worker)) error {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return fmt.Errorf("cannot determine the start time of this process: %w", err)
	}
	m.boot = self.BootID
	records, newer, err := m.recoverRecords()
	if err != nil {
		return fmt.Errorf("cannot read the records of workers: %w", err)
	}
	m.mu.Lock()
	m.newerErrs = newer
	m.mu.Unlock()
	var restored []*worker
	for _, r := range records {
		if !include(r) {
			continue
		}
		w := m.add(r)
		prepare(w)
		w.adopt()
		w.upgradeRecord()
		restored = append(restored, w)
	}
	for _, w := range restored {
		m.supervisors.Go(w.resume)
	}
	return nil
}

// Close stops managing the workers. Their processes continue to run. Close may be called twice.
func (m *Manager) Close() {
	m.cancel()
	m.supervisors.Wait()
}

// add adds a worker with a record. It does not start its supervisor.
func (m *Manager) add(r *record) *worker {
	w := &worker{m: m, rec: *r, changed: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	m.mu.Lock()
	m.workers[r.ID] = w
	m.mu.Unlock()
	return w
}

// all returns the workers, oldest first.
func (m *Manager) all() []*worker {
	m.mu.Lock()
	list := make([]*worker, 0, len(m.workers))
	for _, w := range m.workers {
		list = append(list, w)
	}
	m.mu.Unlock()
	created := map[*worker]time.Time{}
	for _, w := range list {
		created[w] = w.record().CreatedAt
	}
	slices.SortFunc(list, func(a, b *worker) int {
		return cmp.Or(created[a].Compare(created[b]), cmp.Compare(a.rec.ID, b.rec.ID))
	})
	return list
}

// List returns the workers, oldest first. It includes stopped workers if includeStopped is
// set.
func (m *Manager) List(includeStopped bool) []operations.WorkerProcess {
	list := []operations.WorkerProcess{}
	for _, w := range m.all() {
		if p := w.report(); includeStopped || p.State != operations.WorkerStopped {
			list = append(list, p)
		}
	}
	return append(list, m.newerWorkers()...)
}

// newerWorkers returns the workers whose records only a newer rbee can read, sorted by ID.
// Their processes may be running.
func (m *Manager) newerWorkers() (list []operations.WorkerProcess) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(m.newerErrs)) {
		typ := id
		if i := strings.LastIndexByte(id, '-'); i > 0 {
			typ = id[:i]
		}
		list = append(list, operations.WorkerProcess{ID: id, Worker: typ, State: operations.WorkerFailed, Problem: m.newerErrs[id].Error()})
	}
	return list
}

// Get returns one worker with the end of its log.
func (m *Manager) Get(ref operations.WorkerRef) (*operations.WorkerProcess, error) {
	w, err := m.find(ref)
	if err != nil {
		return nil, err
	}
	p := w.report()
	p.LogTail = m.logTail(p.ID, tailLines)
	return &p, nil
}

// find returns the worker with the ID, an unambiguous prefix of the ID, or the PID in
// ref. If several workers have the prefix, a single worker that is not stopped has
// precedence. The error is an [*operations.Error] with CodeNotFound, or with CodeFailed if
// only a newer rbee can read the record.
func (m *Manager) find(ref operations.WorkerRef) (*worker, error) {
	var matches []*worker // workers with the prefix
	var ids []string      // their IDs
	var live []*worker    // the matches that are not stopped
	for _, w := range m.all() {
		p := w.report()
		switch {
		case ref.ID != "" && p.ID == ref.ID, ref.ID == "" && p.PID == ref.PID:
			return w, nil
		case ref.ID != "" && strings.HasPrefix(p.ID, ref.ID):
			matches = append(matches, w)
			ids = append(ids, p.ID)
			if p.State != operations.WorkerStopped {
				live = append(live, w)
			}
		}
	}
	m.mu.Lock()
	newer := m.newerErrs[ref.ID]
	m.mu.Unlock()
	switch {
	case newer != nil:
		return nil, failure(operations.ReasonNewerFile, ref.ID, "cannot use worker %s: %v", ref.ID, newer)
	case len(live) == 1:
		return live[0], nil
	case len(matches) == 1:
		return matches[0], nil
	case len(matches) > 1:
		return nil, notFound(operations.ReasonWorkerAmbiguous, ref.ID, "%d workers match %q: %s", len(ids), ref.ID, strings.Join(ids, ", "))
	case ref.ID != "":
		return nil, notFound(operations.ReasonWorkerNotFound, ref.ID, "unknown worker %q: %s", ref.ID, m.describeWorkers())
	default:
		return nil, notFound(operations.ReasonWorkerNotFound, strconv.Itoa(ref.PID), "process %d is not a worker: %s", ref.PID, m.describeWorkers())
	}
}

// describeWorkers returns the end of an error message that lists the workers.
func (m *Manager) describeWorkers() string {
	var ids []string
	for _, p := range m.List(false) {
		ids = append(ids, p.ID)
	}
	if len(ids) == 0 {
		return "this hive has no workers"
	}
	return "this hive has " + strings.Join(ids, ", ")
}

func notFound(reason operations.Reason, worker, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeNotFound, Reason: reason, Subject: operations.SubjectWorker.WithName(worker), Message: fmt.Sprintf(format, args...)}
}

func failure(reason operations.Reason, worker, format string, args ...any) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: operations.SubjectWorker.WithName(worker), Message: fmt.Sprintf(format, args...)}
}

// create adds a new worker and writes its record.
func (m *Manager) create(op operations.WorkerSpawn) (*worker, error) {
	m.pruneRecords()
	r := &record{
		Worker: op.Worker, Model: op.Model, Device: op.Device, RequestedPort: op.Port, ContextLength: op.ContextLength, Parallel: op.Parallel, OnDemand: op.OnDemand,
		Env: op.Env, Args: op.Args, State: operations.WorkerStarting, Marker: randomHex(16), Boot: m.boot, CreatedAt: time.Now().UTC(),
	}
	m.mu.Lock()
	for r.ID = ""; r.ID == "" || m.workers[r.ID] != nil || m.newerErrs[r.ID] != nil; {
		r.ID = op.Worker + "-" + randomHex(2)
	}
	m.mu.Unlock()
	w := m.add(r)
	if err := w.save(); err != nil {
		m.remove(w)
		return nil, fmt.Errorf("cannot write the record of a new worker: %w", err)
	}
	return w, nil
}

// remove removes a worker without a process, including its record and its log.
func (m *Manager) remove(w *worker) {
	id := w.record().ID
	m.mu.Lock()
	delete(m.workers, id)
	m.mu.Unlock()
	for _, path := range []string{m.path(id), m.logPath(id), m.oldLogPath(id), m.stateDir(id)} {
		if err := os.RemoveAll(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.log.Warn("cannot remove worker file", "file", path, "error", err)
		}
	}
}

// pruneRecords removes the oldest workers in a final state beyond maxTerminalRecords.
func (m *Manager) pruneRecords() {
	var terminal []*worker
	for _, w := range m.all() {
		if r := w.record(); r.isTerminal() {
			terminal = append(terminal, w)
		}
	}
	for _, w := range terminal[:max(0, len(terminal)-maxTerminalRecords)] {
		m.remove(w)
	}
}

// randomHex returns n random bytes in hex.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// stateDir returns the state directory of a worker, which is removed when it stops.
func (m *Manager) stateDir(id string) string { return filepath.Join(m.o.Dir, id+".state") }

func (m *Manager) logPath(id string) string    { return filepath.Join(m.o.Logs, id+".log") }
func (m *Manager) oldLogPath(id string) string { return m.logPath(id) + ".1" }
