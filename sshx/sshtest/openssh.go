package sshtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee/sshx/internal/tcp"
	"golang.org/x/crypto/ssh"
)

// ErrNoOpenSSH is returned by [OpenSSH] if this machine has no sshd.
var ErrNoOpenSSH = errors.New("sshtest: sshd is not installed")

// RequireOpenSSH reports whether RBEE_TEST_REQUIRE_SSHD=1 is set. If it is set and sshd is not installed, tests must fail
// instead of being skipped.
func RequireOpenSSH() bool { return os.Getenv("RBEE_TEST_REQUIRE_SSHD") == "1" }

// OpenSSHHost is an SSH host on a port of 127.0.0.1 that runs the sshd of this machine, one process per connection. It has a
// separate configuration, host keys (ed25519 and ecdsa) and home directory. Connections pass through this process, so that it
// can simulate faults. All methods are safe for concurrent use.
type OpenSSHHost struct {
	program  string
	dir      string
	home     string
	user     string
	keys     []ssh.PublicKey
	listener net.Listener
	faults   faults
	serving  sync.WaitGroup

	mu     sync.Mutex
	conns  map[*faultConn]bool
	closed bool
}

// OpenSSH starts an OpenSSHHost. It creates the configuration in dir, and also the home directory if o.Home is empty. It uses
// the options Home, Env, Shell, AuthorizedKeys, Banner, StartupOutput, NoForward and MaxSessions. The account is the current
// user. The error is [ErrNoOpenSSH] if sshd is not installed.
//
// The environment of a command is set by a forced command. sshd does not forward signals to forced commands.
func OpenSSH(dir string, o Options) (*OpenSSHHost, error) {
	program, err := findSSHD()
	if err != nil {
		return nil, err
	}
	if o.Home == "" {
		o.Home = filepath.Join(dir, "home")
	}
	h := &OpenSSHHost{program: program, user: currentUser(), conns: map[*faultConn]bool{}}
	h.faults.init()
	if h.dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if h.home, _, err = prepareHome(o.Home); err != nil {
		return nil, err
	}
	if err := h.configure(o); err != nil {
		return nil, err
	}
	if h.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	h.serving.Add(1)
	go h.accept()
	return h, nil
}

// findSSHD returns the absolute path of sshd. sshd does not start if its path is relative.
func findSSHD() (string, error) {
	if path, err := exec.LookPath("sshd"); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, "sshd")); err == nil {
			return path, nil
		}
	}
	return "", ErrNoOpenSSH
}

// Addr returns the address of the host, 127.0.0.1:port.
func (h *OpenSSHHost) Addr() string { return h.listener.Addr().String() }

// Port returns the port of the host.
func (h *OpenSSHHost) Port() int { return portOf(h.Addr()) }

// Home returns the path of the home directory, without symbolic links.
func (h *OpenSSHHost) Home() string { return h.home }

// User returns the name of the account, which is the current user.
func (h *OpenSSHHost) User() string { return h.user }

// HostKeys returns the public host keys.
func (h *OpenSSHHost) HostKeys() []ssh.PublicKey { return h.keys }

// KnownHostsLines returns the known_hosts lines for this host, each with a newline.
func (h *OpenSSHHost) KnownHostsLines() string { return knownHostsLines(h.Addr(), h.keys) }

// Log returns the log of the sshd processes.
func (h *OpenSSHHost) Log() string {
	text, err := os.ReadFile(h.file("log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Cut resets all open connections.
func (h *OpenSSHHost) Cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		c.reset()
	}
}

// CutAfter works like [Host.CutAfter].
func (h *OpenSSHHost) CutAfter(n int64) { h.faults.cutAt(n) }

// Stall works like [Host.Stall].
func (h *OpenSSHHost) Stall(stall bool) { h.faults.stall(stall) }

// SetLatency works like [Host.SetLatency].
func (h *OpenSSHHost) SetLatency(rtt time.Duration) { h.faults.latency(rtt) }

// Close closes all connections and waits for their sshd processes to exit. Running commands get EOF on standard input.
func (h *OpenSSHHost) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.listener.Close()
	h.Cut()
	h.serving.Wait()
	return nil
}

func (h *OpenSSHHost) accept() {
	defer h.serving.Done()
	for {
		conn, err := h.listener.Accept()
		if err != nil {
			return
		}
		fc := newFaultConn(conn, &h.faults)
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			fc.Close()
			return
		}
		h.conns[fc] = true
		h.serving.Add(1)
		h.mu.Unlock()
		go func() {
			defer h.serving.Done()
			if err := h.serve(fc); err != nil {
				h.logf("sshtest: %v\n", err)
			}
			fc.Close()
			h.mu.Lock()
			delete(h.conns, fc)
			h.mu.Unlock()
		}()
	}
}

func (h *OpenSSHHost) logf(format string, args ...any) {
	if f, err := os.OpenFile(h.file("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		fmt.Fprintf(f, format, args...)
		f.Close()
	}
}

// serve runs sshd in inetd mode (-i in sshd(8)) on one end of a loopback connection, and copies data between the other end and
// the client.
func (h *OpenSSHHost) serve(client net.Conn) error {
	local, remote, err := tcpPair()
	if err != nil {
		return err
	}
	defer local.Close()
	socket, err := remote.File()
	remote.Close()
	if err != nil {
		return err
	}
	cmd := exec.Command(h.program, "-i", "-f", h.file("sshd_config"), "-E", h.file("log"))
	cmd.Stdin, cmd.Stdout = socket, socket
	err = cmd.Start()
	socket.Close()
	if err != nil {
		return err
	}
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(local, client)
		local.Close()
	})
	both.Go(func() {
		io.Copy(client, quickAckReader{local, tcp.Raw(local)})
		client.Close()
	})
	both.Wait()
	kill := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
	defer kill.Stop()
	cmd.Wait() // the exit status only depends on how the connection ended
	return nil
}

// quickAckReader disables delayed acknowledgments, which sshd's Nagle algorithm would wait for.
type quickAckReader struct {
	io.Reader
	raw syscall.RawConn
}

func (r quickAckReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	tcp.QuickAck(r.raw)
	return n, err
}

// tcpPair returns both ends of a new loopback connection.
func tcpPair() (a, b *net.TCPConn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	for {
		server, err := l.Accept()
		if err != nil {
			client.Close()
			return nil, nil, err
		}
		// Ignore connections of other processes.
		if server.RemoteAddr().String() == client.LocalAddr().String() {
			return client.(*net.TCPConn), server.(*net.TCPConn), nil
		}
		server.Close()
	}
}
