package registry

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/sourcegraph/conc/pool"
	"golang.org/x/sync/singleflight"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// Timeouts and intervals of a pool.
const (
	staleAfter     = 15 * time.Second // time without data from a hive
	offlineAfter   = 45 * time.Second // time without data from a hive
	configInterval = 2 * time.Second  // time between two checks for a changed config
	readyTimeout   = 10 * time.Second // for the first snapshots of all hives, and for one snapshot
)

// PoolOptions configure a [Pool].
type PoolOptions struct {
	// Config is the path of the config. The pool reloads it when it changes.
	Config string

	// Hives reads the config.
	Hives func() ([]config.Hive, error)

	// Dial connects to a hive over SSH.
	Dial func(context.Context, config.Hive) (pkgmgr.Host, error)

	// OnReport is called with the workers that a hive reports.
	OnReport func(alias string, workers []operations.WorkerProcess)

	// Timeout limits the wait for one response of a hive; 0 means 10 seconds.
	Timeout time.Duration

	// StaleAfter is the time without data after which a hive is stale; 0 means 15 seconds.
	StaleAfter time.Duration

	Log *slog.Logger
}

// Pool is a [Connector] that keeps one connection to each hive of the config open, and
// stores the snapshots that the hives send.
type Pool struct {
	config     string
	hives      func() ([]config.Hive, error)
	dial       func(context.Context, config.Hive) (pkgmgr.Host, error)
	onReport   func(alias string, workers []operations.WorkerProcess)
	timeout    time.Duration
	staleAfter time.Duration
	log        *slog.Logger
	since      time.Time
	background context.Context // for refreshes, which callers share

	mu          sync.Mutex
	connections map[string]*Connection // by alias
	sorted      []*Connection          // the same, by alias; never modified in place
	configRead  bool                   // an attempt to read the config has ended
	problem     string                 // error of the config
	changed     chan struct{}          // closed and replaced at each change

	refreshGroup singleflight.Group // refreshes of all hives
	lastRefresh  time.Time          // start time
	refreshing   int                // callers that wait for a refresh
}

var _ Connector = (*Pool)(nil)

// NewPool returns a pool without connections. [Pool.Run] opens them. Refreshes end
// when background ends.
func NewPool(background context.Context, o PoolOptions) *Pool {
	return &Pool{
		config: o.Config, hives: o.Hives, dial: o.Dial, onReport: o.OnReport, timeout: o.Timeout, staleAfter: cmp.Or(o.StaleAfter, staleAfter), log: o.Log,
		since: time.Now().UTC().Truncate(time.Second), background: background,
		connections: map[string]*Connection{}, changed: make(chan struct{}),
	}
}

// Since returns the time when the pool was created.
func (r *Pool) Since() time.Time { return r.since }

// Problem returns the error of reading the config, or "".
func (r *Pool) Problem() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problem
}

// Host implements [Connector]. It uses the pool's connection if there is one.
func (r *Pool) Host(ctx context.Context, h config.Hive) (pkgmgr.Host, error) {
	if l := r.Find(h); l != nil {
		if host := l.acquireHost(); host != nil {
			return host, nil
		}
	}
	return r.dial(ctx, h)
}

// Client implements [Connector]. It uses the pool's connection if there is one.
func (r *Pool) Client(ctx context.Context, h config.Hive) (*Client, error) {
	if l := r.Find(h); l != nil {
		if d := l.Client(); d != nil {
			return d, nil
		}
	}
	return openClient(ctx, h, r.Host)
}

// Snapshot implements [Connector]. It returns the last snapshot of a hive of the pool. It
// dials a hive that is not in the pool or still connecting.
func (r *Pool) Snapshot(ctx context.Context, h config.Hive) Snapshot {
	if l := r.Find(h); l != nil && !l.isConnecting() {
		return l.currentSnapshot()
	}
	return fetchSnapshot(ctx, r, h)
}

// Refresh implements [Connector]. It requests the snapshots again that came from the pool:
// they may be half a second old and miss recent changes. A hive that does not respond in
// time counts as unreachable.
func (r *Pool) Refresh(ctx context.Context, list []Snapshot) {
	p := pool.New().WithMaxGoroutines(MaxParallel)
	for i := range list {
		s := &list[i]
		if s.Client != nil && s.Client.shared {
			p.Go(func() {
				if s.Report, s.Err = s.Client.Snapshot(ctx); s.Err == nil {
					s.Link = operations.LinkOnline
				}
			})
		}
	}
	p.Wait()
}

// LastReport implements [Connector].
func (r *Pool) LastReport(h config.Hive) *operations.HiveSnapshot {
	if l := r.Find(h); l != nil {
		return l.View(time.Now()).Snapshot
	}
	return nil
}

// Run keeps the connections open until ctx is done, and applies changes of the config.
func (r *Pool) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	tick := time.NewTicker(configInterval)
	defer tick.Stop()
	var applied fileVersion
	for {
		if now, err := r.statConfig(); err != nil || now != applied || applied == (fileVersion{}) {
			applied = now
			r.applyConfig(ctx, &running)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// fileVersion identifies the content of a file.
type fileVersion struct {
	size int64
	at   time.Time
}

func (r *Pool) statConfig() (fileVersion, error) {
	info, err := os.Stat(r.config)
	if err != nil {
		return fileVersion{}, err
	}
	return fileVersion{info.Size(), info.ModTime()}, nil
}

// applyConfig opens and closes connections to match the config. If the config cannot be
// read, it changes nothing.
func (r *Pool) applyConfig(ctx context.Context, running *sync.WaitGroup) {
	hives, err := r.hives()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.configRead = true
	if err != nil {
		if r.problem != err.Error() {
			r.log.Warn("cannot read config, keeping previous one", "error", err)
		}
		r.problem = err.Error()
		r.notifyLocked()
		return
	}
	r.problem = ""
	hivesByAlias := map[string]config.Hive{}
	for _, h := range hives {
		hivesByAlias[h.Alias] = h
	}
	for alias, l := range r.connections {
		if h, ok := hivesByAlias[alias]; ok && reflect.DeepEqual(h, l.hive) {
			continue
		}
		l.stop()
		delete(r.connections, alias)
	}
	for alias, h := range hivesByAlias {
		if r.connections[alias] != nil {
			continue
		}
		l := newConnection(r, h)
		r.connections[alias] = l
		ctx, cancel := context.WithCancel(ctx)
		l.stop = cancel
		running.Go(func() { l.run(ctx) })
	}
	r.sorted = make([]*Connection, 0, len(r.connections))
	for _, alias := range slices.Sorted(maps.Keys(r.connections)) {
		r.sorted = append(r.sorted, r.connections[alias])
	}
	r.notifyLocked()
}

// notifyLocked wakes the goroutines that wait for a change. The caller holds r.mu.
func (r *Pool) notifyLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Notify wakes the goroutines that wait for a change.
func (r *Pool) Notify() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notifyLocked()
}

// Changed returns a channel that is closed at the next change.
func (r *Pool) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Connections returns the connections sorted by alias. The caller must not modify the
// slice.
func (r *Pool) Connections() []*Connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sorted
}

// Find returns the connection to a hive, or nil. The alias and the SSH settings must match,
// because h may come from another config.
func (r *Pool) Find(h config.Hive) *Connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.connections[h.Alias]; l != nil && sameMachine(l.hive, h) {
		return l
	}
	return nil
}

func sameMachine(a, b config.Hive) bool {
	return a.Hostname == b.Hostname && a.SSHUser == b.SSHUser && a.SSHPort == b.SSHPort && a.SSHKey == b.SSHKey
}

// WaitReady waits until [Pool.Run] has tried to reach every hive. It returns immediately
// once the pool is older than readyTimeout.
func (r *Pool) WaitReady(ctx context.Context) {
	if time.Since(r.since) > readyTimeout {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	_ = r.waitAllTried(ctx) // after the timeout the caller works with the known hives
}

// WaitWorkerReady waits until a snapshot of the pool has the worker as ready.
func (r *Pool) WaitWorkerReady(ctx context.Context, h config.Hive, w operations.WorkerProcess) error {
	l := r.Find(h)
	if l == nil {
		return nil // the hive belongs to another config
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		next := r.Changed()
		if v := l.View(time.Now()); v.Snapshot != nil && slices.ContainsFunc(v.Snapshot.Workers, func(o operations.WorkerProcess) bool {
			return o.ID == w.ID && o.State == operations.WorkerReady
		}) {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("worker %s became ready, but its hive does not report it", w.ID)
		}
	}
}

// waitAllTried waits until each hive has sent a snapshot or could not be reached, or ctx
// is done.
func (r *Pool) waitAllTried(ctx context.Context) error {
	for {
		r.mu.Lock()
		next, waiting := r.changed, ""
		if !r.configRead {
			waiting = "the config"
		}
		r.mu.Unlock()
		for _, l := range r.Connections() {
			if !l.hasResult() {
				waiting = l.hive.Alias
			}
		}
		if waiting == "" {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", waiting, context.Cause(ctx))
		}
	}
}
