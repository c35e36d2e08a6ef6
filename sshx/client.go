package sshx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/melbahja/goph"
	"github.com/rbee-keeper/rbee/sshx/sshconfig"
	"golang.org/x/crypto/ssh"
)

// keepAliveRequest is the name of OpenSSH's keepalive request (section 2 of its file PROTOCOL). A server that does not know
// the request responds with a failure, which also shows that the connection works.
const keepAliveRequest = "keepalive@openssh.com"

// Client is a connection to a host. All methods are safe for concurrent use. Commands run concurrently, up to the limit
// of the host (MaxSessions in sshd_config(5), by default 10); further commands wait.
type Client struct {
	// Only the connection and session types of goph are used. goph.Dial does not support proxies, jump hosts, host key
	// algorithms and timeouts that exclude prompts; goph.Cmd does not quote arguments; and the file transfers of goph
	// require SFTP, which some hosts do not have.
	ssh    *goph.Client
	link   *link
	target string
	done   chan struct{} // closed when the connection has ended

	mu              sync.Mutex
	endCause        error         // set before done is closed
	openingSessions int           // sessions being opened
	runningSessions int           // open sessions
	endedSessions   int           // ended sessions, in total
	sessionsChanged chan struct{} // closed and replaced when a counter changes
}

var errClosed = errors.New("connection closed by this side")

func newClient(g *goph.Client, l *link, r sshconfig.Settings, keepAlive time.Duration) *Client {
	c := &Client{ssh: g, link: l, target: r.Address(), done: make(chan struct{}), sessionsChanged: make(chan struct{})}
	go func() {
		err := g.Wait()
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("connection closed by the host")
		}
		c.shutdown(err)
	}()
	if keepAlive == 0 {
		keepAlive = r.KeepAlive
	}
	if keepAlive == 0 {
		keepAlive = defaultKeepAlive
	}
	if keepAlive > 0 {
		go c.keepAlive(keepAlive, max(r.KeepAliveCountMax, 1))
	}
	return c
}

// closeTimeout limits the time to close a connection. A connection through an unresponsive jump host cannot be closed cleanly.
const closeTimeout = time.Second

// shutdown closes the connection. Only the cause of the first call is recorded.
func (c *Client) shutdown(cause error) {
	c.mu.Lock()
	first := c.endCause == nil
	if first {
		c.endCause = cause
		close(c.done)
	}
	c.mu.Unlock()
	if !first {
		return
	}
	closed := make(chan struct{})
	go func() {
		c.ssh.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closeTimeout):
	}
}

// Close closes the connection. Running commands return an error with [ReasonLost]. Close always returns nil.
func (c *Client) Close() error {
	c.shutdown(errClosed)
	return nil
}

// Done returns a channel that is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Wait waits until the connection has ended. It returns nil after Close, and an [*Error] with [ReasonLost] otherwise.
func (c *Client) Wait() error {
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.endCause, errClosed) {
		return nil
	}
	return &Error{Op: "connection to", Target: c.target, Reason: ReasonLost, Err: c.endCause}
}

// Target returns the resolved user@host:port.
func (c *Client) Target() string { return c.target }

// keepAlive sends a keepalive request after each interval without received data. It shuts the connection down after limit
// intervals without a response.
func (c *Client) keepAlive(interval time.Duration, limit int) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	replies := make(chan struct{}, 1)
	waiting, missed := false, 0
	for {
		select {
		case <-c.done:
			return
		case <-replies:
			waiting, missed = false, 0
		case now := <-tick.C:
			if now.Sub(time.Unix(0, c.link.last.Load())) < interval {
				missed = 0
				continue
			}
			if waiting {
				if missed++; missed >= limit {
					c.shutdown(fmt.Errorf("no data received for %s: %d keepalive requests without a response", time.Duration(missed)*interval, missed))
					return
				}
				continue
			}
			waiting = true
			go func() {
				// A failure reply also shows that the host is alive. If the connection is broken, c.done ends the loop.
				if _, _, err := c.ssh.SendRequest(keepAliveRequest, true, nil); err == nil {
					replies <- struct{}{}
				}
			}()
		}
	}
}

// checkAlive sends a keepalive request. It returns nil if the host responds, or the reason why the connection has ended.
func (c *Client) checkAlive(ctx context.Context) error {
	alive := make(chan bool, 1)
	go func() {
		_, _, err := c.ssh.SendRequest(keepAliveRequest, true, nil)
		alive <- err == nil
	}()
	select {
	case ok := <-alive:
		if ok {
			return nil
		}
		<-c.done
	case <-c.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endCause
}

// opError returns the error of an operation. If the connection has ended, the error contains the reason, which is more
// specific than err. A rejected channel proves that the connection is alive.
func (c *Client) opError(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return &Error{Op: op, Target: c.target, Reason: classify(ctx.Err()), Err: ctx.Err()}
	}
	var rejected *ssh.OpenChannelError
	if !errors.As(err, &rejected) {
		if cause := c.checkAlive(ctx); cause != nil {
			return &Error{Op: op, Target: c.target, Reason: ReasonLost, Err: cause}
		}
	}
	return &Error{Op: op, Target: c.target, Reason: classify(err), Err: err}
}

// newSession opens a session. If the host rejects it while this connection has other sessions, newSession waits until one
// of them has ended. If the connection has no other session, newSession retries once: sshd frees ended sessions only after it
// has processed all requests that it has already read, including this one, but before it replies (channel_garbage_collect in
// OpenSSH's channels.c).
func (c *Client) newSession(ctx context.Context) (*ssh.Session, error) {
	for retry := true; ; {
		c.mu.Lock()
		ended := c.endedSessions
		c.openingSessions++
		c.mu.Unlock()
		s, err := c.ssh.NewSession()
		c.mu.Lock()
		c.openingSessions--
		if err == nil {
			c.runningSessions++
		}
		c.notifyWaiters()
		c.mu.Unlock()
		var rejected *ssh.OpenChannelError
		if err == nil || !errors.As(err, &rejected) {
			return s, err
		}
		if waitErr := c.waitSessionEnd(ctx, ended); waitErr != nil {
			if !errors.Is(waitErr, errNoOtherSession) {
				return nil, waitErr
			}
			if !retry {
				return nil, err
			}
			retry = false
		}
	}
}

var errNoOtherSession = errors.New("no other session is running")

// waitSessionEnd waits until more than n sessions have ended in total.
func (c *Client) waitSessionEnd(ctx context.Context, n int) error {
	for {
		c.mu.Lock()
		enough, none, changed := c.endedSessions > n, c.runningSessions+c.openingSessions == 0, c.sessionsChanged
		c.mu.Unlock()
		switch {
		case enough:
			return nil
		case none:
			return errNoOtherSession
		}
		select {
		case <-changed:
		case <-c.done:
			return io.EOF
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// notifyWaiters wakes all waitSessionEnd calls. The caller holds c.mu.
func (c *Client) notifyWaiters() {
	close(c.sessionsChanged)
	c.sessionsChanged = make(chan struct{})
}

// releaseSession counts the end of a session and wakes waiting calls of newSession.
func (c *Client) releaseSession() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runningSessions--
	c.endedSessions++
	c.notifyWaiters()
}

// Dial connects from the host to an address. network is "tcp" and address is host:port, or network is "unix" and address is a
// path. The connection supports deadlines and has a CloseWrite method. ctx applies only until Dial returns.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.ssh.DialContext(ctx, network, address)
	if err != nil {
		return nil, c.opError(ctx, "forward "+address, err)
	}
	return newForward(conn), nil
}
