// Package registry connects operations to hives.
//
// The daemon of a hive is reached through SSH: a script reads the daemon's port and token,
// then HTTP is forwarded to that port on the loopback interface of the hive (dial.go).
//
// A [Dialer] opens a connection for each operation, as the CLI does. A [Pool] keeps one
// connection to each hive of the config open, as a queen does, and stores the last
// snapshot of each hive. Both implement [Connector].
package registry

import (
	"context"
	"errors"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/sshx"
)

// MaxParallel is the maximum number of hives that are contacted at once.
const MaxParallel = 64

// Connector connects to hives.
type Connector interface {
	// Host connects to a hive over SSH. The caller closes the connection.
	Host(ctx context.Context, h config.Hive) (pkgmgr.Host, error)

	// Client connects to the daemon of a hive. The caller closes the client. Every
	// error is an [*operations.Error] that names the hive.
	Client(ctx context.Context, h config.Hive) (*Client, error)

	// Snapshot returns the current snapshot of a hive, or the last one, with a client
	// that the caller closes.
	Snapshot(ctx context.Context, h config.Hive) Snapshot

	// Refresh replaces each snapshot that is not current with a new one, or with an error
	// if the new one does not arrive in time.
	Refresh(ctx context.Context, list []Snapshot)

	// LastReport returns the last snapshot of a hive, even if the hive is offline, or nil
	// if the hive has sent none.
	LastReport(h config.Hive) *operations.HiveSnapshot
}

// DialOptions configure a [Dialer].
type DialOptions struct {
	// Home is the user's home directory.
	Home string

	// Prompter asks for passwords and unknown host keys; nil never asks.
	Prompter sshx.Prompter

	// AcceptNewHostKeys accepts the keys of unknown hosts.
	AcceptNewHostKeys bool

	// SSHConfig is the path of an ssh_config file that replaces the user's; may be empty.
	SSHConfig string

	// Timeout limits dialing; 0 selects the default of sshx.
	Timeout time.Duration
}

// Dialer is a [Connector] that opens a connection for each operation. It is safe for
// concurrent use.
type Dialer struct{ ssh *sshx.Dialer }

var _ Connector = (*Dialer)(nil)

// NewDialer returns a dialer. It opens no connection.
func NewDialer(o DialOptions) *Dialer {
	d := &sshx.Dialer{
		Home: o.Home, AcceptNewHostKeys: o.AcceptNewHostKeys, Prompter: o.Prompter, Timeout: o.Timeout,
	}
	if o.SSHConfig != "" {
		d.ConfigFiles = []string{o.SSHConfig}
	}
	return &Dialer{d}
}

// Close closes the connections that operations share, such as those to jump hosts.
func (d *Dialer) Close() error { return d.ssh.Close() }

// SSHHosts returns the aliases in the user's ssh_config that match a pattern.
func (d *Dialer) SSHHosts(pattern string) ([]string, error) { return d.ssh.Hosts(pattern) }

// Host implements [Connector].
func (d *Dialer) Host(ctx context.Context, h config.Hive) (pkgmgr.Host, error) {
	if h.Local() {
		return sshx.NewLocal(), nil
	}
	return d.ssh.Dial(ctx, sshx.Target{Host: h.Hostname, User: h.SSHUser, Port: h.SSHPort, KeyFile: h.SSHKey})
}

// Client implements [Connector].
func (d *Dialer) Client(ctx context.Context, h config.Hive) (*Client, error) {
	return openClient(ctx, h, d.Host)
}

// Snapshot implements [Connector].
func (d *Dialer) Snapshot(ctx context.Context, h config.Hive) Snapshot {
	return fetchSnapshot(ctx, d, h)
}

// Refresh implements [Connector]. It does nothing: all snapshots are current.
func (d *Dialer) Refresh(context.Context, []Snapshot) {}

// LastReport implements [Connector]. It returns nil: a Dialer stores no snapshots.
func (d *Dialer) LastReport(config.Hive) *operations.HiveSnapshot { return nil }

// Snapshots returns the snapshots of hives, in their order. The caller passes them to
// [CloseAll].
func Snapshots(ctx context.Context, c Connector, hives []config.Hive) []Snapshot {
	list := make([]Snapshot, len(hives))
	group := pool.New().WithMaxGoroutines(MaxParallel)
	for i, h := range hives {
		group.Go(func() { list[i] = c.Snapshot(ctx, h) })
	}
	group.Wait()
	return list
}

// CloseAll closes the clients of snapshots.
func CloseAll(list []Snapshot) {
	for _, s := range list {
		if s.Client != nil {
			s.Client.Close()
		}
	}
}

// OperationError returns err as an [*operations.Error], with a code and a reason.
func OperationError(err error) error {
	var e *operations.Error
	if errors.As(err, &e) {
		return err
	}
	code := operations.CodeFailed
	reason, subject := operations.ReasonOf(err), operations.SubjectOf(err)
	if errors.Is(err, context.Canceled) {
		code, reason = operations.CodeCanceled, operations.ReasonCanceled
	}
	return &operations.Error{Code: code, Reason: reason, Subject: subject, Message: err.Error(), Err: err}
}
