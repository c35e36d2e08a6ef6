package sshtest

import (
	"net"
	"time"
)

// delayLine holds every piece of data back for the same time.
type delayLine struct {
	delay  time.Duration
	ready  time.Time // nothing passes earlier
	pieces chan piece
	rest   []byte // of the last piece read
	err    error  // why there are no more pieces
}

type piece struct {
	data []byte
	due  time.Time
	err  error
}

// linePieces is how many pieces (of at most 32 KiB) are under way at once. It is more than SSH's windows let through.
const linePieces = 1024

func newDelayLine(delay, first time.Duration) *delayLine {
	return &delayLine{delay: delay, ready: time.Now().Add(first + delay), pieces: make(chan piece, linePieces)}
}

// put sends a piece on its way.
func (d *delayLine) put(p piece, closed <-chan struct{}) bool {
	p.due = time.Now().Add(d.delay)
	if p.due.Before(d.ready) {
		p.due = d.ready
	}
	select {
	case d.pieces <- p:
		return true
	case <-closed:
		return false
	}
}

// take waits for the next piece to arrive.
func (d *delayLine) take(closed <-chan struct{}) (piece, bool) {
	select {
	case p := <-d.pieces:
		timer := time.NewTimer(time.Until(p.due))
		defer timer.Stop()
		select {
		case <-timer.C:
			return p, true
		case <-closed:
		}
	case <-closed:
	}
	return piece{}, false
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
	if !d.put(piece{data: append([]byte(nil), p...)}, closed) {
		return 0, net.ErrClosed
	}
	return len(p), nil
}

// pump moves data between the line and the socket until either ends: from reads into the line, to is given what arrives.
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
		if !d.put(piece{data: buf[:n], err: err}, closed) || err != nil {
			return
		}
	}
}
