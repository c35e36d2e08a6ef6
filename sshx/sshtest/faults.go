package sshtest

import (
	"net"
	"sync"
	"time"
)

// faults are what is wrong with a host's line. They hold for all its connections.
type faults struct {
	mu       sync.Mutex
	changed  *sync.Cond
	stalled  bool
	drop     int           // connections to drop at once
	cutArmed bool          // a cut is due
	cutAfter int64         // after so many more received bytes
	delay    time.Duration // one way
}

func (f *faults) init() { f.changed = sync.NewCond(&f.mu) }

// Cut drops every open connection at once, without a goodbye: the other side sees a reset.
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

// CutAfter cuts one connection, the one that brings the n-th received byte from now on: the middle of an upload. It
// happens once.
func (h *Host) CutAfter(n int64) { h.faults.cutAt(n) }

// Stall makes the host silent: connections are accepted and stay open, but nothing is read or answered. Stall(false) lets
// everything go on.
func (h *Host) Stall(stall bool) { h.faults.stall(stall) }

// DropNext closes the next n connections as soon as they come, as sshd does beyond MaxStartups.
func (h *Host) DropNext(n int) {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	h.faults.drop = n
}

// Latency adds a round-trip time to connections made from now on. Bytes are delayed as on a long line: many can be under
// way, so that throughput stays. Connecting takes one more round trip, like TCP's handshake.
func (h *Host) Latency(rtt time.Duration) { h.faults.latency(rtt) }

func (f *faults) cutAt(n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutArmed, f.cutAfter = true, n
}

func (f *faults) stall(stall bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stalled = stall
	f.changed.Broadcast()
}

func (f *faults) latency(rtt time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay = rtt / 2
}

// faultConn is the host's end of a connection, with the host's faults.
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
		// The first bytes come one round trip later: TCP's handshake.
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

// waitStall blocks while the host is silent.
func (c *faultConn) waitStall() {
	f := c.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.stalled && !c.isClosed() {
		f.changed.Wait()
	}
}

// countDown tells whether the cut is due.
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

// reset closes the connection so that the other side sees a reset.
func (c *faultConn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

// Close closes the connection and wakes whoever waits for the end of a stall.
func (c *faultConn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.closed)
		err = c.Conn.Close()
		c.faults.mu.Lock()
		c.faults.changed.Broadcast()
		c.faults.mu.Unlock()
	})
	return err
}
