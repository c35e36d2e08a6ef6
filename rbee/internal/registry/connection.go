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

// Times of a connection.
const (
	connectTimeout    = 45 * time.Second // to connect and find the daemon
	initialBackoff    = time.Second      // between two tries
	maxBackoff        = 30 * time.Second
	backoffResetAfter = time.Minute // a link that held so long begins its pauses anew
	maxSnapshotSize   = 64 << 20    // bytes
)

// Connection is the connection to one hive, made again whenever it breaks.
type Connection struct {
	pool *Pool
	hive config.Hive
	stop context.CancelFunc

	mu         sync.Mutex
	host       *sharedHost // nil while there is no connection
	client     *Client     // nil while the daemon does not answer
	problem    *operations.Error
	lastSeen   time.Time
	snapshot   *operations.HiveSnapshot
	dialFailed bool // it was tried, and could not be reached
}

func newConnection(p *Pool, h config.Hive) *Connection { return &Connection{pool: p, hive: h} }

// Hive returns the hive as the config describes it.
func (l *Connection) Hive() config.Hive { return l.hive }

// run keeps the link until ctx ends.
func (l *Connection) run(ctx context.Context) {
	pauses := newBackoff()
	for {
		start := time.Now()
		err := l.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		l.setOffline(err)
		if time.Since(start) > backoffResetAfter {
			pauses.Reset()
		}
		if !sleep(ctx, pauses.NextBackOff()) {
			return
		}
	}
}

// setOffline notes why the link is gone.
func (l *Connection) setOffline(err error) {
	var e *operations.Error
	if !errors.As(OperationError(err), &e) {
		return
	}
	l.mu.Lock()
	news := l.problem == nil || l.problem.Message != e.Message
	l.problem, l.dialFailed = e, true
	l.mu.Unlock()
	if news {
		l.pool.log.Warn("a hive is away", "hive", l.hive.Alias, "error", e.Message)
	}
	l.pool.Notify()
}

// connect connects and listens until the connection breaks. A daemon that goes, as
// for an upgrade, is waited for in the same connection, which others may be using.
func (l *Connection) connect(ctx context.Context) error {
	opening, opened := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no connection within %s", connectTimeout))
	defer opened()
	host, err := l.pool.dial(opening, l.hive)
	if err != nil {
		return UnreachableError(l.hive.Alias, err)
	}
	held := &sharedHost{Host: host}
	l.update(func() { l.host = held })
	defer func() {
		l.update(func() { l.host, l.client = nil, nil })
		held.closeWhenUnused()
	}()
	pauses := newBackoff()
	for {
		start := time.Now()
		err := l.watchDaemon(ctx, host)
		l.update(func() { l.client = nil })
		if e := (*operations.Error)(nil); ctx.Err() != nil || errors.As(err, &e) && e.Code == operations.CodeUnreachable && e.Reason != operations.ReasonDaemon && e.Reason != operations.ReasonOtherVersion {
			return err
		}
		l.setOffline(err)
		if time.Since(start) > backoffResetAfter {
			pauses.Reset()
		}
		if !sleep(ctx, pauses.NextBackOff()) {
			return ctx.Err()
		}
	}
}

// watchDaemon finds the daemon and listens until it goes.
func (l *Connection) watchDaemon(ctx context.Context, host pkgmgr.Host) error {
	finding, found := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("no answer within %s", connectTimeout))
	defer found()
	d, err := findDaemon(finding, l.hive, host)
	if err != nil {
		return err
	}
	defer d.API.HTTP.CloseIdleConnections()
	d.timeout = l.pool.timeout
	return d.watchSnapshots(ctx, "listening to the hive", func(s *operations.HiveSnapshot) bool {
		l.setOnline(d, s)
		return false
	})
}

// newBackoff returns the pauses between tries. They are random, so that not all who wait
// come at once.
func newBackoff() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: initialBackoff, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: maxBackoff}
}

// sleep waits. It is false if ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// setOnline notes a sign of life, with what was said, if anything.
func (l *Connection) setOnline(d *Client, s *operations.HiveSnapshot) {
	l.mu.Lock()
	back := l.client == nil
	l.client, l.lastSeen, l.problem = d, time.Now().UTC(), nil
	if s != nil {
		l.snapshot = s
	}
	l.mu.Unlock()
	if s != nil {
		l.pool.onReport(l.hive.Alias, s.Workers)
	}
	if back {
		l.pool.log.Info("a hive is here", "hive", l.hive.Alias)
	}
	if back || s != nil {
		l.pool.Notify()
	}
}

func (l *Connection) update(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// hasResult reports whether it is known by now how the hive is.
func (l *Connection) hasResult() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dialFailed || l.snapshot != nil
}

// acquireHost lends the connection; nil while there is none.
func (l *Connection) acquireHost() pkgmgr.Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.host == nil {
		return nil
	}
	lent := l.host.acquire()
	if l.client == nil {
		return lent
	}
	return &daemonHost{lent, l.client.API}
}

// Client returns a client of the daemon, which the caller closes; nil while there is
// no connection.
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

// isConnecting reports whether the daemon may be there without having been heard: the
// machine was not tried yet, or can be reached.
func (l *Connection) isConnecting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client == nil && (l.host != nil || !l.dialFailed)
}

// OfflineError is why the hive is away; nil if it is not.
func (l *Connection) OfflineError() *operations.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil && time.Since(l.lastSeen) < offlineAfter {
		return nil
	}
	if l.problem != nil {
		return l.problem
	}
	return &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonConnecting, Subject: operations.SubjectHive.Named(l.hive.Alias), Hive: l.hive.Alias, Message: "the hive has not been heard yet"}
}

// View is what is known of the hive at a time.
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
		v.Link, v.Problem = operations.LinkStale, fmt.Sprintf("not heard for %s", age.Round(time.Second))
	case l.client != nil || l.dialFailed || !l.lastSeen.IsZero():
		v.Link = operations.LinkOffline
	}
	return v
}
