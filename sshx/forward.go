package sshx

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// forwardFlushTimeout limits the time to deliver data that was written before Close.
const forwardFlushTimeout = 10 * time.Second

// forward is a connection through an SSH channel. SSH channels do not support deadlines, so each direction uses a pipe with
// deadlines.
type forward struct {
	read, write  net.Conn // the pipe ends of the caller
	channel      net.Conn
	flushed      chan struct{} // closed when all written data has been sent to the channel
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
			f.closeBoth()
		}
	}()
	return f
}

func (f *forward) closeBoth() { f.closeChannel.Do(func() { f.channel.Close() }) }

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

// CloseWrite sends EOF. The connection remains open for reading.
func (f *forward) CloseWrite() error { return f.write.Close() }

// Close closes the connection. Data that was already written is delivered in the background.
func (f *forward) Close() error {
	f.write.Close()
	f.read.Close()
	go func() {
		select {
		case <-f.flushed:
		case <-time.After(forwardFlushTimeout):
		}
		f.closeBoth()
	}()
	return nil
}

func (f *forward) LocalAddr() net.Addr                { return f.channel.LocalAddr() }
func (f *forward) RemoteAddr() net.Addr               { return f.channel.RemoteAddr() }
func (f *forward) SetReadDeadline(t time.Time) error  { return f.read.SetReadDeadline(t) }
func (f *forward) SetWriteDeadline(t time.Time) error { return f.write.SetWriteDeadline(t) }

// SetDeadline sets the read and write deadlines.
func (f *forward) SetDeadline(t time.Time) error {
	return errors.Join(f.SetReadDeadline(t), f.SetWriteDeadline(t))
}
