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
	// MaxWaiting is how many requests wait for models to be loaded.
	MaxWaiting = 256

	// LoadFailureTTL is how long a load that failed is not tried again.
	LoadFailureTTL = 5 * time.Second
)

// Traffic counts the requests of workers.
type Traffic interface {
	scheduler.Usage

	// Idle returns for how long a worker has answered nothing; since is when the
	// queen was started.
	Idle(w operations.WorkerProcess, since time.Time) time.Duration

	// BeginEviction marks a worker that has been idle for so long as one that is being
	// evicted. ok is false for one that is not idle.
	BeginEviction(w operations.WorkerProcess, since time.Time, idle time.Duration) (done func(evicted bool), ok bool)

	// Evicted is closed at the end of the eviction of a worker; nil if it is not being
	// evicted.
	Evicted(w operations.WorkerProcess) <-chan struct{}

	// Forget drops what is known of workers whose keys are not in there.
	Forget(there map[string]bool)
}

// Options configure a [Loader].
type Options struct {
	Pool    *registry.Pool
	Traffic Traffic
	Hives   Hives
	Log     *slog.Logger

	// Config is the config path of the pool, as an operation names it; empty for the
	// default one.
	Config string

	// ConfigFile returns the absolute path of a config that an operation names.
	ConfigFile func(name string) (string, error)
}

// Loader starts and evicts workers for a queen. A load is shared by all requests that
// wait for the same model.
type Loader struct {
	starter
	pool       *registry.Pool
	traffic    Traffic
	log        *slog.Logger
	config     string
	configFile func(name string) (string, error)
	background context.Context // of loads, which are for all who wait

	mu         sync.Mutex
	loads      map[loadKey]*inFlight
	startLocks map[string]chan struct{} // who is starting a worker, by hive and model; closed when it has
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

// Load waits until a worker that can answer was started, and finds it. found is closed.
// The result is the caller's to close, also where there is an error.
func (f *Loader) Load(ctx context.Context, op operations.Infer, found *FindResult, events operations.Handler) (*FindResult, error) {
	if err := f.load(ctx, f.loadKeyOf(op), &events); err != nil {
		return found, err
	}
	found.Close()
	return f.Find(ctx, op)
}

// BusyError is the error of a request that does not wait for a model, because too many
// do.
type BusyError struct{ Model string }

// Error implements error.
func (e *BusyError) Error() string {
	return fmt.Sprintf("%s is being loaded, and %d requests wait already", e.Model, MaxWaiting)
}

// loadKey is a model that somebody waits for: what is the same is loaded once, however
// many ask for it.
type loadKey struct {
	model  string // by its id, where hives agree on that
	config string // the file; empty for the one that is served
	hive   string // the only one; empty for any
	device string // likewise
	fetch  bool   // it may be fetched to a hive, which a person may want, and no stranger
}

// inFlight is a model on its way to a worker. The loader's lock guards all but
// done, cancel and sending.
type inFlight struct {
	done   chan struct{}
	cancel context.CancelFunc

	fetch     bool // a model may be fetched for it, which goes on only while a person waits
	err       error
	endedAt   time.Time // when it ended
	detached  bool      // it goes on without anybody who waits
	abandoned bool      // nobody waited for it any more
	waiting   int
	handlers  []*operations.Handler // those who hear how it goes
	eventMu   sync.Mutex            // held while they are told
}

// isDone reports whether the load has a result. The caller holds f.mu.
func (l *inFlight) isDone() bool { return !l.endedAt.IsZero() }

// load waits until a worker for a model was started, by this request or another.
// events may be nil: then the load goes on when its caller has left, for applications
// ask again.
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

// isAbandoned reports whether a load was given up under somebody who waited for it.
func (f *Loader) isAbandoned(l *inFlight) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return l.abandoned
}

// join takes part in a load, and begins it if nobody has. Every join that succeeds is
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

// inFlightFor is the load that is under way for what is wanted, or has failed just now: who
// waits for its report tries again. Who may not fetch a model waits for one that does.
// The caller holds f.mu.
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
	l.eventMu.Lock() // once it is let go, nobody calls the handler any more
	defer l.eventMu.Unlock()
}

// lockStart waits until nobody else is starting a worker for a model on a hive; done lets
// the next one begin.
func (f *Loader) lockStart(ctx context.Context, alias, model string) (done func(), err error) {
	key := alias + "\x00" + model
	for {
		f.mu.Lock()
		other := f.startLocks[key]
		if other == nil {
			own := make(chan struct{})
			f.startLocks[key] = own
			f.mu.Unlock()
			return func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				delete(f.startLocks, key)
				close(own)
			}, nil
		}
		f.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// loadKeyOf is what an operation waits for.
func (f *Loader) loadKeyOf(op operations.Infer) loadKey {
	w := loadKey{model: op.Model, config: op.ConfigPath, hive: op.HiveID, device: op.Device, fetch: true}
	here, err := f.configFile(f.config)
	there, otherErr := f.configFile(op.ConfigPath)
	if err == nil && otherErr == nil && here == there {
		w.config, w.model = "", f.modelID(op.Model, op.HiveID)
	}
	return w
}

// Waiting is how many requests wait for models to be loaded.
func (f *Loader) Waiting() int {
	refreshing := f.pool.Refreshing()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waiting + refreshing
}

// WaitingByModel are the requests that wait for models to be loaded, by model: under an empty
// name those for models that no hive has, which are strangers' words.
func (f *Loader) WaitingByModel() map[string]int {
	known, refreshing := map[string]bool{}, f.pool.Refreshing()
	for _, l := range f.pool.Connections() {
		if s := l.View(time.Now()).Snapshot; s != nil {
			for _, m := range s.Models {
				known[m.ID] = true
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := map[string]int{"": refreshing}
	for w, l := range f.loads {
		name := w.model
		if !known[name] {
			name = ""
		}
		if l.waiting > 0 && !l.isDone() {
			n[name] += l.waiting
		}
	}
	return n
}

// run starts a worker for a model, and waits until the registry knows of it.
func (f *Loader) run(ctx context.Context, l *inFlight, w loadKey) {
	err := errors.New("the queen failed")
	defer func() {
		if p := recover(); p != nil {
			f.log.Error("loading a model", "model", w.model, "panic", p)
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
		f.log.Warn("a model cannot be loaded", "model", w.model, "error", err)
	}
}

// spawn starts a worker. Idle ones that are there on demand make room for it.
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
			err = nil // somebody else has started one
			break
		}
		candidates, err = f.startOnAnyHive(ctx, op, list, w.fetch, events)
	}
	if err != nil {
		return err
	}
	p := candidates[0].Worker
	f.log.Info("a model is loaded", "model", w.model, "hive", p.Hive, "worker", p.ID)
	return f.pool.WaitWorkerReady(ctx, candidates[0].Client.Hive, p)
}

// awaitEvictions waits for workers of a model that are being ended, so that none of them
// is taken for one that serves.
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
