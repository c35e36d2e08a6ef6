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
	// if the worker is not being evicted.
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

// New returns a loader. Its loads are canceled when background is done.
func New(background context.Context, o Options) *Loader {
	l := &Loader{
		pool: o.Pool, traffic: o.Traffic, log: o.Log, config: o.Config, configFile: o.ConfigFile, background: background,
		loads: map[loadKey]*inFlight{}, startLocks: map[string]chan struct{}{},
	}
	l.starter = starter{Finder{o.Pool, o.Hives, o.Traffic}, l.prepareStart}
	return l
}

// Load waits until a worker for the operation has started, and returns the result of
// [Finder.Find]. It closes found, or returns it with an error. The caller closes the result,
// even if there is an error.
func (l *Loader) Load(ctx context.Context, op operations.Infer, found *FindResult, events operations.Handler) (*FindResult, error) {
	if err := l.load(ctx, l.loadKeyOf(op), &events); err != nil {
		return found, err
	}
	found.Close()
	return l.Find(ctx, op)
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
	model  string // model ID if the hives agree on it, or the requested name
	config string // path; empty for the config of the pool
	hive   string // alias; empty for any
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
	abandoned bool      // canceled because nothing waited for the load
	waiting   int
	handlers  []*operations.Handler // receive the events
	eventMu   sync.Mutex            // held while events are sent
}

// isDone reports whether the load has a result. The caller holds the mu of the loader.
func (load *inFlight) isDone() bool { return !load.endedAt.IsZero() }

// load waits until a worker for a model has started, for this request or another one. If
// events is nil, the load continues after the caller is canceled, because API clients
// retry.
func (l *Loader) load(ctx context.Context, key loadKey, events *operations.Handler) error {
	for {
		load, err := l.join(ctx, key, events)
		if err != nil {
			return err
		}
		select {
		case <-load.done:
			err = load.err
		case <-ctx.Done():
			err = ctx.Err()
		}
		if l.leave(load, events); ctx.Err() != nil || !l.isAbandoned(load) {
			return err
		}
	}
}

// isAbandoned reports whether a load was abandoned.
func (l *Loader) isAbandoned(load *inFlight) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return load.abandoned
}

// join adds a waiter to a load, and starts the load if necessary. A successful join must be
// followed by a leave with the same handler.
func (l *Loader) join(ctx context.Context, key loadKey, events *operations.Handler) (*inFlight, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	load := l.inFlightFor(key, events)
	if load == nil || !load.isDone() {
		if l.waiting >= MaxWaiting {
			return nil, &BusyError{key.model}
		}
	}
	if load == nil {
		for k, old := range l.loads {
			if old.isDone() && time.Since(old.endedAt) > LoadFailureTTL {
				delete(l.loads, k)
			}
		}
		ctx, cancel := context.WithCancel(client.WithRequestID(l.background, client.RequestID(ctx)))
		load = &inFlight{done: make(chan struct{}), cancel: cancel, fetch: key.fetch}
		l.loads[key] = load
		go l.run(ctx, load, key)
	}
	l.waiting++
	load.waiting++
	switch {
	case events != nil:
		load.handlers = append(load.handlers, events)
	case !load.fetch:
		load.detached = true
	}
	return load, nil
}

// inFlightFor returns the load for a key if it is running or has just failed, and nil otherwise.
// Operations (events is not nil) do not share a failure, but try again. A request that
// may not download a model can still wait for a load that does. The caller holds l.mu.
func (l *Loader) inFlightFor(key loadKey, events *operations.Handler) *inFlight {
	fetching := key
	fetching.fetch = true
	for _, k := range []loadKey{key, fetching} {
		if load := l.loads[k]; load != nil && !load.abandoned && !load.isDone() {
			return load
		}
	}
	if load := l.loads[key]; load != nil && !load.abandoned && events == nil && load.err != nil && !IsRestarting(load.err) && time.Since(load.endedAt) <= LoadFailureTTL {
		return load
	}
	return nil
}

// leave removes a waiter, and cancels the load if nothing needs it any longer.
func (l *Loader) leave(load *inFlight, events *operations.Handler) {
	l.mu.Lock()
	l.waiting--
	load.waiting--
	load.handlers = slices.DeleteFunc(load.handlers, func(h *operations.Handler) bool { return h == events })
	if !load.detached && !load.isDone() && (load.waiting == 0 || load.fetch && len(load.handlers) == 0) {
		load.abandoned = true
		load.cancel()
	}
	l.mu.Unlock()
	load.eventMu.Lock() // wait until run no longer calls the handler
	defer load.eventMu.Unlock()
}

// lockStart acquires the lock for starting a worker for a model on a hive. done releases it.
func (l *Loader) lockStart(ctx context.Context, alias, model string) (done func(), err error) {
	key := alias + "\x00" + model
	for {
		l.mu.Lock()
		current := l.startLocks[key]
		if current == nil {
			lock := make(chan struct{})
			l.startLocks[key] = lock
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				defer l.mu.Unlock()
				delete(l.startLocks, key)
				close(lock)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-current:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// loadKeyOf returns the key of the load for an operation.
func (l *Loader) loadKeyOf(op operations.Infer) loadKey {
	key := loadKey{model: op.Model, config: op.ConfigPath, hive: op.HiveID, device: op.Device, fetch: true}
	poolConfig, err := l.configFile(l.config)
	opConfig, opErr := l.configFile(op.ConfigPath)
	if err == nil && opErr == nil && poolConfig == opConfig {
		key.config, key.model = "", l.modelID(op.Model, op.HiveID)
	}
	return key
}

// Waiting returns the number of requests that wait for models to be loaded.
func (l *Loader) Waiting() int {
	refreshing := l.pool.Refreshing()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting + refreshing
}

// WaitingByModel returns the number of requests that wait for models to be loaded, by model.
// Models that no hive has are counted under the empty name, which bounds the number of
// labels in metrics.
func (l *Loader) WaitingByModel() map[string]int {
	knownModels, refreshing := map[string]bool{}, l.pool.Refreshing()
	for _, conn := range l.pool.Connections() {
		if report := conn.View(time.Now()).Snapshot; report != nil {
			for _, m := range report.Models {
				knownModels[m.ID] = true
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := map[string]int{"": refreshing}
	for key, load := range l.loads {
		name := key.model
		if !knownModels[name] {
			name = ""
		}
		if load.waiting > 0 && !load.isDone() {
			n[name] += load.waiting
		}
	}
	return n
}

// run loads a model and stores the result in load.
func (l *Loader) run(ctx context.Context, load *inFlight, key loadKey) {
	err := errors.New("the load panicked, which is a bug in rbee")
	defer func() {
		if p := recover(); p != nil {
			l.log.Error("load panicked", "model", key.model, "panic", p)
		}
		l.mu.Lock()
		load.err, load.endedAt = err, time.Now()
		l.mu.Unlock()
		load.cancel()
		close(load.done)
	}()
	err = l.spawn(ctx, key, func(e operations.Event) {
		load.eventMu.Lock()
		defer load.eventMu.Unlock()
		l.mu.Lock()
		handlers := slices.Clone(load.handlers)
		l.mu.Unlock()
		for _, events := range handlers {
			events.Send(e)
		}
	})
	if err != nil {
		l.log.Warn("cannot load model", "model", key.model, "error", err)
	}
}

// spawn starts a worker for a model, and waits until the pool reports it as ready. It evicts
// idle workers if there is insufficient memory.
func (l *Loader) spawn(ctx context.Context, key loadKey, events operations.Handler) error {
	op := operations.Infer{Target: operations.Target{HiveID: key.hive, ConfigPath: key.config}, Model: key.model, Device: key.device}
	if key.config == "" {
		op.ConfigPath = l.config
	}
	list, err := l.snapshots(ctx, op.Target)
	if err != nil {
		return err
	}
	defer registry.CloseAll(list)
	if err := l.awaitEvictions(ctx, list, key.model); err != nil {
		return err
	}
	l.pool.Refresh(ctx, list)
	candidates := l.candidates(list, op)
	if len(candidates) == 0 {
		candidates, err = l.startOnAnyHive(ctx, op, list, key.fetch, events)
	}
	for err != nil && lacksMemory(list) && l.evictForMemory(ctx, list, key.model) {
		l.pool.Refresh(ctx, list)
		if candidates = l.candidates(list, op); len(candidates) > 0 {
			err = nil // another process has started a worker
			break
		}
		candidates, err = l.startOnAnyHive(ctx, op, list, key.fetch, events)
	}
	if err != nil {
		return err
	}
	p := candidates[0].Worker
	l.log.Info("model loaded", "model", key.model, "hive", p.Hive, "worker", p.ID)
	return l.pool.WaitWorkerReady(ctx, candidates[0].Client.Hive, p)
}

// awaitEvictions waits for evictions of workers that serve a model, so that none of them
// is selected.
func (l *Loader) awaitEvictions(ctx context.Context, list []registry.Snapshot, model string) error {
	for _, snap := range list {
		if snap.Report == nil {
			continue
		}
		serves := scheduler.Serves(snap.Report.Models, model)
		for _, w := range snap.Report.Workers {
			evicted := l.traffic.Evicted(w)
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
