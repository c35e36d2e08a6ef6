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

// ErrNoOpenSSH says that there is no sshd on this machine.
var ErrNoOpenSSH = errors.New("sshtest: no sshd is installed")

// RequireOpenSSH tells whether tests must fail, not skip, where there is no sshd: RBEE_TEST_REQUIRE_SSHD=1 is set.
func RequireOpenSSH() bool { return os.Getenv("RBEE_TEST_REQUIRE_SSHD") == "1" }

// OpenSSHHost is the machine's own sshd on a port of 127.0.0.1, one sshd process for each connection, with its own
// configuration, host keys (ed25519 and ecdsa) and home directory. Connections pass through this process, so that the
// line can be made faulty. All methods are safe for concurrent use.
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

// OpenSSH starts the machine's sshd. dir takes its configuration, and the home directory if o.Home is "". Of the options it
// uses Home, Env, Shell, AuthorizedKeys, Banner, Noise, NoForward and MaxSessions; the account is the current user's. The
// error is [ErrNoOpenSSH] where sshd is not installed.
//
// Every command goes through a forced command that sets the environment up, so sshd passes no signals on.
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

// findSSHD looks where systems put sshd. It insists on being started by its absolute path.
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

// Addr is the host's 127.0.0.1:port.
func (h *OpenSSHHost) Addr() string { return h.listener.Addr().String() }

// Port is the port of Addr.
func (h *OpenSSHHost) Port() int { return portOf(h.Addr()) }

// Home is the home directory, without symbolic links in its path.
func (h *OpenSSHHost) Home() string { return h.home }

// User is the account's name: the current user.
func (h *OpenSSHHost) User() string { return h.user }

// HostKeys are the public host keys.
func (h *OpenSSHHost) HostKeys() []ssh.PublicKey { return h.keys }

// KnownHostsLines are the lines for a known_hosts file that knows this host, each with its newline.
func (h *OpenSSHHost) KnownHostsLines() string { return knownHostsLines(h.Addr(), h.keys) }

// Log is what the sshd processes have logged so far.
func (h *OpenSSHHost) Log() string {
	text, err := os.ReadFile(h.file("log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Cut drops every open connection at once, without a goodbye.
func (h *OpenSSHHost) Cut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		c.reset()
	}
}

// CutAfter is [Host.CutAfter].
func (h *OpenSSHHost) CutAfter(n int64) { h.faults.cutAt(n) }

// Stall is [Host.Stall].
func (h *OpenSSHHost) Stall(stall bool) { h.faults.stall(stall) }

// Latency is [Host.Latency].
func (h *OpenSSHHost) Latency(rtt time.Duration) { h.faults.latency(rtt) }

// Close ends all connections and waits for the end of their sshd processes. Commands see the end of their input.
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

// serve runs one sshd in inetd mode (sshd(8), -i) at the other end of a loopback connection.
func (h *OpenSSHHost) serve(client net.Conn) error {
	ours, theirs, err := tcpPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	socket, err := theirs.File()
	theirs.Close()
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
		io.Copy(ours, client)
		ours.Close() // what is lost on one side is lost on the other
	})
	both.Go(func() {
		io.Copy(client, promptReader{ours, tcp.Raw(ours)})
		client.Close()
	})
	both.Wait()
	kill := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
	defer kill.Stop()
	cmd.Wait() // its status says only how the connection ended
	return nil
}

// promptReader acknowledges what it reads at once, lest sshd's Nagle algorithm waits for it.
type promptReader struct {
	io.Reader
	raw syscall.RawConn
}

func (p promptReader) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	tcp.QuickAck(p.raw)
	return n, err
}

// tcpPair gives both ends of a loopback connection.
func tcpPair() (a, b *net.TCPConn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	for {
		accepted, err := l.Accept()
		if err != nil {
			dialled.Close()
			return nil, nil, err
		}
		// Nobody else may slip in.
		if accepted.RemoteAddr().String() == dialled.LocalAddr().String() {
			return dialled.(*net.TCPConn), accepted.(*net.TCPConn), nil
		}
		accepted.Close()
	}
}
