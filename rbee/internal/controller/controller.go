// Package controller runs operations: package and hive operations over SSH, and runtime
// operations through the daemons of hives. The CLI uses a [Controller] in its own
// process. A queen uses one for the operations that it receives over HTTP.
//
// Each file of this package contains the operations of one kind.
package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/rbee/internal/loader"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
)

// Options configure a [Controller].
type Options struct {
	registry.DialOptions // Home is set from Paths

	// Version is the version of this rbee, which is installed on hives too.
	Version string

	// Self is the path of the running rbee, which is copied to hives of the same platform.
	// It is empty if the running program is not rbee.
	Self string

	// Paths are the paths of rbee's files on this machine.
	Paths pkgmgr.Paths

	// Binaries is a directory of rbee builds for other platforms; may be empty.
	Binaries string

	// ReleaseURL is the base URL of released binaries; empty for the default.
	ReleaseURL string

	// Origins are the download sources of workers.
	Origins pkgmgr.Origins
}

// Traffic counts the requests that a controller sends to workers.
type Traffic interface {
	// Begin counts a request until end is called. ok is false for a worker that is
	// being evicted.
	Begin(w operations.WorkerProcess) (end func(), ok bool)

	// Finish records a finished request.
	Finish(ctx context.Context, r FinishedRequest)
}

// FinishedRequest describes a finished request to a worker.
type FinishedRequest struct {
	Worker  operations.WorkerProcess
	Start   time.Time
	Retries int  // earlier requests to other workers for the same operation
	Stream  bool // the response was streamed
	Final   bool // no other worker is tried after this one
	Report  *operations.InferReport
	Err     error
}

// noTraffic is the [Traffic] of a program that runs one operation. It does nothing.
type noTraffic struct{}

// Begin implements [Traffic].
func (noTraffic) Begin(operations.WorkerProcess) (func(), bool) { return func() {}, true }

// Finish implements [Traffic].
func (noTraffic) Finish(context.Context, FinishedRequest) {}

// Loader finds and starts the workers that serve an operation.
type Loader interface {
	// Find finds the workers that can serve the request. The caller closes the result, even if there
	// is an error.
	Find(ctx context.Context, op operations.Infer) (*loader.FindResult, error)

	// Load starts a worker after [Loader.Find] found none. It takes ownership of found. The
	// caller closes the result, even if there is an error.
	Load(ctx context.Context, op operations.Infer, found *loader.FindResult, events operations.Handler) (*loader.FindResult, error)
}

// Dependencies are the components that a controller uses.
type Dependencies struct {
	Connector registry.Connector
	Loader    Loader
	Traffic   Traffic

	// SSHHosts returns the aliases in the user's ssh_config that match a pattern.
	SSHHosts func(pattern string) ([]string, error)
}

// Controller runs operations. It is safe for concurrent use.
type Controller struct {
	opts     Options
	files    *Files
	conn     registry.Connector
	loader   Loader
	traffic  Traffic
	sshHosts func(pattern string) ([]string, error)
	close    func() error
}

var _ operations.Runner = (*Controller)(nil)

// New returns a controller that opens connections for each operation.
func New(o Options) (*Controller, error) {
	files, err := NewFiles(o)
	if err != nil {
		return nil, err
	}
	dialer := NewDialer(o)
	c := NewWithDependencies(o, files, Dependencies{
		Connector: dialer, Loader: loader.NewDirect(dialer, files.Hives), Traffic: noTraffic{}, SSHHosts: dialer.SSHHosts,
	})
	c.close = dialer.Close
	return c, nil
}

// NewWithDependencies returns a controller that uses d. The caller closes the dependencies.
func NewWithDependencies(o Options, files *Files, d Dependencies) *Controller {
	return &Controller{
		opts: o, files: files, conn: d.Connector, loader: d.Loader, traffic: d.Traffic, sshHosts: d.SSHHosts,
		close: func() error { return nil },
	}
}

// NewDialer returns a dialer with the given options.
func NewDialer(o Options) *registry.Dialer {
	o.Home = o.Paths.Home
	return registry.NewDialer(o.DialOptions)
}

// Close closes the connections that operations share, such as those to jump hosts.
func (c *Controller) Close() error { return c.close() }

// Run implements [operations.Runner].
func (c *Controller) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	if err := op.Validate(); err != nil {
		return nil, err
	}
	if operations.ShouldForwardToHive(op) {
		return c.runOnHives(ctx, op, events)
	}
	switch op := op.(type) {
	case operations.PackageSync:
		return report(c.sync(ctx, op, events))
	case operations.PackageInstall:
		return report(c.sync(ctx, op.Sync(), events))
	case operations.PackageStatus:
		return report(c.status(ctx, op, events))
	case operations.PackageUninstall:
		return report(c.uninstall(ctx, op, events))
	case operations.PackageValidate:
		return report(c.validate(ctx, op, events))
	case operations.PackageMigrate:
		return report(c.migrate(ctx, op, events))
	case operations.PackageRollback:
		return report(c.rollback(ctx, op, events))
	case operations.PackageBundle:
		return report(c.bundle(ctx, op, events))
	case operations.HiveList:
		return report(c.hiveList(op))
	case operations.HiveGet:
		return report(c.hiveGet(ctx, op, events))
	case operations.HiveStatus:
		return report(c.hiveStatus(ctx, op, events))
	case operations.HiveStart:
		return report(c.hiveDaemon(ctx, op.Alias, op.ConfigPath, operations.ActionStartHive, events))
	case operations.HiveStop:
		return report(c.hiveDaemon(ctx, op.Alias, op.ConfigPath, operations.ActionStopHive, events))
	case operations.HiveCapabilities:
		return report(c.capabilities(ctx, op))
	case operations.Infer:
		return report(c.infer(ctx, op, events))
	default:
		return nil, &operations.Error{
			Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: fmt.Sprintf("unsupported operation %s", op.Kind()),
		}
	}
}

// report converts the result of an operation. A nil pointer becomes a nil Report, and every
// error becomes an [*operations.Error].
func report[R interface {
	comparable
	operations.Report
}](r R, err error) (operations.Report, error) {
	var none R
	if err != nil {
		return nil, registry.OperationError(err)
	}
	if r == none {
		return nil, nil
	}
	return r, nil
}

// openFleet opens the fleet of a scope.
func (c *Controller) openFleet(d *desiredState, scope operations.Scope, push bool, events operations.Handler) (*pkgmgr.Fleet, error) {
	return pkgmgr.Open(d.config, pkgmgr.Options{
		Connect: c.conn.Host, Aliases: scope.Hives, Labels: scope.Labels, Extra: d.extra, Catalog: d.catalog,
		Binaries: d.binaries, Version: c.opts.Version, CacheDir: c.files.Paths.CacheDir,
		Origins: c.opts.Origins, Lock: d.lock, Record: c.files.record, Push: push, Bundle: d.bundle,
		Parallel: scope.Parallel, Events: events,
	})
}

// lockWait converts the lock wait of an operation to a duration.
func lockWait(seconds float64) time.Duration {
	return time.Duration(seconds * float64(time.Second))
}
