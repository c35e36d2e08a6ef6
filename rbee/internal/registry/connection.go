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

// Hive returns the hive as the config describes it.
func (l *Connection) Hive() config.Hive { return l.hive }

// run keeps the hive connected until ctx is done.
func (l *Connection) run(ctx context.Context) {
	retry := newBackoff()
	for {
		start := time.Now()
		err := l.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		l.setOffline(err)
		if time.Since(start) > backoffResetAfter {
			retry.Reset()
		}
		if !sleep(ctx, retry.NextBackOff()) {
			return
		}
	}
}

// setOffline records the error that ended the connection.
func (l *Connection) setOffline(err error) {
	var e *operations.Error
	if !errors.As(OperationError(err), &e) {
		return
	}
	l.mu.Lock()
	changed := l.problem == nil || l.problem.Message != e.Message
	l.problem, l.hasFailed = e, true
	l.mu.Unlock()
	if changed {
		l.pool.log.Warn("hive disconnected", "hive", l.hive.Alias, "error", e.Message)
	}
	l.pool.Notify()
}

// connect dials the hive and watches its daemon until the connection breaks. While the
// daemon restarts, as for an upgrade, it keeps the connection, which others may be using.
func (l *Connection) connect(ctx context.Context) error {
	dialCtx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no connection within %s", connectTimeout))
	defer cancel()
	host, err := l.pool.dial(dialCtx, l.hive)
	if err != nil {
		return UnreachableError(l.hive.Alias, err)
	}
	shared := &sharedHost{Host: host}
	l.update(func() { l.host = shared })
	defer func() {
		l.update(func() { l.host, l.client = nil, nil })
		shared.closeWhenUnused()
	}()
	retry := newBackoff()
	for {
		start := time.Now()
		err := l.watchDaemon(ctx, host)
		l.update(func() { l.client = nil })
		if e := (*operations.Error)(nil); ctx.Err() != nil || errors.As(err, &e) && e.Code == operations.CodeUnreachable && e.Reason != operations.ReasonDaemon && e.Reason != operations.ReasonOtherVersion {
			return err
		}
		l.setOffline(err)
		if time.Since(start) > backoffResetAfter {
			retry.Reset()
		}
		if !sleep(ctx, retry.NextBackOff()) {
			return ctx.Err()
		}
	}
}

// watchDaemon finds the daemon and records its snapshots until the stream breaks.
func (l *Connection) watchDaemon(ctx context.Context, host pkgmgr.Host) error {
	findCtx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no answer within %s", connectTimeout))
	defer cancel()
	d, err := findDaemon(findCtx, l.hive, host)
	if err != nil {
		return err
	}
	defer d.API.HTTP.CloseIdleConnections()
	d.timeout = l.pool.timeout
	return d.watchSnapshots(ctx, "cannot watch the hive", func(s *operations.HiveSnapshot) bool {
		l.setOnline(d, s)
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
func (l *Connection) setOnline(d *Client, s *operations.HiveSnapshot) {
	l.mu.Lock()
	reconnected := l.client == nil
	l.client, l.lastSeen, l.problem = d, time.Now().UTC(), nil
	if s != nil {
		l.snapshot = s
	}
	l.mu.Unlock()
	if s != nil {
		l.pool.onReport(l.hive.Alias, s.Workers)
	}
	if reconnected {
		l.pool.log.Info("hive connected", "hive", l.hive.Alias)
	}
	if reconnected || s != nil {
		l.pool.Notify()
	}
}

func (l *Connection) update(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// hasResult reports whether the first attempt to reach the hive has ended.
func (l *Connection) hasResult() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.hasFailed || l.snapshot != nil
}

// acquireHost returns the connection for one user, or nil while disconnected.
func (l *Connection) acquireHost() pkgmgr.Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.host == nil {
		return nil
	}
	acquired := l.host.acquire()
	if l.client == nil {
		return acquired
	}
	return &daemonHost{acquired, l.client.API}
}

// Client returns a client of the daemon, or nil while disconnected. The caller closes it.
func (l *Connection) Client() *Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil || l.host == nil {
		return nil
	}
	d := *l.client
	d.host, d.shared = l.host.acquire(), true
	return &d
}

// isConnecting reports whether the daemon may be reachable although the connection has no
// client yet: the host is connected, or no attempt has failed.
func (l *Connection) isConnecting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client == nil && (l.host != nil || !l.hasFailed)
}

// OfflineError returns why the hive is offline, or nil if it is not.
func (l *Connection) OfflineError() *operations.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil && time.Since(l.lastSeen) < offlineAfter {
		return nil
	}
	if l.problem != nil {
		return l.problem
	}
	return &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonConnecting, Subject: operations.SubjectHive.Named(l.hive.Alias), Hive: l.hive.Alias, Message: "the hive has not connected yet"}
}

// View returns the state of the connection and the last snapshot.
func (l *Connection) View(now time.Time) operations.HiveView {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := operations.HiveView{
		Alias: l.hive.Alias, Hostname: l.hive.Hostname, Labels: l.hive.Labels, Link: operations.LinkConnecting,
		SeenAt: l.lastSeen, Snapshot: l.snapshot,
	}
	if l.problem != nil {
		v.Problem = l.problem.Message
	}
	age := now.Sub(l.lastSeen)
	switch {
	case l.client != nil && age < l.pool.staleAfter:
		v.Link = operations.LinkOnline
	case l.client != nil && age < offlineAfter:
		v.Link, v.Problem = operations.LinkStale, fmt.Sprintf("last seen %s ago", age.Round(time.Second))
	case l.client != nil || l.hasFailed || !l.lastSeen.IsZero():
		v.Link = operations.LinkOffline
	}
	return v
}
