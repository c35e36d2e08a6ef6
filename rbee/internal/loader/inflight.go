package loader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
)

const (
	// MaxWaiting is the maximum number of requests that wait for models to be loaded.
	MaxWaiting = 256

	// LoadFailureTTL is the time for which requests share the error of a failed load.
	LoadFailureTTL = 5 * time.Second
)

// Traffic counts the requests to workers.
type Traffic interface {
	scheduler.Usage

	// Idle returns how long a worker has been idle, but not more than the time since the
	// queen started.
	Idle(w operations.WorkerProcess, since time.Time) time.Duration

	// BeginEviction marks a worker as being evicted if it has been idle for the given time.
	// Otherwise ok is false. The caller calls done at the end of the eviction.
	BeginEviction(w operations.WorkerProcess, since time.Time, idle time.Duration) (done func(evicted bool), ok bool)

	// Evicted returns a channel that is closed at the end of the eviction of a worker; nil
	// if it is not being evicted.
	Evicted(w operations.WorkerProcess) <-chan struct{}

	// Forget drops the counters of workers whose keys are not in present.
	Forget(present map[string]bool)
}

// Options configure a [Loader].
type Options struct {
	Pool    *registry.Pool
	Traffic Traffic
	Hives   Hives
	Log     *slog.Logger

	// Config is the config path of the pool in operations; empty for the default config.
	Config string

	// ConfigFile returns the absolute path of a config that an operation names.
	ConfigFile func(name string) (string, error)
}

// Loader starts and evicts workers for a queen. All requests that wait for the same model
// share a load.
type Loader struct {
	starter
	pool       *registry.Pool
	traffic    Traffic
	log        *slog.Logger
	config     string
	configFile func(name string) (string, error)
	background context.Context // for loads, which requests share

	mu         sync.Mutex
	loads      map[loadKey]*inFlight
	startLocks map[string]chan struct{} // by hive and model; closed when the lock is released
	waiting    int
}

// New returns a loader. Loads end when background ends.
func New(background context.Context, o Options) *Loader {
	f := &Loader{
		pool: o.Pool, traffic: o.Traffic, log: o.Log, config: o.Config, configFile: o.ConfigFile, background: background,
		loads: map[loadKey]*inFlight{}, startLocks: map[string]chan struct{}{},
	}
	f.starter = starter{Finder{o.Pool, o.Hives, o.Traffic}, f.prepareStart}
	return f
}

// Load waits until a worker for the operation is started, and finds it. It closes found. The
// caller closes the result, even if there is an error.
func (f *Loader) Load(ctx context.Context, op operations.Infer, found *FindResult, events operations.Handler) (*FindResult, error) {
	if err := f.load(ctx, f.loadKeyOf(op), &events); err != nil {
		return found, err
	}
	found.Close()
	return f.Find(ctx, op)
}

// BusyError is the error of a request that cannot wait for a model because too many
// requests are waiting.
type BusyError struct{ Model string }

// Error implements error.
func (e *BusyError) Error() string {
	return fmt.Sprintf("cannot load %s: %d requests are already waiting for models", e.Model, MaxWaiting)
}

// loadKey identifies a load. Requests with the same key share it.
type loadKey struct {
	model  string // the id, if hives agree on it
	config string // config file; empty for the config of the pool
	hive   string // empty for any
	device string // empty for any
	fetch  bool   // a hive may download the model: set for operations, not for API requests
}

// inFlight is a load that is running or has just ended. The loader's mu guards all fields
// except done, cancel and eventMu.
type inFlight struct {
	done   chan struct{}
	cancel context.CancelFunc

	fetch     bool // a hive may download the model; canceled when no operation waits
	err       error
	endedAt   time.Time // zero while running
	detached  bool      // continues without waiters
	abandoned bool      // canceled because nothing waited for it
	waiting   int
	handlers  []*operations.Handler // receive the events
	eventMu   sync.Mutex            // held while events are sent
}

// isDone reports whether the load has a result. The caller holds f.mu.
func (l *inFlight) isDone() bool { return !l.endedAt.IsZero() }

// load waits until a worker for a model is started, by this request or another one. If
// events is nil, the load continues after the caller is canceled, because API clients
// retry.
func (f *Loader) load(ctx context.Context, w loadKey, events *operations.Handler) error {
	for {
		l, err := f.join(ctx, w, events)
		if err != nil {
			return err
		}
		select {
		case <-l.done:
			err = l.err
		case <-ctx.Done():
			err = ctx.Err()
		}
		if f.leave(l, events); ctx.Err() != nil || !f.isAbandoned(l) {
			return err
		}
	}
}

// isAbandoned reports whether a load was canceled because nothing waited for it.
func (f *Loader) isAbandoned(l *inFlight) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return l.abandoned
}

// join adds a waiter to a load, and starts the load if necessary. A successful join must be
// followed by a leave with the same handler.
func (f *Loader) join(ctx context.Context, w loadKey, events *operations.Handler) (*inFlight, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.inFlightFor(w, events)
	if l == nil || !l.isDone() {
		if f.waiting >= MaxWaiting {
			return nil, &BusyError{w.model}
		}
	}
	if l == nil {
		for key, old := range f.loads {
			if old.isDone() && time.Since(old.endedAt) > LoadFailureTTL {
				delete(f.loads, key)
			}
		}
		ctx, cancel := context.WithCancel(client.WithRequestID(f.background, client.RequestID(ctx)))
		l = &inFlight{done: make(chan struct{}), cancel: cancel, fetch: w.fetch}
		f.loads[w] = l
		go f.run(ctx, l, w)
	}
	f.waiting++
	l.waiting++
	switch {
	case events != nil:
		l.handlers = append(l.handlers, events)
	case !l.fetch:
		l.detached = true
	}
	return l, nil
}

// inFlightFor returns the load for a key that is running, or that has just failed, or nil.
// An operation (events is not nil) does not share a failure, but tries again. A request that
// may not download a model can still wait for a load that does. The caller holds f.mu.
func (f *Loader) inFlightFor(w loadKey, events *operations.Handler) *inFlight {
	fetching := w
	fetching.fetch = true
	for _, key := range []loadKey{w, fetching} {
		if l := f.loads[key]; l != nil && !l.abandoned && !l.isDone() {
			return l
		}
	}
	if l := f.loads[w]; l != nil && !l.abandoned && events == nil && l.err != nil && !IsRestarting(l.err) && time.Since(l.endedAt) <= LoadFailureTTL {
		return l
	}
	return nil
}

// leave removes a waiter. It cancels the load if nothing needs it any longer.
func (f *Loader) leave(l *inFlight, events *operations.Handler) {
	f.mu.Lock()
	f.waiting--
	l.waiting--
	l.handlers = slices.DeleteFunc(l.handlers, func(h *operations.Handler) bool { return h == events })
	if !l.detached && !l.isDone() && (l.waiting == 0 || l.fetch && len(l.handlers) == 0) {
		l.abandoned = true
		l.cancel()
	}
	f.mu.Unlock()
	l.eventMu.Lock() // after this, run does not call the handler
	defer l.eventMu.Unlock()
}

// lockStart acquires the lock for starting a worker for a model on a hive. done releases it.
func (f *Loader) lockStart(ctx context.Context, alias, model string) (done func(), err error) {
	key := alias + "\x00" + model
	for {
		f.mu.Lock()
		current := f.startLocks[key]
		if current == nil {
			lock := make(chan struct{})
			f.startLocks[key] = lock
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				delete(f.startLocks, key)
				close(lock)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-current:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// loadKeyOf returns the key of the load for an operation.
func (f *Loader) loadKeyOf(op operations.Infer) loadKey {
	w := loadKey{model: op.Model, config: op.ConfigPath, hive: op.HiveID, device: op.Device, fetch: true}
	poolConfig, err := f.configFile(f.config)
	opConfig, opErr := f.configFile(op.ConfigPath)
	if err == nil && opErr == nil && poolConfig == opConfig {
		w.config, w.model = "", f.modelID(op.Model, op.HiveID)
	}
	return w
}

// Waiting returns the number of requests that wait for models to be loaded.
func (f *Loader) Waiting() int {
	refreshing := f.pool.Refreshing()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting + refreshing
}

// WaitingByModel returns the number of requests that wait for models to be loaded, by model.
// Models that no hive has are counted under the empty name, which bounds the number of
// labels in metrics.
func (f *Loader) WaitingByModel() map[string]int {
	knownModels, refreshing := map[string]bool{}, f.pool.Refreshing()
	for _, l := range f.pool.Connections() {
		if s := l.View(time.Now()).Snapshot; s != nil {
			for _, m := range s.Models {
				knownModels[m.ID] = true
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := map[string]int{"": refreshing}
	for w, l := range f.loads {
		name := w.model
		if !knownModels[name] {
			name = ""
		}
		if l.waiting > 0 && !l.isDone() {
			n[name] += l.waiting
		}
	}
	return n
}

// run loads a model and stores the result in l.
func (f *Loader) run(ctx context.Context, l *inFlight, w loadKey) {
	err := errors.New("internal error: the load panicked")
	defer func() {
		if p := recover(); p != nil {
			f.log.Error("load panicked", "model", w.model, "panic", p)
		}
		f.mu.Lock()
		l.err, l.endedAt = err, time.Now()
		f.mu.Unlock()
		l.cancel()
		close(l.done)
	}()
	err = f.spawn(ctx, w, func(e operations.Event) {
		l.eventMu.Lock()
		defer l.eventMu.Unlock()
		f.mu.Lock()
		handlers := slices.Clone(l.handlers)
		f.mu.Unlock()
		for _, events := range handlers {
			events.Send(e)
		}
	})
	if err != nil {
		f.log.Warn("cannot load model", "model", w.model, "error", err)
	}
}

// spawn starts a worker for a model, and waits until the pool reports it as ready. It evicts
// idle workers if there is insufficient memory.
func (f *Loader) spawn(ctx context.Context, w loadKey, events operations.Handler) error {
	op := operations.Infer{Target: operations.Target{HiveID: w.hive, ConfigPath: w.config}, Model: w.model, Device: w.device}
	if w.config == "" {
		op.ConfigPath = f.config
	}
	list, err := f.snapshots(ctx, op.Target)
	if err != nil {
		return err
	}
	defer registry.CloseAll(list)
	if err := f.awaitEvictions(ctx, list, w.model); err != nil {
		return err
	}
	f.pool.Refresh(ctx, list)
	candidates := f.candidates(list, op)
	if len(candidates) == 0 {
		candidates, err = f.startOnAnyHive(ctx, op, list, w.fetch, events)
	}
	for err != nil && lacksMemory(list) && f.evictForMemory(ctx, list, w.model) {
		f.pool.Refresh(ctx, list)
		if candidates = f.candidates(list, op); len(candidates) > 0 {
			err = nil // another process has started a worker
			break
		}
		candidates, err = f.startOnAnyHive(ctx, op, list, w.fetch, events)
	}
	if err != nil {
		return err
	}
	p := candidates[0].Worker
	f.log.Info("model loaded", "model", w.model, "hive", p.Hive, "worker", p.ID)
	return f.pool.WaitWorkerReady(ctx, candidates[0].Client.Hive, p)
}

// awaitEvictions waits for evictions of workers that serve a model, so that none of them
// is selected.
func (f *Loader) awaitEvictions(ctx context.Context, list []registry.Snapshot, model string) error {
	for _, v := range list {
		if v.Report == nil {
			continue
		}
		serves := scheduler.Serves(v.Report.Models, model)
		for _, w := range v.Report.Workers {
			evicted := f.traffic.Evicted(w)
			if evicted == nil || !serves(&w) {
				continue
			}
			select {
			case <-evicted:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}
