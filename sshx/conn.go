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

// link is the byte stream of a connection. It records the time of the last read and the start of the stream.
type link struct {
	net.Conn
	raw  syscall.RawConn // nil except for TCP on Linux
	last atomic.Int64    // time of the last read, in nanoseconds since 1970

	mu   sync.Mutex
	head []byte // the first bytes of the stream
	full bool   // head is complete
}

// headSize is larger than the longest version string or error message of OpenSSH.
const headSize = 256

func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if n > 0 {
		l.last.Store(time.Now().UnixNano())
		tcp.QuickAck(l.raw)
		if !l.full { // only one goroutine reads
			l.recordHead(p[:n])
		}
	}
	return n, err
}

func (l *link) recordHead(p []byte) {
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

// commandConn is a connection through a ProxyCommand, over its standard input and output.
type commandConn struct {
	cmd    *exec.Cmd
	in     *os.File // standard input of the command
	out    *os.File // standard output of the command
	err    *stdio.Tail
	once   sync.Once
	exited chan struct{} // closed when the command has ended after Close
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
	c := &commandConn{in: inWrite, out: outRead, err: &stdio.Tail{}, exited: make(chan struct{})}
	c.cmd = exec.Command("/bin/sh", "-c", "exec "+command) //nolint:gosec // the user's ProxyCommand, which is a shell command
	c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = inRead, outWrite, c.err
	setProcessGroup(c.cmd)
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

// commandGracePeriod is the time for a ProxyCommand to exit after its pipes are closed.
const commandGracePeriod = 200 * time.Millisecond

// Close closes the pipes of the command. If it does not exit, Close sends SIGHUP and then SIGKILL to its process group.
func (c *commandConn) Close() error {
	c.once.Do(func() {
		c.in.Close()
		c.out.Close()
		timer := time.AfterFunc(commandGracePeriod, func() { hangUpGroup(c.cmd) })
		go func() {
			waitOrKillGroup(c.cmd)
			timer.Stop()
			close(c.exited)
		}()
	})
	return nil
}

// exitResult waits for the command to exit after Close. It reports whether the command failed, and returns the last line of
// its standard error.
func (c *commandConn) exitResult() (failed bool, stderr string) {
	<-c.exited
	return c.cmd.ProcessState.ExitCode() > 0, lastLine(c.err.String())
}

func (c *commandConn) LocalAddr() net.Addr  { return anyAddr }
func (c *commandConn) RemoteAddr() net.Addr { return anyAddr }
func (c *commandConn) SetDeadline(t time.Time) error {
	return errors.Join(c.out.SetReadDeadline(t), c.in.SetWriteDeadline(t))
}
func (c *commandConn) SetReadDeadline(t time.Time) error  { return c.out.SetReadDeadline(t) }
func (c *commandConn) SetWriteDeadline(t time.Time) error { return c.in.SetWriteDeadline(t) }
