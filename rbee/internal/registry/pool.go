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

	// Hives reads the hives from the config.
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
	sorted      []*Connection          // connections sorted by alias; never modified in place
	configRead  bool                   // an attempt to read the config has ended
	problem     string                 // error of the config
	changed     chan struct{}          // closed and replaced at each change

	refreshGroup singleflight.Group // refreshes of all hives
	lastRefresh  time.Time          // start time
	refreshing   int                // callers that wait for a refresh
}

var _ Connector = (*Pool)(nil)

// NewPool returns a pool without connections. [Pool.Run] opens them. Refreshes end
// when background is done.
func NewPool(background context.Context, o PoolOptions) *Pool {
	return &Pool{
		config: o.Config, hives: o.Hives, dial: o.Dial, onReport: o.OnReport, timeout: o.Timeout, staleAfter: cmp.Or(o.StaleAfter, staleAfter), log: o.Log,
		since: time.Now().UTC().Truncate(time.Second), background: background,
		connections: map[string]*Connection{}, changed: make(chan struct{}),
	}
}

// Since returns the time when the pool was created.
func (p *Pool) Since() time.Time { return p.since }

// Problem returns the error of reading the config, or "".
func (p *Pool) Problem() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.problem
}

// Host implements [Connector]. It uses the pool's connection to the hive, if any.
func (p *Pool) Host(ctx context.Context, h config.Hive) (pkgmgr.Host, error) {
	if c := p.Find(h); c != nil {
		if host := c.acquireHost(); host != nil {
			return host, nil
		}
	}
	return p.dial(ctx, h)
}

// Client implements [Connector]. It uses the pool's connection to the hive, if any.
func (p *Pool) Client(ctx context.Context, h config.Hive) (*Client, error) {
	if c := p.Find(h); c != nil {
		if d := c.Client(); d != nil {
			return d, nil
		}
	}
	return openClient(ctx, h, p.Host)
}

// Snapshot implements [Connector]. It returns the last snapshot of a hive of the pool. It
// dials a hive that is not in the pool or still connecting.
func (p *Pool) Snapshot(ctx context.Context, h config.Hive) Snapshot {
	if c := p.Find(h); c != nil && !c.isConnecting() {
		return c.currentSnapshot()
	}
	return fetchSnapshot(ctx, p, h)
}

// Refresh implements [Connector]. It requests the snapshots from the pool again, because
// they may be half a second old and miss recent changes. A hive that does not respond in
// time counts as unreachable.
func (p *Pool) Refresh(ctx context.Context, list []Snapshot) {
	group := pool.New().WithMaxGoroutines(MaxParallel)
	for i := range list {
		s := &list[i]
		if s.Client != nil && s.Client.shared {
			group.Go(func() {
				if s.Report, s.Err = s.Client.Snapshot(ctx); s.Err == nil {
					s.Link = operations.LinkOnline
				}
			})
		}
	}
	group.Wait()
}

// LastReport implements [Connector].
func (p *Pool) LastReport(h config.Hive) *operations.HiveSnapshot {
	if c := p.Find(h); c != nil {
		return c.View(time.Now()).Snapshot
	}
	return nil
}

// Run keeps the connections open until ctx is done, and applies changes of the config.
func (p *Pool) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	tick := time.NewTicker(configInterval)
	defer tick.Stop()
	var lastVersion fileVersion
	for {
		if version, err := p.statConfig(); err != nil || version != lastVersion || lastVersion == (fileVersion{}) {
			lastVersion = version
			p.applyConfig(ctx, &running)
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

func (p *Pool) statConfig() (fileVersion, error) {
	info, err := os.Stat(p.config)
	if err != nil {
		return fileVersion{}, err
	}
	return fileVersion{info.Size(), info.ModTime()}, nil
}

// applyConfig opens and closes connections to match the config. If the config cannot be
// read, it changes nothing.
func (p *Pool) applyConfig(ctx context.Context, running *sync.WaitGroup) {
	hives, err := p.hives()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.configRead = true
	if err != nil {
		if p.problem != err.Error() {
			p.log.Warn("cannot reload config", "error", err)
		}
		p.problem = err.Error()
		p.notifyLocked()
		return
	}
	p.problem = ""
	hivesByAlias := map[string]config.Hive{}
	for _, h := range hives {
		hivesByAlias[h.Alias] = h
	}
	for alias, c := range p.connections {
		if h, ok := hivesByAlias[alias]; ok && reflect.DeepEqual(h, c.hive) {
			continue
		}
		c.stop()
		delete(p.connections, alias)
	}
	for alias, h := range hivesByAlias {
		if p.connections[alias] != nil {
			continue
		}
		c := newConnection(p, h)
		p.connections[alias] = c
		ctx, cancel := context.WithCancel(ctx)
		c.stop = cancel
		running.Go(func() { c.run(ctx) })
	}
	p.sorted = make([]*Connection, 0, len(p.connections))
	for _, alias := range slices.Sorted(maps.Keys(p.connections)) {
		p.sorted = append(p.sorted, p.connections[alias])
	}
	p.notifyLocked()
}

// notifyLocked wakes the goroutines that wait for a change. The caller holds p.mu.
func (p *Pool) notifyLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Notify wakes the goroutines that wait for a change.
func (p *Pool) Notify() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notifyLocked()
}

// Changed returns a channel that is closed at the next change.
func (p *Pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// Connections returns the connections sorted by alias. The caller must not modify the
// slice.
func (p *Pool) Connections() []*Connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sorted
}

// Find returns the connection to a hive, or nil. The alias and the SSH settings must match,
// because h may come from another config.
func (p *Pool) Find(h config.Hive) *Connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.connections[h.Alias]; c != nil && sameMachine(c.hive, h) {
		return c
	}
	return nil
}

func sameMachine(a, b config.Hive) bool {
	return a.Hostname == b.Hostname && a.SSHUser == b.SSHUser && a.SSHPort == b.SSHPort && a.SSHKey == b.SSHKey
}

// WaitReady waits until [Pool.Run] has tried to reach every hive. It returns immediately
// once the pool is older than readyTimeout.
func (p *Pool) WaitReady(ctx context.Context) {
	if time.Since(p.since) > readyTimeout {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	_ = p.waitAllTried(ctx) // after the timeout the caller works with the known hives
}

// WaitWorkerReady waits until a snapshot of the pool reports the worker as ready.
func (p *Pool) WaitWorkerReady(ctx context.Context, h config.Hive, w operations.WorkerProcess) error {
	c := p.Find(h)
	if c == nil {
		return nil // the hive belongs to another config
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		next := p.Changed()
		if view := c.View(time.Now()); view.Snapshot != nil && slices.ContainsFunc(view.Snapshot.Workers, func(o operations.WorkerProcess) bool {
			return o.ID == w.ID && o.State == operations.WorkerReady
		}) {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("worker %s is ready, but no snapshot of its hive reports it", w.ID)
		}
	}
}

// waitAllTried waits until each hive has sent a snapshot or could not be reached, or ctx
// is done.
func (p *Pool) waitAllTried(ctx context.Context) error {
	for {
		p.mu.Lock()
		next, pending := p.changed, ""
		if !p.configRead {
			pending = "the config"
		}
		p.mu.Unlock()
		for _, c := range p.Connections() {
			if !c.hasResult() {
				pending = c.hive.Alias
			}
		}
		if pending == "" {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fmt.Errorf("cannot wait for %s: %w", pending, context.Cause(ctx))
		}
	}
}
