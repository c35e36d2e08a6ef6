// Package queen decides: it takes every operation, does the package and hive
// operations itself, over SSH, has hives do the runtime operations, and answers
// with a report.
//
// A hive's daemon is reached through the SSH connection to its machine: one
// command reads its port and its token, and then HTTP goes to that port on the
// machine's own loopback (reach.go). Inference goes the same way, to a worker
// through its hive (infer.go).
//
// A [Queen] is an [operations.Runner]. The CLI runs one in its own process, so
// no daemon is needed. Each file of this package holds the operations of one
// kind; what they share is here: the config, the record of hives, the catalog,
// and the way to the machines.
package queen

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/sshx"
)

// Options configure a [Queen].
type Options struct {
	// Version is the version of this rbee, which hives shall have too.
	Version string

	// Self is the path of the running rbee, sent to machines of this platform.
	// Empty if the running program is none.
	Self string

	// Paths are where this machine keeps rbee's files.
	Paths Paths

	// Prompter asks for passwords and unknown host keys; nil never asks.
	Prompter sshx.Prompter

	// AcceptNewHostKeys accepts the key of a host that is not known yet.
	AcceptNewHostKeys bool

	// SSHConfig is an ssh_config file in place of the user's; empty for that.
	SSHConfig string

	// Binaries is a directory of rbee builds for other platforms; may be empty.
	Binaries string

	// ReleaseURL is where released binaries are; empty for the usual place.
	ReleaseURL string

	// Origins are where versions and files of workers come from.
	Origins pkgmgr.Origins

	// Timeout bounds each connection's making; 0 is as sshx has it.
	Timeout time.Duration
}

// Queen does operations. It may be used by several goroutines at once.
type Queen struct {
	opts     Options
	dialer   *sshx.Dialer
	binaries *artifact.Binaries
	record   pkgmgr.Record
	registry *registry     // of a queen that serves; nil for one that does single operations
	front    *gatewayFleet // likewise
	traffic  *traffic
}

var _ operations.Runner = (*Queen)(nil)

// New makes a queen. It opens nothing yet.
func New(o Options) (*Queen, error) {
	if o.Paths == (Paths{}) {
		return nil, errors.New("queen: Options.Paths is empty")
	}
	d := &sshx.Dialer{
		Home: o.Paths.Home, AcceptNewHostKeys: o.AcceptNewHostKeys, Prompter: o.Prompter, Timeout: o.Timeout,
	}
	if o.SSHConfig != "" {
		d.ConfigFiles = []string{o.SSHConfig}
	}
	return &Queen{
		opts: o, dialer: d, traffic: newTraffic(), record: pkgmgr.Record{Path: o.Paths.Record()},
		binaries: &artifact.Binaries{
			Self: o.Self, Version: o.Version, Dir: o.Binaries, Cache: o.Paths.BinaryCache(), ReleaseURL: o.ReleaseURL,
		},
	}, nil
}

// Close ends the connections that operations share, such as those to jump hosts.
func (q *Queen) Close() error { return q.dialer.Close() }

// Run implements [operations.Runner].
func (q *Queen) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	if err := op.Validate(); err != nil {
		return nil, err
	}
	if operations.ShouldForwardToHive(op) {
		return q.onHives(ctx, op, events)
	}
	switch op := op.(type) {
	case operations.PackageSync:
		return report(q.sync(ctx, op, events))
	case operations.PackageInstall:
		return report(q.sync(ctx, op.Sync(), events))
	case operations.PackageStatus:
		return report(q.status(ctx, op, events))
	case operations.PackageUninstall:
		return report(q.uninstall(ctx, op, events))
	case operations.PackageValidate:
		return report(q.validate(ctx, op, events))
	case operations.PackageMigrate:
		return report(q.migrate(ctx, op, events))
	case operations.PackageRollback:
		return report(q.rollback(ctx, op, events))
	case operations.PackageBundle:
		return report(q.bundle(ctx, op, events))
	case operations.HiveList:
		return report(q.hiveList(op))
	case operations.HiveGet:
		return report(q.hiveGet(ctx, op, events))
	case operations.HiveStatus:
		return report(q.hiveStatus(ctx, op, events))
	case operations.HiveStart:
		return report(q.hiveDaemon(ctx, op.Alias, op.ConfigPath, operations.ActionStartHive, events))
	case operations.HiveStop:
		return report(q.hiveDaemon(ctx, op.Alias, op.ConfigPath, operations.ActionStopHive, events))
	case operations.HiveCapabilities:
		return report(q.capabilities(ctx, op))
	case operations.Infer:
		return report(q.infer(ctx, op, events))
	default:
		return nil, &operations.Error{
			Code: operations.CodeUnsupported, Message: fmt.Sprintf("this rbee does not know %s", op.Kind()),
		}
	}
}

// report keeps a nil pointer from becoming a non-nil Report, and gives every
// error a code.
func report[R interface {
	comparable
	operations.Report
}](r R, err error) (operations.Report, error) {
	var none R
	if err != nil {
		return nil, asError(err)
	}
	if r == none {
		return nil, nil
	}
	return r, nil
}

func asError(err error) error {
	var e *operations.Error
	if errors.As(err, &e) {
		return err
	}
	code := operations.CodeFailed
	if errors.Is(err, context.Canceled) {
		code = operations.CodeCanceled
	}
	return &operations.Error{Code: code, Message: err.Error(), Err: err}
}

// connect opens the way to a hive's machine: the one that is held already, if any.
func (q *Queen) connect(ctx context.Context, h config.Hive) (pkgmgr.Host, error) {
	if q.registry != nil {
		if host := q.registry.host(h); host != nil {
			return host, nil
		}
	}
	return q.dial(ctx, h)
}

// dial opens a connection to a hive's machine.
func (q *Queen) dial(ctx context.Context, h config.Hive) (pkgmgr.Host, error) {
	if h.Local() {
		return sshx.NewLocal(), nil
	}
	return q.dialer.Dial(ctx, sshx.Target{Host: h.Hostname, User: h.SSHUser, Port: h.SSHPort, KeyFile: h.SSHKey})
}

// desired is the config and all that belongs to it.
type desired struct {
	config  *config.Config
	path    string // absolute
	catalog *catalog.Catalog
	lock    *lockfile.Lock
	extra   []config.Hive

	// bundle is where all that is installed is taken from, binaries the rbee for
	// machines; nil for the usual ways.
	bundle   *artifact.Bundle
	binaries artifact.BinarySource
}

// load reads the config, the recipes, the lock and the record.
func (q *Queen) load(configPath string) (*desired, error) {
	path, err := q.opts.Paths.ConfigFile(configPath)
	if err != nil {
		return nil, err
	}
	config, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	return q.withCatalog(config, path)
}

// loadIfThere is load, with an empty config where the file does not exist.
func (q *Queen) loadIfThere(configPath string) (*desired, error) {
	d, err := q.load(configPath)
	if operations.CodeOf(err) != operations.CodeNotFound {
		return d, err
	}
	path, err := q.opts.Paths.ConfigFile(configPath)
	if err != nil {
		return nil, err
	}
	return q.withCatalog(&config.Config{Path: path}, path)
}

func (q *Queen) withCatalog(config *config.Config, path string) (*desired, error) {
	catalog, err := catalog.Load(q.opts.Paths.Recipes())
	if err != nil {
		return nil, err
	}
	extra, err := q.record.Extra(config, path)
	if err != nil {
		return nil, err
	}
	lock, err := lockfile.Load(lockfile.Path(path))
	if err != nil {
		return nil, err
	}
	return &desired{config: config, path: path, catalog: catalog, lock: lock, extra: extra, binaries: q.binaries}, nil
}

// open makes the fleet of a scope.
func (q *Queen) open(d *desired, scope operations.Scope, push bool, events operations.Handler) (*pkgmgr.Fleet, error) {
	return pkgmgr.Open(d.config, pkgmgr.Options{
		Connect: q.connect, Only: scope.Hives, Labels: scope.Labels, Extra: d.extra, Catalog: d.catalog,
		Binaries: d.binaries, Version: q.opts.Version, CacheDir: q.opts.Paths.CacheDir,
		Origins: q.opts.Origins, Lock: d.lock, Push: push, Bundle: d.bundle,
		Parallel: scope.Parallel, Events: events,
	})
}

func lockWait(secs float64) time.Duration { return time.Duration(secs * float64(time.Second)) }
