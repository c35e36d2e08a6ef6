package sshtest

import (
	"net"
	"sync"
	"time"
)

// faults are the simulated network faults of all connections of a host.
type faults struct {
	mu        sync.Mutex
	cond      *sync.Cond
	isStalled bool
	drop      int           // number of connections to drop immediately
	cutArmed  bool          // CutAfter was called and no connection has been cut yet
	cutAfter  int64         // number of bytes to receive until the cut
	delay     time.Duration // one way
}

func (f *faults) init() { f.cond = sync.NewCond(&f.mu) }

// Cut resets all open connections.
func (h *Host) Cut() {
	h.mu.Lock()
	var conns []*faultConn
	for c := range h.conns {
		conns = append(conns, c)
	}
	h.mu.Unlock()
	for _, c := range conns {
		c.reset()
	}
}

// CutAfter resets a connection when the host has received n more bytes, for example during an upload. Only the connection
// that received the last of these bytes is reset.
func (h *Host) CutAfter(n int64) { h.faults.cutAt(n) }

// Stall makes the host unresponsive if stall is true: connections are accepted and remain open, but no data is read or written.
// Stall(false) makes the host responsive again.
func (h *Host) Stall(stall bool) { h.faults.stall(stall) }

// DropNext closes the next n connections as soon as they are accepted, like sshd above its MaxStartups limit.
func (h *Host) DropNext(n int) {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	h.faults.drop = n
}

// SetLatency sets the round-trip time of new connections. It does not limit the throughput. Connecting takes one additional
// round trip, like a TCP handshake.
func (h *Host) SetLatency(rtt time.Duration) { h.faults.latency(rtt) }

func (f *faults) cutAt(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutArmed, f.cutAfter = true, n
}

func (f *faults) stall(stall bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.isStalled = stall
	f.cond.Broadcast()
}

func (f *faults) latency(rtt time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = rtt / 2
}

// faultConn is the server side of a connection, with the faults of the host.
type faultConn struct {
	net.Conn
	faults *faults
	once   sync.Once
	closed chan struct{}
	in     *delayLine // nil without latency
	out    *delayLine
}

func newFaultConn(conn net.Conn, f *faults) *faultConn {
	c := &faultConn{Conn: conn, faults: f, closed: make(chan struct{})}
	f.mu.Lock()
	delay, drop := f.delay, f.drop > 0
	if drop {
		f.drop--
	}
	f.mu.Unlock()
	if delay > 0 {
		// Delay the first bytes by one additional round trip, like a TCP handshake.
		c.in, c.out = newDelayLine(delay, 2*delay), newDelayLine(delay, 2*delay)
		go c.in.pump(c.rawRead, nil, c.closed)
		go c.out.pump(nil, c.rawWrite, c.closed)
	}
	if drop {
		c.Close()
	}
	return c
}

func (c *faultConn) Read(p []byte) (int, error) {
	if c.in != nil {
		return c.in.read(p, c.closed)
	}
	return c.rawRead(p)
}

func (c *faultConn) Write(p []byte) (int, error) {
	if c.out != nil {
		return c.out.write(p, c.closed)
	}
	return c.rawWrite(p)
}

func (c *faultConn) rawRead(p []byte) (int, error) {
	c.waitStall()
	n, err := c.Conn.Read(p)
	c.waitStall()
	if n > 0 && c.countDown(n) {
		c.reset()
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *faultConn) rawWrite(p []byte) (int, error) {
	c.waitStall()
	return c.Conn.Write(p)
}

// waitStall blocks while the host is stalled.
func (c *faultConn) waitStall() {
	f := c.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.isStalled && !c.isClosed() {
		f.cond.Wait()
	}
}

// countDown counts n received bytes for CutAfter and reports whether to cut the connection now.
func (c *faultConn) countDown(n int) bool {
	f := c.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.cutArmed {
		return false
	}
	f.cutAfter -= int64(n)
	if f.cutAfter > 0 {
		return false
	}
	f.cutArmed = false
	return true
}

func (c *faultConn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// reset closes the connection with a TCP reset.
func (c *faultConn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

// Close closes the connection and wakes the goroutines that are blocked in waitStall.
func (c *faultConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.closed)
		err = c.Conn.Close()
		c.faults.mu.Lock()
		c.faults.cond.Broadcast()
		c.faults.mu.Unlock()
	})
	return err
}
