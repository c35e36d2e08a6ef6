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

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/probe"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/resolve"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Options contains the options of [Open]. Only Connect is required.
type Options struct {
	// Connect opens a connection to a machine.
	Connect Connect

	// Aliases limits the fleet to the hives with these aliases, and Labels to hives that
	// have all of these labels. Empty means all hives.
	Aliases []string
	Labels  []string

	// Extra contains the hives that were installed from the config and then removed from
	// it, as [Record.Extra] returns them.
	Extra []config.Hive

	// Catalog contains the worker types; nil means [catalog.Builtin].
	Catalog *catalog.Catalog

	// Binaries provides the builds of rbee to install. If it is nil, machines without
	// rbee are blocked.
	Binaries artifact.BinarySource

	// Version is the version of rbee that hives should run. If it is empty, the
	// version of the build from Binaries is used.
	Version string

	// CacheDir is the directory for downloaded and compressed artifacts. Empty means
	// the directory rbee in the user's cache directory.
	CacheDir string

	// Origins contains the addresses of the sources of worker versions and files.
	Origins Origins

	// Lock contains the versions that version constraints resolved to; nil means an
	// empty lockfile. [Fleet.Plan] and [Fleet.Apply] change it in memory. The caller saves
	// it, or calls [Fleet.Save].
	Lock *lockfile.Lock

	// Record is the file in which [Fleet.Save] records the installed hives. The zero
	// value means no record.
	Record Record

	// Push makes this machine download the artifacts and send them, for hives without
	// internet access. If Bundle is not nil, the artifacts come from the bundle, and
	// this machine does not need internet access either.
	Push   bool
	Bundle *artifact.Bundle

	// Parallel is the maximum number of hives that are processed at once, and Uploads
	// the maximum number of concurrent uploads. 0 means a default.
	Parallel int
	Uploads  int

	// Owner identifies this run to other runs that wait for the lock of a hive. Empty
	// means user@host and the PID.
	Owner string

	// Events receives the events of a run; nil discards them. Calls never overlap.
	Events operations.Handler
}

// Fleet is the set of hives of one config. [Fleet.Read] opens a connection to each hive.
type Fleet struct {
	opts        Options
	configPath  string
	configHives []config.Hive // all hives of the config, even if they are not members
	members     []*member
	client      *fetch.Client
	artifacts   *artifact.Cache
	uploads     chan struct{}
	packed      artifact.CompressedBinaries
	resolver    *resolve.Resolver

	eventMu sync.Mutex
}

// member is a hive of a fleet. Only one goroutine at a time uses it.
type member struct {
	hive     config.Hive
	extra    bool
	host     Host
	state    *wire.State
	err      *operations.Error
	duration time.Duration
}

// Open returns a fleet of the hives of a config. It opens no connections. If [Options.Aliases]
// contains an unknown alias, the error is an [*operations.Error] with
// [operations.CodeNotFound].
func Open(c *config.Config, o Options) (*Fleet, error) {
	if o.Connect == nil {
		return nil, errors.New("pkgmgr: Options.Connect is nil")
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	extras := map[string]config.Hive{}
	for _, h := range o.Extra {
		extras[h.Alias] = h
	}
	f := &Fleet{opts: o, configPath: c.Path, configHives: c.Hives, uploads: make(chan struct{}, cmp.Or(o.Uploads, defaultUploads))}
	if f.opts.Catalog == nil {
		f.opts.Catalog = catalog.Builtin()
	}
	f.opts.Owner = cmp.Or(o.Owner, defaultOwner())
	f.opts.CacheDir = cmp.Or(o.CacheDir, defaultCacheDir())
	f.client = o.Origins.client()
	f.artifacts = artifact.NewCache(filepath.Join(f.opts.CacheDir, "artefacts"), f.client, o.Bundle)
	if f.opts.Lock == nil {
		f.opts.Lock = &lockfile.Lock{}
	}
	f.resolver = resolve.New(f.client, f.opts.Lock, f.artifacts, f.opts.CacheDir, func(text string) {
		f.emit(operations.Event{Type: operations.EventNote, Message: text})
	})

	inConfig := []string{}
	for _, alias := range o.Aliases {
		if h, ok := extras[alias]; ok {
			f.members = append(f.members, &member{hive: h, extra: true})
			continue
		}
		inConfig = append(inConfig, alias)
	}
	if len(o.Aliases) == 0 || len(inConfig) > 0 {
		hives, err := c.Select(inConfig, o.Labels)
		if err != nil {
			return nil, err
		}
		for _, h := range hives {
			f.members = append(f.members, &member{hive: h})
		}
	}
	if len(o.Aliases) == 0 && len(o.Labels) == 0 {
		for _, h := range o.Extra {
			f.members = append(f.members, &member{hive: h, extra: true})
		}
	}
	slices.SortStableFunc(f.members, func(a, b *member) int { return cmp.Compare(a.hive.Alias, b.hive.Alias) })
	return f, nil
}

// defaultOwner returns the default of [Options.Owner].
func defaultOwner() string {
	name := "unknown user"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	return fmt.Sprintf("%s@%s, PID %d", name, host, os.Getpid())
}

// defaultCacheDir returns the default of [Options.CacheDir].
func defaultCacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "rbee")
}

// Close closes all connections.
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

// readTimeout limits the command that reads a machine. It is long because a machine under
// load or a slow driver may take a long time to respond.
const readTimeout = 90 * time.Second

// ReadOptions are the options of [Fleet.Read].
type ReadOptions struct {
	// Deep also verifies the checksums of installed files and runs the verify commands
	// of workers.
	Deep bool

	// Devices also reads the accelerators.
	Devices bool
}

// NeedsDevices reports whether a plan depends on the accelerators of the machines, so that
// [ReadOptions.Devices] is required: a worker of the config requires a GPU, or its variant
// depends on the accelerators.
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

// Read connects to all hives in parallel and reads their state, with one connection and
// one command for each hive. The connections remain open. [Fleet.States] returns the states;
// the field Err of a state is the error of its hive.
func (f *Fleet) Read(ctx context.Context, o ReadOptions) {
	forEach(ctx, len(f.members), f.opts.Parallel, func(ctx context.Context, i int) {
		m := f.members[i]
		start := time.Now()
		f.read(ctx, m, o)
		m.duration += time.Since(start)
		if m.err != nil {
			f.emit(operations.Event{Type: operations.EventPhase, Hive: m.hive.Alias, Phase: operations.PhaseUnreachable, Error: m.err})
		}
	}, func(i int, err error) {
		m := f.members[i]
		m.state, m.err = nil, unreachableError(m.hive, err)
	})
}

func (f *Fleet) read(ctx context.Context, m *member, o ReadOptions) {
	m.state, m.err = nil, nil
	if m.host == nil {
		f.emitPhase(m, operations.PhaseConnecting, "")
		host, err := f.opts.Connect(ctx, m.hive)
		if err != nil {
			m.err = unreachableError(m.hive, err)
			return
		}
		m.host = host
	}
	f.emitPhase(m, operations.PhaseReading, "")
	if !o.Deep { // the time to read all files has no useful limit
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, readTimeout, fmt.Errorf("no response within %s", readTimeout))
		defer cancel()
	}
	state, err := readState(ctx, m.host, o)
	if err != nil {
		m.err = unreachableError(m.hive, err)
		return
	}
	m.state = state
}

// unreachableError returns the error of a hive that could not be read.
func unreachableError(h config.Hive, err error) *operations.Error {
	return hiveError(h, operations.CodeUnreachable, err)
}

// readState reads the state of a machine, from its hive daemon if possible, else with one
// command. If the daemon runs a different build than the installed one, its report is not
// used, because it may be wrong.
func readState(ctx context.Context, host Host, o ReadOptions) (*wire.State, error) {
	if r, ok := host.(StateReader); ok {
		s, err := r.ReadState(ctx, o)
		if err == nil && s.Compatible() && s.Rbee != nil && s.Rbee.SHA256 == s.Daemon.SHA256 && s.Broken == "" {
			probe.Normalize(s)
			return s, nil
		}
	}
	return probe.Read(ctx, host, probe.Options{Deep: o.Deep, Devices: o.Devices})
}

// States returns the states from the last [Fleet.Read], sorted by alias.
func (f *Fleet) States() []plan.HiveState {
	states := make([]plan.HiveState, len(f.members))
	for i, m := range f.members {
		states[i] = plan.HiveState{Hive: m.hive, Extra: m.extra, State: m.state, Err: m.err}
	}
	return states
}

// Plan resolves the desired state of the hives that were read, and returns the result of
// [plan.Diff]. It adds resolved versions to the lockfile, in memory.
func (f *Fleet) Plan(ctx context.Context, o plan.Options) *plan.Plan {
	workers := f.opts.Lock.Workers()
	want, changedFiles := f.resolveDesired(ctx, o)
	changes := plan.Diff(f.States(), want, o)
	f.fillDownloads(changes)
	changes.Upgrades = append(f.lockUpgrades(workers), changedFiles...)
	changes.Lock = f.opts.Lock.UnsavedChanges()
	return changes
}

// lookupInput returns the input of [resolve.NewLookup].
func (f *Fleet) lookupInput() resolve.Input {
	return resolve.Input{
		Hives: f.States(), Config: f.configHives, Catalog: f.opts.Catalog, Lock: f.opts.Lock,
		Resolver: f.resolver, FromBundle: f.opts.Bundle != nil, Version: f.opts.Version,
	}
}

// lockUpgrades returns the version constraints whose locked version differs from before.
func (f *Fleet) lockUpgrades(before []lockfile.Worker) []operations.Upgrade {
	var list []operations.Upgrade
	for _, w := range before {
		if now, ok := f.opts.Lock.Worker(w.Type, w.Requested); ok && now.Version != w.Version {
			list = append(list, operations.Upgrade{Worker: w.Type, Requested: w.Requested, From: w.Version, To: now.Version})
		}
	}
	return list
}

// resolveDesired resolves the desired state of the hives that were read. It also returns
// the locked versions whose files changed.
func (f *Fleet) resolveDesired(ctx context.Context, o plan.Options) (plan.Desired, []operations.Upgrade) {
	want := plan.Desired{Version: f.opts.Version, Binaries: map[string]plan.DesiredBinary{}, Workers: map[plan.WorkerKey]plan.DesiredWorker{}}
	l := resolve.NewLookup(f.lookupInput(), o)
	for _, m := range f.members {
		if m.state == nil || m.extra {
			continue
		}
		key := m.state.Platform.Key()
		if _, ok := want.Binaries[key]; !ok {
			if b, ok := f.desiredBinary(ctx, m.state, o.Fetch); ok {
				want.Binaries[key] = b
			}
		}
		for _, w := range m.hive.Workers {
			if plan.IsAdopted(m.state, w) && !o.Force {
				continue // the adopted worker is not replaced
			}
			want.Workers[plan.WorkerKey{Hive: m.hive.Alias, Type: w.Type}] = l.Worker(ctx, m.hive.Alias, w, m.state, want)
		}
	}
	return want, l.FileChanges
}

// desiredBinary returns the build of rbee for a machine. It reports false if no build is
// known.
func (f *Fleet) desiredBinary(ctx context.Context, s *wire.State, fetch bool) (plan.DesiredBinary, bool) {
	if f.opts.Binaries == nil {
		return plan.DesiredBinary{}, false
	}
	// Do not download a build for a machine that has the desired version.
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

// emit sends an event to the handler, if there is one.
func (f *Fleet) emit(e operations.Event) {
	if f.opts.Events == nil {
		return
	}
	e.Time = time.Now()
	f.eventMu.Lock()
	defer f.eventMu.Unlock()
	f.opts.Events(e)
}

// emitPhase sends a phase event of a hive.
func (f *Fleet) emitPhase(m *member, p operations.Phase, message string) {
	f.emit(operations.Event{Type: operations.EventPhase, Hive: m.hive.Alias, Phase: p, Message: message})
}
