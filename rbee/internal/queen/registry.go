package queen

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// Times of the registry.
const (
	staleAfter   = 15 * time.Second // of silence
	offlineAfter = 45 * time.Second
	lookAtConfig = 2 * time.Second
	compareEvery = time.Minute
)

// registry holds one connection to each hive of the config, and what the hives say
// of themselves.
type registry struct {
	queen  *Queen
	config string // the file that a queen serves; empty for the default one
	log    *slog.Logger
	since  time.Time

	mu      sync.Mutex
	links   map[string]*link // by alias
	read    bool             // the config was read, or could not be
	problem string           // of the config
	changed chan struct{}    // closed when something changes, and made anew
	closed  chan struct{}    // closed when the server stops
	drift   []operations.Drift
	driftAt time.Time

	traffic func() operations.Traffic // of the gateway
}

func newRegistry(q *Queen, config string, log *slog.Logger) *registry {
	return &registry{
		queen: q, config: config, log: log, since: time.Now().UTC().Truncate(time.Second),
		links: map[string]*link{}, changed: make(chan struct{}), closed: make(chan struct{}),
	}
}

// close ends those who listen for news. The connections stay for those who finish.
func (r *registry) close() { close(r.closed) }

// run holds the connections until ctx ends, and follows the config.
func (r *registry) run(ctx context.Context) {
	var links sync.WaitGroup
	defer links.Wait()
	links.Go(func() { r.compare(ctx) })
	tick := time.NewTicker(lookAtConfig)
	defer tick.Stop()
	var before fileMark
	for {
		if now, err := r.mark(); err != nil || now != before || before == (fileMark{}) {
			before = now
			r.follow(ctx, &links)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// fileMark tells a file's content from another.
type fileMark struct {
	size int64
	at   time.Time
}

func (r *registry) mark() (fileMark, error) {
	path, err := r.queen.opts.Paths.ConfigFile(r.config)
	if err != nil {
		return fileMark{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return fileMark{}, err
	}
	return fileMark{info.Size(), info.ModTime()}, nil
}

// follow makes the links those of the config. A config that cannot be read changes
// nothing.
func (r *registry) follow(ctx context.Context, running *sync.WaitGroup) {
	d, err := r.queen.load(r.config)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read = true
	if err != nil {
		if r.problem != err.Error() {
			r.log.Warn("the config cannot be read, and what it said before goes on", "error", err)
		}
		r.problem = err.Error()
		r.tell()
		return
	}
	r.problem = ""
	wanted := map[string]config.Hive{}
	for _, h := range d.config.Hives {
		wanted[h.Alias] = h
	}
	for alias, l := range r.links {
		if h, ok := wanted[alias]; ok && reflect.DeepEqual(h, l.hive) {
			continue
		}
		l.stop()
		delete(r.links, alias)
	}
	for alias, h := range wanted {
		if r.links[alias] != nil {
			continue
		}
		l := newLink(r, h)
		r.links[alias] = l
		ctx, cancel := context.WithCancel(ctx)
		l.stop = cancel
		running.Go(func() { l.run(ctx) })
	}
	r.tell()
}

// tell wakes those who wait for a change. The caller holds r.mu.
func (r *registry) tell() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *registry) news() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tell()
}

// next is closed at the next change.
func (r *registry) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// all are the links, sorted by alias.
func (r *registry) all() []*link {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*link, 0, len(r.links))
	for _, alias := range slices.Sorted(maps.Keys(r.links)) {
		list = append(list, r.links[alias])
	}
	return list
}

// find is the link to a machine, if there is one; by its alias or, for a hive of
// another config, by its address.
func (r *registry) find(h config.Hive) *link {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.links[h.Alias]; l != nil && sameMachine(l.hive, h) {
		return l
	}
	return nil
}

func sameMachine(a, b config.Hive) bool {
	return a.Hostname == b.Hostname && a.SSHUser == b.SSHUser && a.SSHPort == b.SSHPort && a.SSHKey == b.SSHKey
}

// host lends the connection to a machine, if one is held.
func (r *registry) host(h config.Hive) pkgmgr.Host {
	if l := r.find(h); l != nil {
		return l.lendHost()
	}
	return nil
}

// door lends the way to a hive's daemon, if one is held.
func (r *registry) door(h config.Hive) *door {
	if l := r.find(h); l != nil {
		return l.lendDoor()
	}
	return nil
}

// snapshot is all that is known now.
func (r *registry) snapshot() operations.FleetSnapshot {
	path, _ := r.queen.opts.Paths.ConfigFile(r.config) // a config that cannot be named has no hives
	s := operations.FleetSnapshot{
		Time: time.Now().UTC(), Version: r.queen.opts.Version, Since: r.since, Config: path, Hives: []operations.HiveView{},
	}
	for _, l := range r.all() {
		s.Hives = append(s.Hives, l.view(s.Time))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.ConfigProblem, s.Traffic = r.problem, r.traffic()
	s.Drift, s.DriftAt = append([]operations.Drift{}, r.drift...), r.driftAt
	return s
}

// compare looks now and then for what differs from the config, over the connections
// that are held.
func (r *registry) compare(ctx context.Context) {
	tick := time.NewTicker(compareEvery)
	defer tick.Stop()
	settling, cancel := context.WithTimeout(ctx, settling)
	_ = r.settled(settling) // those who are heard by then count
	cancel()
	for {
		report, err := r.queen.status(ctx, operations.PackageStatus{Scope: operations.Scope{ConfigPath: r.config}}, nil)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		if err == nil {
			r.drift, r.driftAt = report.Drift, time.Now().UTC().Truncate(time.Second)
			r.tell()
		}
		r.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// settled waits until every hive was heard or could not be reached, or ctx ends: a
// queen that has just been started knows of nobody yet.
func (r *registry) settled(ctx context.Context) error {
	for {
		r.mu.Lock()
		next, waiting := r.changed, ""
		if !r.read {
			waiting = "the config"
		}
		r.mu.Unlock()
		for _, l := range r.all() {
			if !l.tried() {
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
