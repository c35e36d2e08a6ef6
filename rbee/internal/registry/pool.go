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

// Times of a pool.
const (
	staleAfter     = 15 * time.Second // of silence
	offlineAfter   = 45 * time.Second
	configInterval = 2 * time.Second  // between two checks whether the config changed
	settleTimeout  = 10 * time.Second // for a queen that was just started to hear its hives
)

// PoolOptions configure a [Pool].
type PoolOptions struct {
	// Config is the path of the config. The pool reads it again when it changes.
	Config string

	// Hives reads the config.
	Hives func() ([]config.Hive, error)

	// Dial connects to the machine of a hive.
	Dial func(context.Context, config.Hive) (pkgmgr.Host, error)

	// OnReport is called with the workers that a hive reports.
	OnReport func(alias string, workers []operations.WorkerProcess)

	// Timeout is for one answer of a hive; 0 is 10 seconds.
	Timeout time.Duration

	// StaleAfter is how long a hive may be silent until it is stale; 0 is 15 seconds.
	StaleAfter time.Duration

	Log *slog.Logger
}

// Pool is a [Connector] that holds one connection to each hive of the config, and what
// the hives say of themselves.
type Pool struct {
	config     string
	hives      func() ([]config.Hive, error)
	dial       func(context.Context, config.Hive) (pkgmgr.Host, error)
	onReport   func(alias string, workers []operations.WorkerProcess)
	timeout    time.Duration
	staleAfter time.Duration
	log        *slog.Logger
	since      time.Time
	background context.Context // of refreshes, which are for all who wait

	mu          sync.Mutex
	connections map[string]*Connection // by alias
	sorted      []*Connection          // the same, never changed in place
	configRead  bool                   // the config was read, or could not be
	problem     string                 // of the config
	changed     chan struct{}          // closed when something changes, and made anew

	refreshGroup singleflight.Group // of asking all hives how they are
	lastRefresh  time.Time          // when the last one began
	refreshing   int                // who waits for one
}

var _ Connector = (*Pool)(nil)

// NewPool returns a pool without connections: [Pool.Run] opens them. Refreshes end
// when background ends.
func NewPool(background context.Context, o PoolOptions) *Pool {
	return &Pool{
		config: o.Config, hives: o.Hives, dial: o.Dial, onReport: o.OnReport, timeout: o.Timeout, staleAfter: cmp.Or(o.StaleAfter, staleAfter), log: o.Log,
		since: time.Now().UTC().Truncate(time.Second), background: background,
		connections: map[string]*Connection{}, changed: make(chan struct{}),
	}
}

// Since returns when the pool was made.
func (r *Pool) Since() time.Time { return r.since }

// Problem returns why the config cannot be read; empty if it can.
func (r *Pool) Problem() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.problem
}

// Host implements [Connector]: it shares the connection that is held, if there is one.
func (r *Pool) Host(ctx context.Context, h config.Hive) (pkgmgr.Host, error) {
	if l := r.Find(h); l != nil {
		if host := l.acquireHost(); host != nil {
			return host, nil
		}
	}
	return r.dial(ctx, h)
}

// Client implements [Connector]: it shares the client that is held, if there is one.
func (r *Pool) Client(ctx context.Context, h config.Hive) (*Client, error) {
	if l := r.Find(h); l != nil {
		if d := l.Client(); d != nil {
			return d, nil
		}
	}
	return openClient(ctx, h, r.Host)
}

// Snapshot implements [Connector]: it is what a hive says of itself now, or what it
// said last.
func (r *Pool) Snapshot(ctx context.Context, h config.Hive) Snapshot {
	if l := r.Find(h); l != nil && !l.isConnecting() {
		return l.currentSnapshot()
	}
	return fetchSnapshot(ctx, r, h)
}

// Refresh implements [Connector]. It asks those anew whose words were held: they may be
// half a second old, and somebody may have done something since. One that does not answer
// in time counts as away.
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

// Run holds the connections until ctx ends, and follows the config.
func (r *Pool) Run(ctx context.Context) {
	var links sync.WaitGroup
	defer links.Wait()
	tick := time.NewTicker(configInterval)
	defer tick.Stop()
	var before fileVersion
	for {
		if now, err := r.statConfig(); err != nil || now != before || before == (fileVersion{}) {
			before = now
			r.applyConfig(ctx, &links)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// fileVersion tells a file's content from another.
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

// applyConfig makes the links those of the config. A config that cannot be read changes
// nothing.
func (r *Pool) applyConfig(ctx context.Context, running *sync.WaitGroup) {
	hives, err := r.hives()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.configRead = true
	if err != nil {
		if r.problem != err.Error() {
			r.log.Warn("the config cannot be read, and what it said before goes on", "error", err)
		}
		r.problem = err.Error()
		r.notifyLocked()
		return
	}
	r.problem = ""
	wanted := map[string]config.Hive{}
	for _, h := range hives {
		wanted[h.Alias] = h
	}
	for alias, l := range r.connections {
		if h, ok := wanted[alias]; ok && reflect.DeepEqual(h, l.hive) {
			continue
		}
		l.stop()
		delete(r.connections, alias)
	}
	for alias, h := range wanted {
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

// notifyLocked wakes those who wait for a change. The caller holds r.mu.
func (r *Pool) notifyLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Notify reports a change to those who wait for one.
func (r *Pool) Notify() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notifyLocked()
}

// Changed is closed at the next change.
func (r *Pool) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Connections are the links, sorted by alias. The slice must not be changed.
func (r *Pool) Connections() []*Connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sorted
}

// Find is the link to a machine, if there is one; by its alias or, for a hive of
// another config, by its address.
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

// WaitReady waits a little for hives that were not heard yet.
func (r *Pool) WaitReady(ctx context.Context) {
	if time.Since(r.since) > settleTimeout {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	_ = r.waitAllTried(ctx) // those who are heard by then count
}

// WaitWorkerReady waits until the pool has heard of a worker that is ready.
func (r *Pool) WaitWorkerReady(ctx context.Context, h config.Hive, w operations.WorkerProcess) error {
	l := r.Find(h)
	if l == nil {
		return nil // a hive of another config
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
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
			return fmt.Errorf("worker %s was ready, and its hive does not tell of it", w.ID)
		}
	}
}

// waitAllTried waits until every hive was heard or could not be reached, or ctx ends: a
// queen that has just been started knows of nobody yet.
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
