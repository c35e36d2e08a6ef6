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

// keepAliveRequest is the name of OpenSSH's request for a sign of life (PROTOCOL, section 2). Every server answers it, if
// only to say that it does not know it.
const keepAliveRequest = "keepalive@openssh.com"

// Client is one connection to a host. All methods are safe for concurrent use. A connection carries many commands at
// once; where the host allows fewer sessions (MaxSessions in sshd_config(5), usually 10), further ones wait for a free one.
type Client struct {
	// goph's client carries the connection and its sessions, and nothing more of goph is used: its Dial takes no
	// connection through a proxy or a jump host, a key's algorithms and the time for a prompt cannot be set, its Cmd
	// joins arguments without quoting them, and its transfers need SFTP, which not every host has.
	ssh    *goph.Client
	link   *link
	target string
	done   chan struct{} // closed when the connection has ended

	mu      sync.Mutex
	cause   error         // why it ended
	opening int           // sessions that the host is being asked for
	running int           // open sessions
	ended   int           // sessions that have ended
	changed chan struct{} // closed and replaced when one of the three changes
}

var errClosed = errors.New("the connection was closed on this side")

func newClient(g *goph.Client, l *link, r sshconfig.Settings, keepAlive time.Duration) *Client {
	c := &Client{ssh: g, link: l, target: r.Address(), done: make(chan struct{}), changed: make(chan struct{})}
	go func() {
		err := g.Wait()
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("the host closed the connection")
		}
		c.end(err)
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

// closeLimit bounds how long closing may take: a connection through a jump host that does not answer cannot say goodbye.
const closeLimit = time.Second

// end closes the connection. The first cause is kept.
func (c *Client) end(cause error) {
	c.mu.Lock()
	first := c.cause == nil
	if first {
		c.cause = cause
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
	case <-time.After(closeLimit):
	}
}

// Close closes the connection: commands that are running lose it. It never fails.
func (c *Client) Close() error {
	c.end(errClosed)
	return nil
}

// Done is closed when the connection has ended, whatever the reason.
func (c *Client) Done() <-chan struct{} { return c.done }

// Wait waits for the connection's end and says why it came: nil after Close, else an [*Error] with reason "lost".
func (c *Client) Wait() error {
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.cause, errClosed) {
		return nil
	}
	return &Error{Op: "connection to", Target: c.target, Reason: ReasonLost, Err: c.cause}
}

// Target is the resolved user@host:port.
func (c *Client) Target() string { return c.target }

// keepAlive asks for a sign of life whenever nothing has come in for the interval, and gives up after some intervals
// without any.
func (c *Client) keepAlive(interval time.Duration, limit int) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	answered := make(chan struct{}, 1)
	waiting, missed := false, 0
	for {
		select {
		case <-c.done:
			return
		case <-answered:
			waiting, missed = false, 0
		case now := <-tick.C:
			if now.Sub(time.Unix(0, c.link.last.Load())) < interval {
				missed = 0
				continue
			}
			if waiting {
				if missed++; missed >= limit {
					c.end(fmt.Errorf("no sign of life for %s: %d keepalive answers are missing", time.Duration(missed)*interval, missed))
					return
				}
				continue
			}
			waiting = true
			go func() {
				// A refusal is an answer, too. A broken connection ends the loop by itself.
				if _, _, err := c.ssh.SendRequest(keepAliveRequest, true, nil); err == nil {
					answered <- struct{}{}
				}
			}()
		}
	}
}

// lost waits a moment for the connection's end and gives its cause, or nil when the connection is alive.
func (c *Client) lost(ctx context.Context) error {
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
	return c.cause
}

// fail makes an operation's error. A dead connection's cause explains more than what the operation has seen of it, which
// can be anything; only a channel that was refused proves a live connection.
func (c *Client) fail(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		return &Error{Op: op, Target: c.target, Reason: classify(ctx.Err()), Err: ctx.Err()}
	}
	var refused *ssh.OpenChannelError
	if !errors.As(err, &refused) {
		if cause := c.lost(ctx); cause != nil {
			return &Error{Op: op, Target: c.target, Reason: ReasonLost, Err: cause}
		}
	}
	return &Error{Op: op, Target: c.target, Reason: classify(err), Err: err}
}

// newSession opens a session. When the host refuses one more while this connection has others, it waits until one of
// them has ended. When it has none, it tries once more: sshd frees the sessions whose end it has read only after
// all else that it has read by then, such as this wish, but before it answers (channel_garbage_collect in OpenSSH's
// channels.c).
func (c *Client) newSession(ctx context.Context) (*ssh.Session, error) {
	for again := true; ; {
		c.mu.Lock()
		ended := c.ended
		c.opening++
		c.mu.Unlock()
		s, err := c.ssh.NewSession()
		c.mu.Lock()
		c.opening--
		if err == nil {
			c.running++
		}
		c.tellWaiters()
		c.mu.Unlock()
		var refused *ssh.OpenChannelError
		if err == nil || !errors.As(err, &refused) {
			return s, err
		}
		if waitErr := c.waitEnded(ctx, ended); waitErr != nil {
			if !errors.Is(waitErr, errNoneRunning) {
				return nil, waitErr
			}
			if !again {
				return nil, err
			}
			again = false
		}
	}
}

var errNoneRunning = errors.New("no other session is running")

// waitEnded waits until more sessions than the given number have ended.
func (c *Client) waitEnded(ctx context.Context, than int) error {
	for {
		c.mu.Lock()
		enough, none, changed := c.ended > than, c.running+c.opening == 0, c.changed
		c.mu.Unlock()
		switch {
		case enough:
			return nil
		case none:
			return errNoneRunning
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

// tellWaiters wakes all waitEnded calls. c.mu is held.
func (c *Client) tellWaiters() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// sessionEnded lets waiting sessions try again.
func (c *Client) sessionEnded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	c.ended++
	c.tellWaiters()
}

// Dial connects to an address as seen from the host: "tcp" with host:port, or "unix" with a path. Deadlines and
// CloseWrite work on the connection. When ctx ends, Dial gives up; the connection does not depend on ctx afterwards.
func (c *Client) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.ssh.DialContext(ctx, network, address)
	if err != nil {
		return nil, c.fail(ctx, "forward "+address, err)
	}
	return newForward(conn), nil
}
