package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// Timeouts and limits of a connection.
const (
	connectTimeout    = 45 * time.Second // for each of dialing and finding the daemon
	initialBackoff    = time.Second      // after the first failure
	maxBackoff        = 30 * time.Second
	backoffResetAfter = time.Minute // a connection that lasted longer resets the backoff
	maxSnapshotSize   = 64 << 20    // bytes
)

// Connection is the connection to one hive. It reconnects when it breaks.
type Connection struct {
	pool *Pool
	hive config.Hive
	stop context.CancelFunc

	mu        sync.Mutex
	host      *sharedHost // nil while disconnected
	client    *Client     // nil while the daemon does not respond
	problem   *operations.Error
	lastSeen  time.Time
	snapshot  *operations.HiveSnapshot
	hasFailed bool // an attempt to connect has failed
}

func newConnection(p *Pool, h config.Hive) *Connection { return &Connection{pool: p, hive: h} }

// Hive returns the hive of the config.
func (c *Connection) Hive() config.Hive { return c.hive }

// run keeps the hive connected until ctx is done.
func (c *Connection) run(ctx context.Context) {
	retry := newBackoff()
	for {
		start := time.Now()
		err := c.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		c.setOffline(err)
		if time.Since(start) > backoffResetAfter {
			retry.Reset()
		}
		if !sleep(ctx, retry.NextBackOff()) {
			return
		}
	}
}

// setOffline records the error that ended the connection.
func (c *Connection) setOffline(err error) {
	var e *operations.Error
	if !errors.As(OperationError(err), &e) {
		return
	}
	c.mu.Lock()
	changed := c.problem == nil || c.problem.Message != e.Message
	c.problem, c.hasFailed = e, true
	c.mu.Unlock()
	if changed {
		c.pool.log.Warn("hive disconnected", "hive", c.hive.Alias, "error", e.Message)
	}
	c.pool.Notify()
}

// connect dials the hive and watches its daemon until the connection breaks. It keeps the
// connection while the daemon restarts, such as for an upgrade, because it may have other users.
func (c *Connection) connect(ctx context.Context) error {
	dialCtx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no connection within %s", connectTimeout))
	defer cancel()
	host, err := c.pool.dial(dialCtx, c.hive)
	if err != nil {
		return UnreachableError(c.hive.Alias, err)
	}
	shared := &sharedHost{Host: host}
	c.update(func() { c.host = shared })
	defer func() {
		c.update(func() { c.host, c.client = nil, nil })
		shared.closeWhenUnused()
	}()
	retry := newBackoff()
	for {
		start := time.Now()
		err := c.watchDaemon(ctx, host)
		c.update(func() { c.client = nil })
		if e := (*operations.Error)(nil); ctx.Err() != nil || errors.As(err, &e) && e.Code == operations.CodeUnreachable && e.Reason != operations.ReasonDaemon && e.Reason != operations.ReasonVersionMismatch {
			return err
		}
		c.setOffline(err)
		if time.Since(start) > backoffResetAfter {
			retry.Reset()
		}
		if !sleep(ctx, retry.NextBackOff()) {
			return ctx.Err()
		}
	}
}

// watchDaemon finds the daemon and records its snapshots until the stream breaks.
func (c *Connection) watchDaemon(ctx context.Context, host pkgmgr.Host) error {
	findCtx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no response within %s", connectTimeout))
	defer cancel()
	d, err := findDaemon(findCtx, c.hive, host)
	if err != nil {
		return err
	}
	defer d.API.HTTP.CloseIdleConnections()
	d.timeout = c.pool.timeout
	return d.watchSnapshots(ctx, "cannot watch the hive", func(s *operations.HiveSnapshot) bool {
		c.setOnline(d, s)
		return false
	})
}

// newBackoff returns the backoff between two attempts. It is randomized, so that hives
// that went offline together do not reconnect together.
func newBackoff() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: initialBackoff, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: maxBackoff}
}

// sleep waits for d. It returns false if ctx is done first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// setOnline records a response of the daemon. s is nil for a keep-alive comment.
func (c *Connection) setOnline(d *Client, s *operations.HiveSnapshot) {
	c.mu.Lock()
	reconnected := c.client == nil
	c.client, c.lastSeen, c.problem = d, time.Now().UTC(), nil
	if s != nil {
		c.snapshot = s
	}
	c.mu.Unlock()
	if s != nil {
		c.pool.onReport(c.hive.Alias, s.Workers)
	}
	if reconnected {
		c.pool.log.Info("hive connected", "hive", c.hive.Alias)
	}
	if reconnected || s != nil {
		c.pool.Notify()
	}
}

func (c *Connection) update(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// hasResult reports whether the first attempt to reach the hive has ended.
func (c *Connection) hasResult() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasFailed || c.snapshot != nil
}

// acquireHost returns the connection for one user, or nil while disconnected.
func (c *Connection) acquireHost() pkgmgr.Host {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.host == nil {
		return nil
	}
	acquired := c.host.acquire()
	if c.client == nil {
		return acquired
	}
	return &daemonHost{acquired, c.client.API}
}

// Client returns a client of the daemon, or nil while disconnected. The caller closes it.
func (c *Connection) Client() *Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil || c.host == nil {
		return nil
	}
	d := *c.client
	d.host, d.shared = c.host.acquire(), true
	return &d
}

// isConnecting reports whether the daemon may be reachable although the connection has no
// client yet: the host is connected, or no attempt has failed.
func (c *Connection) isConnecting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.client == nil && (c.host != nil || !c.hasFailed)
}

// OfflineError returns why the hive is offline, or nil if it is not.
func (c *Connection) OfflineError() *operations.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client != nil && time.Since(c.lastSeen) < offlineAfter {
		return nil
	}
	if c.problem != nil {
		return c.problem
	}
	return &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonConnecting, Subject: operations.SubjectHive.WithName(c.hive.Alias), Hive: c.hive.Alias, Message: "the hive has not connected yet"}
}

// View returns the state of the connection and the last snapshot.
func (c *Connection) View(now time.Time) operations.HiveView {
	c.mu.Lock()
	defer c.mu.Unlock()
	view := operations.HiveView{
		Alias: c.hive.Alias, Hostname: c.hive.Hostname, Labels: c.hive.Labels, Link: operations.LinkConnecting,
		SeenAt: c.lastSeen, Snapshot: c.snapshot,
	}
	if c.problem != nil {
		view.Problem = c.problem.Message
	}
	age := now.Sub(c.lastSeen)
	switch {
	case c.client != nil && age < c.pool.staleAfter:
		view.Link = operations.LinkOnline
	case c.client != nil && age < offlineAfter:
		view.Link, view.Problem = operations.LinkStale, fmt.Sprintf("last seen %s ago", age.Round(time.Second))
	case c.client != nil || c.hasFailed || !c.lastSeen.IsZero():
		view.Link = operations.LinkOffline
	}
	return view
}
