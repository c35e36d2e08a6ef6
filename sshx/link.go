package sshx

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee/sshx/internal/stdio"
	"github.com/rbee-keeper/rbee/sshx/internal/tcp"
)

// link is a connection's byte stream. It knows when something last came in, and how the stream began.
type link struct {
	net.Conn
	raw  syscall.RawConn // nil unless TCP on Linux
	last atomic.Int64    // time of the last read, in nanoseconds since 1970

	mu   sync.Mutex
	head []byte // the stream's first bytes
	full bool   // head has all that it needs
}

// headSize is more than OpenSSH's longest greeting or refusal.
const headSize = 256

func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.last.Store(time.Now().UnixNano())
		tcp.QuickAck(l.raw)
		if !l.full { // only one goroutine reads
			l.keepHead(p[:n])
		}
	}
	return n, err
}

func (l *link) keepHead(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head = append(l.head, p[:min(len(p), headSize-len(l.head))]...)
	l.full = len(l.head) == headSize || bytes.IndexByte(l.head, '\n') >= 0
}

func (l *link) firstLine() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	line, _, _ := bytes.Cut(l.head, []byte("\n"))
	return strings.TrimSpace(string(line))
}

// commandConn is the connection that a ProxyCommand makes: its standard input and output.
type commandConn struct {
	cmd   *exec.Cmd
	in    *os.File // what we write
	out   *os.File // what we read
	err   *stdio.Tail
	once  sync.Once
	ended chan struct{} // closed when the command has ended after Close
}

func startCommandConn(command string) (*commandConn, error) {
	inRead, inWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outRead, outWrite, err := os.Pipe()
	if err != nil {
		inRead.Close()
		inWrite.Close()
		return nil, err
	}
	c := &commandConn{in: inWrite, out: outRead, err: &stdio.Tail{}, ended: make(chan struct{})}
	c.cmd = exec.Command("/bin/sh", "-c", "exec "+command) //nolint:gosec // the user's ProxyCommand, which is a shell command
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = inRead, outWrite, c.err
	ownGroup(c.cmd)
	err = c.cmd.Start()
	inRead.Close()
	outWrite.Close()
	if err != nil {
		inWrite.Close()
		outRead.Close()
		return nil, err
	}
	return c, nil
}

func (c *commandConn) Read(p []byte) (int, error)  { return c.out.Read(p) }
func (c *commandConn) Write(p []byte) (int, error) { return c.in.Write(p) }

// commandGrace is how long a ProxyCommand may take to end by itself once its pipes are closed.
const commandGrace = 200 * time.Millisecond

// Close ends the command: by closing its pipes, and if that does not help, with its whole process group.
func (c *commandConn) Close() error {
	c.once.Do(func() {
		c.in.Close()
		c.out.Close()
		hang := time.AfterFunc(commandGrace, func() { hangUp(c.cmd) })
		go func() {
			endGroup(c.cmd)
			hang.Stop()
			close(c.ended)
		}()
	})
	return nil
}

// verdict is how the command has ended, after Close: whether it failed, and the end of what it wrote to standard error.
func (c *commandConn) verdict() (failed bool, said string) {
	<-c.ended
	return c.cmd.ProcessState.ExitCode() > 0, lastLine(c.err.String())
}

func (c *commandConn) LocalAddr() net.Addr  { return nowhere }
func (c *commandConn) RemoteAddr() net.Addr { return nowhere }
func (c *commandConn) SetDeadline(t time.Time) error {
	return errors.Join(c.out.SetReadDeadline(t), c.in.SetWriteDeadline(t))
}
func (c *commandConn) SetReadDeadline(t time.Time) error  { return c.out.SetReadDeadline(t) }
func (c *commandConn) SetWriteDeadline(t time.Time) error { return c.in.SetWriteDeadline(t) }
