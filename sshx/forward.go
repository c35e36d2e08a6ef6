package sshx

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// closeGrace is how long a closed forward may take to deliver what was written before Close.
const closeGrace = 10 * time.Second

// forward is a connection through an SSH channel. A channel knows no deadlines, so there is a pipe between it and the
// caller for each direction: the pipes do.
type forward struct {
	read, write  net.Conn // the caller's ends
	channel      net.Conn
	flushed      chan struct{} // closed when everything written has gone into the channel
	closeChannel sync.Once
}

func newForward(channel net.Conn) *forward {
	read, fromChannel := net.Pipe()
	write, toChannel := net.Pipe()
	f := &forward{read: read, write: write, channel: channel, flushed: make(chan struct{})}
	go func() {
		_, _ = io.Copy(fromChannel, channel)
		fromChannel.Close()
	}()
	go func() {
		defer close(f.flushed)
		_, err := io.Copy(channel, toChannel)
		toChannel.Close() // the caller's next write fails
		if half, ok := channel.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite()
		} else {
			f.end()
		}
	}()
	return f
}

func (f *forward) end() { f.closeChannel.Do(func() { f.channel.Close() }) }

func (f *forward) Read(p []byte) (int, error) {
	n, err := f.read.Read(p)
	return n, closedPipe(err)
}

func (f *forward) Write(p []byte) (int, error) {
	n, err := f.write.Write(p)
	return n, closedPipe(err)
}

func closedPipe(err error) error {
	if errors.Is(err, io.ErrClosedPipe) {
		return net.ErrClosed
	}
	return err
}

// CloseWrite tells the far side that nothing more will come, and leaves the other direction open.
func (f *forward) CloseWrite() error { return f.write.Close() }

// Close ends both directions. What was written before is delivered first, in the background.
func (f *forward) Close() error {
	f.write.Close()
	f.read.Close()
	go func() {
		select {
		case <-f.flushed:
		case <-time.After(closeGrace):
		}
		f.end()
	}()
	return nil
}

func (f *forward) LocalAddr() net.Addr                { return f.channel.LocalAddr() }
func (f *forward) RemoteAddr() net.Addr               { return f.channel.RemoteAddr() }
func (f *forward) SetReadDeadline(t time.Time) error  { return f.read.SetReadDeadline(t) }
func (f *forward) SetWriteDeadline(t time.Time) error { return f.write.SetWriteDeadline(t) }

// SetDeadline sets both deadlines.
func (f *forward) SetDeadline(t time.Time) error {
	return errors.Join(f.SetReadDeadline(t), f.SetWriteDeadline(t))
}
