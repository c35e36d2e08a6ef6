package queen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// Times of a link.
const (
	doorTimeout   = 45 * time.Second // to connect and find the daemon
	firstPause    = time.Second      // between two tries
	longestPause  = 30 * time.Second
	steadyAfter   = time.Minute // a link that held so long begins its pauses anew
	maxSnapshot   = 64 << 20    // bytes
	watchBuffered = 64 << 10
)

// link is the connection to one hive, made again whenever it breaks.
type link struct {
	registry *registry
	hive     config.Hive
	stop     context.CancelFunc

	mu       sync.Mutex
	host     *heldHost // nil while there is no connection
	door     *door     // nil while the daemon does not answer
	problem  *operations.Error
	seen     time.Time
	snapshot *operations.HiveSnapshot
	failed   bool // it was tried, and could not be reached
}

func newLink(r *registry, h config.Hive) *link { return &link{registry: r, hive: h} }

// run keeps the link until ctx ends.
func (l *link) run(ctx context.Context) {
	pauses := newPauses()
	for {
		start := time.Now()
		err := l.stay(ctx)
		if ctx.Err() != nil {
			return
		}
		l.lost(err)
		if time.Since(start) > steadyAfter {
			pauses.Reset()
		}
		if !sleep(ctx, pauses.NextBackOff()) {
			return
		}
	}
}

// lost notes why the link is gone.
func (l *link) lost(err error) {
	var e *operations.Error
	if !errors.As(asError(err), &e) {
		return
	}
	l.mu.Lock()
	news := l.problem == nil || l.problem.Message != e.Message
	l.problem, l.failed = e, true
	l.mu.Unlock()
	if news {
		l.registry.log.Warn("a hive is away", "hive", l.hive.Alias, "error", e.Message)
	}
	l.registry.news()
}

// stay connects and listens until the connection breaks. A daemon that goes, as
// for an upgrade, is waited for in the same connection, which others may be using.
func (l *link) stay(ctx context.Context) error {
	opening, opened := context.WithTimeoutCause(ctx, doorTimeout, fmt.Errorf("no connection within %s", doorTimeout))
	defer opened()
	host, err := l.registry.queen.dial(opening, l.hive)
	if err != nil {
		return unreachable(l.hive.Alias, err)
	}
	held := &heldHost{Host: host}
	l.set(func() { l.host = held })
	defer func() {
		l.set(func() { l.host, l.door = nil, nil })
		held.drop()
	}()
	pauses := newPauses()
	for {
		start := time.Now()
		err := l.listen(ctx, host)
		l.set(func() { l.door = nil })
		if e := (*operations.Error)(nil); ctx.Err() != nil || errors.As(err, &e) && e.Code == operations.CodeUnreachable && e.Reason != reasonDaemon {
			return err
		}
		l.lost(err)
		if time.Since(start) > steadyAfter {
			pauses.Reset()
		}
		if !sleep(ctx, pauses.NextBackOff()) {
			return ctx.Err()
		}
	}
}

// listen finds the daemon and listens until it goes.
func (l *link) listen(ctx context.Context, host pkgmgr.Host) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	finding, found := context.WithTimeoutCause(ctx, doorTimeout, fmt.Errorf("no answer within %s", doorTimeout))
	defer found()
	d, err := l.registry.queen.through(finding, l.hive, host)
	if err != nil {
		return err
	}
	defer d.client.HTTP.CloseIdleConnections()
	return l.watch(ctx, cancel, d)
}

// newPauses returns the pauses between tries. They are random, so that not all who wait
// come at once.
func newPauses() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: firstPause, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: longestPause}
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

// watch reads what the hive says of itself.
func (l *link) watch(ctx context.Context, cancel context.CancelCauseFunc, d *door) error {
	silent := time.AfterFunc(offlineAfter, func() { cancel(fmt.Errorf("not a word for %s", offlineAfter)) })
	defer silent.Stop()
	fail := func(err error) error {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause
		}
		return d.explain(&operations.Error{Code: operations.CodeUnreachable, Reason: reasonDaemon, Message: "listening to the hive: " + err.Error(), Err: err})
	}
	resp, err := d.watch(ctx)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, watchBuffered)
	for {
		line, err := readLine(lines, maxSnapshot)
		if err != nil {
			return fail(err)
		}
		silent.Reset(offlineAfter)
		s, err := readSnapshot(line, l.hive.Alias)
		if err != nil {
			return err
		}
		l.heard(d, s)
	}
}

// readLine reads a line of at most limit bytes.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimRight(line, "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			if errors.Is(err, io.EOF) {
				err = errors.New("it hung up")
			}
			return nil, err
		case len(line) > limit:
			return nil, fmt.Errorf("a line of more than %d bytes", limit)
		}
	}
}

// heard notes a sign of life, with what was said, if anything.
func (l *link) heard(d *door, s *operations.HiveSnapshot) {
	l.mu.Lock()
	back := l.door == nil
	l.door, l.seen, l.problem = d, time.Now().UTC(), nil
	if s != nil {
		l.snapshot = s
	}
	l.mu.Unlock()
	if s != nil {
		l.registry.queen.traffic.heard(l.hive.Alias, s.Workers)
	}
	if back {
		l.registry.log.Info("a hive is here", "hive", l.hive.Alias)
	}
	if back || s != nil {
		l.registry.news()
	}
}

func (l *link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
}

// tried reports whether it is known by now how the hive is.
func (l *link) tried() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed || l.snapshot != nil
}

// lendHost lends the connection; nil while there is none.
func (l *link) lendHost() pkgmgr.Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.host == nil {
		return nil
	}
	lent := l.host.lend()
	if l.door == nil {
		return lent
	}
	return &tellingHost{lent, l.door.client}
}

// lendDoor lends the way to the daemon; nil while there is none.
func (l *link) lendDoor() *door {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.door == nil || l.host == nil {
		return nil
	}
	d := *l.door
	d.host, d.shared = l.host.lend(), true
	return &d
}

// unknown reports whether the daemon may be there without having been heard: the
// machine was not tried yet, or can be reached.
func (l *link) unknown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.door == nil && (l.host != nil || !l.failed)
}

// trouble is why the hive is away; nil if it is not.
func (l *link) trouble() *operations.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.door != nil && time.Since(l.seen) < offlineAfter {
		return nil
	}
	if l.problem != nil {
		return l.problem
	}
	return &operations.Error{Code: operations.CodeUnreachable, Hive: l.hive.Alias, Message: "the hive has not been heard yet"}
}

// view is what is known of the hive at a time.
func (l *link) view(now time.Time) operations.HiveView {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := operations.HiveView{
		Alias: l.hive.Alias, Hostname: l.hive.Hostname, Labels: l.hive.Labels, Link: operations.LinkConnecting,
		SeenAt: l.seen, Snapshot: l.snapshot,
	}
	if l.problem != nil {
		v.Problem = l.problem.Message
	}
	age := now.Sub(l.seen)
	switch {
	case l.door != nil && age < staleAfter:
		v.Link = operations.LinkOnline
	case l.door != nil && age < offlineAfter:
		v.Link, v.Problem = operations.LinkStale, fmt.Sprintf("not heard for %s", age.Round(time.Second))
	case l.door != nil || l.failed || !l.seen.IsZero():
		v.Link = operations.LinkOffline
	}
	return v
}
