package sshtest

import (
	"net"
	"time"
)

// delayLine delays data by a constant time.
type delayLine struct {
	delay   time.Duration
	ready   time.Time // time of the earliest delivery
	packets chan packet
	rest    []byte // unread data of the last packet
	err     error  // error of the last packet
}

type packet struct {
	data []byte
	due  time.Time
	err  error
}

// maxPackets limits the number of packets in flight. With up to 32 KiB each, they can exceed the window size of SSH.
const maxPackets = 1024

func newDelayLine(delay, first time.Duration) *delayLine {
	return &delayLine{delay: delay, ready: time.Now().Add(first + delay), packets: make(chan packet, maxPackets)}
}

// put queues a packet. It returns false if closed is closed.
func (d *delayLine) put(p packet, closed <-chan struct{}) bool {
	p.due = time.Now().Add(d.delay)
	if p.due.Before(d.ready) {
		p.due = d.ready
	}
	select {
	case d.packets <- p:
		return true
	case <-closed:
		return false
	}
}

// take waits until the next packet is due. It returns false if closed is closed.
func (d *delayLine) take(closed <-chan struct{}) (packet, bool) {
	select {
	case p := <-d.packets:
		timer := time.NewTimer(time.Until(p.due))
		defer timer.Stop()
		select {
		case <-timer.C:
			return p, true
		case <-closed:
		}
	case <-closed:
	}
	return packet{}, false
}

func (d *delayLine) read(p []byte, closed <-chan struct{}) (int, error) {
	for len(d.rest) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		next, ok := d.take(closed)
		if !ok {
			return 0, net.ErrClosed
		}
		d.rest, d.err = next.data, next.err
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	return n, nil
}

func (d *delayLine) write(p []byte, closed <-chan struct{}) (int, error) {
	if !d.put(packet{data: append([]byte(nil), p...)}, closed) {
		return 0, net.ErrClosed
	}
	return len(p), nil
}

// pump copies data between the line and a socket until either is closed. If to is nil, it copies from the socket to the line
// with from; otherwise it copies from the line to the socket with to.
func (d *delayLine) pump(from, to func([]byte) (int, error), closed <-chan struct{}) {
	for {
		if to != nil {
			p, ok := d.take(closed)
			if !ok {
				return
			}
			if _, err := to(p.data); err != nil {
				return
			}
			continue
		}
		buf := make([]byte, 32<<10)
		n, err := from(buf)
		if !d.put(packet{data: buf[:n], err: err}, closed) || err != nil {
			return
		}
	}
}
