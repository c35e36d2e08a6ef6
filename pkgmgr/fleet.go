package pkgmgr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/probe"

	"github.com/rbee-keeper/rbee/operations"

	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/resolve"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Options configure a [Fleet]. Only Connect is required.
type Options struct {
	// Connect opens the way to a machine.
	Connect Connect

	// Only limits the fleet to these aliases, and Labels to hives that carry
	// all of these labels; empty means all.
	Only   []string
	Labels []string

	// Extra are hives that are not in the config but were installed from it,
	// such as [Record.Extra] gives.
	Extra []config.Hive

	// Catalog knows the worker types; nil is [catalog.Builtin].
	Catalog *catalog.Catalog

	// Binaries finds the rbee to bring to machines; nil finds none, so that
	// machines without rbee are blocked.
	Binaries artifact.BinarySource

	// Version is the version of rbee that hives shall have; empty accepts
	// whatever Binaries gives.
	Version string

	// CacheDir keeps fetched and packed artifacts; empty is rbee's directory
	// in the user's cache.
	CacheDir string

	// Origins are where versions and files of workers come from.
	Origins Origins

	// Lock is what wishes came to; nil knows nothing. [Fleet.Plan] and [Fleet.Apply]
	// change it in memory, and it is the caller's to save it.
	Lock *lockfile.Lock

	// Record is where [Fleet.Save] notes which hives were installed; the zero value
	// notes nothing.
	Record Record

	// Push makes this side fetch what is to be downloaded and send it, for hives
	// without a way to the internet. Bundle, if not nil, is where this side takes
	// it from, without the internet too.
	Push   bool
	Bundle *artifact.Bundle

	// Parallel is how many hives are worked on at once, and Uploads how many
	// are sent bytes at once; 0 chooses.
	Parallel int
	Uploads  int

	// Owner says who works on the hives, for others who wait for a lock;
	// empty is user@host and the process id.
	Owner string

	// Events receives what happens; nil discards it. Calls never overlap.
	Events operations.Handler
}

// Fleet is the hives of one config, each with its connection once it is read.
type Fleet struct {
	opts       Options
	configPath string
	all        []config.Hive // of the config, whether they are members or not
	members    []*member
	from       *fetch.Client
	artifacts  *artifact.Cache
	uploads    chan struct{}
	packed     artifact.PackedBinaries
	resolver   *resolve.Resolver

	eventMu sync.Mutex
}

// member is one hive of a fleet. It is written by one goroutine at a time.
type member struct {
	hive  config.Hive
	extra bool
	host  Host
	state *wire.State
	err   *operations.Error
	took  time.Duration
}

// Open makes a fleet of a config's hives. It connects to nothing yet. An alias
// in Only that does not exist is an [*operations.Error] with CodeNotFound.
func Open(c *config.Config, o Options) (*Fleet, error) {
	if o.Connect == nil {
		return nil, errors.New("pkgmgr: Options.Connect is nil: there is no way to a machine")
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	extras := map[string]config.Hive{}
	for _, h := range o.Extra {
		extras[h.Alias] = h
	}
	f := &Fleet{opts: o, configPath: c.Path, all: c.Hives, uploads: make(chan struct{}, cmp.Or(o.Uploads, defaultUploads))}
	if f.opts.Catalog == nil {
		f.opts.Catalog = catalog.Builtin()
	}
	f.opts.Owner = cmp.Or(o.Owner, defaultOwner())
	f.opts.CacheDir = cmp.Or(o.CacheDir, defaultCacheDir())
	f.from = o.Origins.client()
	f.artifacts = artifact.NewCache(filepath.Join(f.opts.CacheDir, "artefacts"), f.from, o.Bundle)
	if f.opts.Lock == nil {
		f.opts.Lock = &lockfile.Lock{}
	}
	f.resolver = resolve.New(f.from, f.opts.Lock, f.artifacts, f.opts.CacheDir, func(text string) {
		f.emit(operations.Event{Type: operations.EventNote, Message: text})
	})

	inConfig := []string{}
	for _, alias := range o.Only {
		if h, ok := extras[alias]; ok {
			f.members = append(f.members, &member{hive: h, extra: true})
			continue
		}
		inConfig = append(inConfig, alias)
	}
	if len(o.Only) == 0 || len(inConfig) > 0 {
		hives, err := c.Select(inConfig, o.Labels)
		if err != nil {
			return nil, err
		}
		for _, h := range hives {
			f.members = append(f.members, &member{hive: h})
		}
	}
	if len(o.Only) == 0 && len(o.Labels) == 0 {
		for _, h := range o.Extra {
			f.members = append(f.members, &member{hive: h, extra: true})
		}
	}
	slices.SortStableFunc(f.members, func(a, b *member) int { return cmp.Compare(a.hive.Alias, b.hive.Alias) })
	return f, nil
}

func defaultOwner() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s@%s, pid %d", name, host, os.Getpid())
}

func defaultCacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "rbee")
}

// Close ends all connections.
func (f *Fleet) Close() error {
	var errs []error
	for _, m := range f.members {
		if m.host != nil {
			errs = append(errs, m.host.Close())
			m.host = nil
		}
	}
	return errors.Join(errs...)
}

// readTimeout bounds the one command that reads a machine. It is long: a loaded
// machine, or a driver that takes its time, is no dead one.
const readTimeout = 90 * time.Second

// ReadOptions say what is read of machines, besides what is always read.
type ReadOptions struct {
	// Deep reads installed files again, compares their checksums, and runs the
	// verify commands of workers.
	Deep bool

	// Devices asks for accelerators.
	Devices bool
}

// NeedsDevices tells whether what is installed, or whether it can be, depends on
// the accelerators of machines for a wanted worker, so that they have to be read.
func (f *Fleet) NeedsDevices() bool {
	for _, m := range f.members {
		for _, w := range m.hive.Workers {
			if r, ok := f.opts.Catalog.Recipe(w.Type); ok && (r.Needs.GPU != "" || r.DependsOnDevices()) {
				return true
			}
		}
	}
	return false
}

// Read connects to every hive and reads its state, all in parallel: one
// connection and one command each. A hive that fails has Err set in [Fleet.States];
// Read itself never fails. It keeps the connections open.
func (f *Fleet) Read(ctx context.Context, o ReadOptions) {
	forEach(ctx, len(f.members), f.opts.Parallel, func(ctx context.Context, i int) {
		m := f.members[i]
		start := time.Now()
		f.read(ctx, m, o)
		m.took += time.Since(start)
		if m.err != nil {
			f.emit(operations.Event{Type: operations.EventPhase, Hive: m.hive.Alias, Phase: operations.PhaseUnreachable, Error: m.err})
		}
	}, func(i int, err error) {
		m := f.members[i]
		m.state, m.err = nil, unreachable(m.hive, err)
	})
}

func (f *Fleet) read(ctx context.Context, m *member, o ReadOptions) {
	m.state, m.err = nil, nil
	if m.host == nil {
		f.phase(m, operations.PhaseConnecting, "")
		host, err := f.opts.Connect(ctx, m.hive)
		if err != nil {
			m.err = unreachable(m.hive, err)
			return
		}
		m.host = host
	}
	f.phase(m, operations.PhaseReading, "")
	if !o.Deep { // reading files again takes as long as it takes
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, readTimeout, fmt.Errorf("no answer within %s", readTimeout))
		defer cancel()
	}
	state, err := readState(ctx, m.host, o)
	if err != nil {
		m.err = unreachable(m.hive, err)
		return
	}
	m.state = state
}

// unreachable words an error of the way to a hive.
func unreachable(h config.Hive, err error) *operations.Error {
	return hiveError(h, operations.CodeUnreachable, err)
}

// readState reads a machine with one command, or with none where its daemon tells. A
// daemon of another rbee than the one that is installed may tell it wrongly.
func readState(ctx context.Context, host Host, o ReadOptions) (*wire.State, error) {
	if t, ok := host.(StateReader); ok {
		s, err := t.ReadState(ctx, o)
		if err == nil && s.Compatible() && s.Rbee != nil && s.Rbee.SHA256 == s.Daemon.SHA256 && s.Broken == "" {
			probe.Normalize(s)
			return s, nil
		}
	}
	return probe.Read(ctx, host, probe.Options{Deep: o.Deep, Devices: o.Devices})
}

// States is what the last Read found, sorted by alias.
func (f *Fleet) States() []plan.HiveState {
	states := make([]plan.HiveState, len(f.members))
	for i, m := range f.members {
		states[i] = plan.HiveState{Hive: m.hive, Extra: m.extra, State: m.state, Err: m.err}
	}
	return states
}

// Plan looks up what the hives that were read shall have, and decides with [plan.Diff].
// What it finds out about versions goes to the lock, in memory.
func (f *Fleet) Plan(ctx context.Context, o plan.Options) *plan.Plan {
	workers := f.opts.Lock.Workers()
	want, moved := f.lookUp(ctx, o)
	changes := plan.Diff(f.States(), want, o)
	f.fillDownloads(changes)
	changes.Upgrades = append(f.upgrades(workers), moved...)
	changes.Lock = f.opts.Lock.Unsaved()
	return changes
}

// lookups is what looking up needs to know of the fleet.
func (f *Fleet) lookups() resolve.Input {
	return resolve.Input{
		Hives: f.States(), Config: f.all, Catalog: f.opts.Catalog, Lock: f.opts.Lock,
		Resolver: f.resolver, FromBundle: f.opts.Bundle != nil, Version: f.opts.Version,
	}
}

// upgrades are the wishes that stand for another version than before.
func (f *Fleet) upgrades(before []lockfile.Worker) []operations.Upgrade {
	var list []operations.Upgrade
	for _, w := range before {
		if now, ok := f.opts.Lock.Worker(w.Type, w.Requested); ok && now.Version != w.Version {
			list = append(list, operations.Upgrade{Worker: w.Type, Requested: w.Requested, From: w.Version, To: now.Version})
		}
	}
	return list
}

// lookUp collects what Diff needs to know, and what consists of other files than the
// lock said.
func (f *Fleet) lookUp(ctx context.Context, o plan.Options) (plan.Desired, []operations.Upgrade) {
	want := plan.Desired{Version: f.opts.Version, Binaries: map[string]plan.DesiredBinary{}, Workers: map[plan.WorkerKey]plan.DesiredWorker{}}
	l := resolve.NewLookup(f.lookups(), o)
	for _, m := range f.members {
		if m.state == nil || m.extra {
			continue
		}
		key := m.state.Platform.Key()
		if _, ok := want.Binaries[key]; !ok {
			if b, ok := f.binaryWant(ctx, m.state, o.Fetch); ok {
				want.Binaries[key] = b
			}
		}
		for _, w := range m.hive.Workers {
			if plan.IsAdopted(m.state, w) && !o.Force {
				continue // nothing to look up: it stays as it is
			}
			want.Workers[plan.WorkerKey{Hive: m.hive.Alias, Type: w.Type}] = l.Worker(ctx, m.hive.Alias, w, m.state, want)
		}
	}
	return want, l.Moved
}

func (f *Fleet) binaryWant(ctx context.Context, s *wire.State, fetch bool) (plan.DesiredBinary, bool) {
	if f.opts.Binaries == nil {
		return plan.DesiredBinary{}, false
	}
	// A machine that has the right version needs no download to say so.
	fetch = fetch && (s.Rbee == nil || s.Rbee.Version != f.opts.Version)
	b, err := f.opts.Binaries.Binary(ctx, s.Platform, fetch)
	switch {
	case err != nil:
		return plan.DesiredBinary{Err: err}, true
	case b == nil:
		return plan.DesiredBinary{}, false
	}
	return plan.DesiredBinary{Version: cmp.Or(b.Version, f.opts.Version), SHA256: b.SHA256, Size: b.Size}, true
}

func (f *Fleet) emit(e operations.Event) {
	if f.opts.Events == nil {
		return
	}
	e.Time = time.Now()
	f.eventMu.Lock()
	defer f.eventMu.Unlock()
	f.opts.Events(e)
}

func (f *Fleet) phase(m *member, p operations.Phase, message string) {
	f.emit(operations.Event{Type: operations.EventPhase, Hive: m.hive.Alias, Phase: p, Message: message})
}
