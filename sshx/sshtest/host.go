package sshtest

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// Options describe a host. The zero value is a host into which nobody can log in.
type Options struct {
	Home  string   // home directory; "": a fresh temporary one that Close removes
	Env   []string // NAME=value for every command, on top of HOME, USER, LOGNAME, SHELL, PATH and SSH_CONNECTION
	Shell string   // runs commands as `SHELL -c command`; "": /bin/sh
	User  string   // the one account; "": the current user's name

	AuthorizedKeys      []ssh.PublicKey // may log in
	UserAuthorities     []ssh.PublicKey // sign user certificates that may log in
	Password            string          // "": no password login
	KeyboardInteractive bool            // ask for Password by keyboard-interactive, not by the password method
	MaxAuthTries        int             // as in sshd_config(5); 0: 6

	HostKeys    []ssh.Signer // nil: one fresh ed25519 key
	Banner      string       // shown before the login
	Noise       string       // what the shell's start-up files print before each command's own output
	NoForward   bool         // refuse direct-tcpip channels
	MaxSessions int          // sessions that one connection may have at once; 0: 10, as sshd
	NoExec      string       // not "": commands are not run; this is printed instead, as by a forced command
}

// Host is an SSH server inside this process. All methods are safe for concurrent use.
type Host struct {
	options Options
	home    string
	ownHome bool
	address string
	faults  faults

	mu       sync.Mutex
	listener net.Listener
	hostKeys []ssh.Signer
	conns    map[*faultConn]bool
	groups   map[int]bool // process groups of sessions
	closed   bool
	serving  sync.WaitGroup

	connections, logins, execs, forwards atomic.Int64
}

// Stats counts what has happened on a host.
type Stats struct {
	Connections int // accepted
	Logins      int // connections that logged in
	Execs       int // commands run
	Forwards    int // direct-tcpip channels opened
}

// New starts a host on 127.0.0.1.
func New(o Options) (*Host, error) {
	h := &Host{options: o, home: o.Home, hostKeys: o.HostKeys, conns: map[*faultConn]bool{}, groups: map[int]bool{}}
	h.faults.init()
	if h.options.Shell == "" {
		h.options.Shell = "/bin/sh"
	}
	if h.options.User == "" {
		h.options.User = currentUser()
	}
	if len(h.hostKeys) == 0 {
		key, _, err := NewKey()
		if err != nil {
			return nil, err
		}
		h.hostKeys = []ssh.Signer{key}
	}
	var err error
	if h.home, h.ownHome, err = prepareHome(o.Home); err != nil {
		return nil, err
	}
	if h.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		h.removeHome()
		return nil, err
	}
	h.address = h.listener.Addr().String()
	h.serving.Add(1)
	go h.accept(h.listener)
	return h, nil
}

func currentUser() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

// prepareHome gives an existing directory without symbolic links in its name, so that it equals what pwd prints.
func prepareHome(home string) (dir string, own bool, err error) {
	if home == "" {
		if home, err = os.MkdirTemp("", "sshtest-"); err != nil {
			return "", false, err
		}
		own = true
	} else if err = os.MkdirAll(home, 0o700); err != nil {
		return "", false, err
	}
	dir, err = filepath.EvalSymlinks(home)
	return dir, own, err
}

func (h *Host) removeHome() {
	if h.ownHome {
		os.RemoveAll(h.home)
	}
}

// Addr is the host's 127.0.0.1:port.
func (h *Host) Addr() string { return h.address }

// Port is the port of Addr.
func (h *Host) Port() int { return portOf(h.address) }

func portOf(address string) int {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return 0
	}
	return a.Port
}

// Home is the home directory, without symbolic links in its path.
func (h *Host) Home() string { return h.home }

// User is the account's name.
func (h *Host) User() string { return h.options.User }

// HostKeys are the public host keys in force.
func (h *Host) HostKeys() []ssh.PublicKey {
	h.mu.Lock()
	defer h.mu.Unlock()
	var keys []ssh.PublicKey
	for _, k := range h.hostKeys {
		keys = append(keys, k.PublicKey())
	}
	return keys
}

// KnownHostsLines are the lines for a known_hosts file that knows this host, each with its newline.
func (h *Host) KnownHostsLines() string { return knownHostsLines(h.address, h.HostKeys()) }

func knownHostsLines(address string, keys []ssh.PublicKey) string {
	var b strings.Builder
	for _, key := range keys {
		b.WriteString(knownhosts.Line([]string{address}, key) + "\n")
	}
	return b.String()
}

// Stats says what has happened so far.
func (h *Host) Stats() Stats {
	return Stats{int(h.connections.Load()), int(h.logins.Load()), int(h.execs.Load()), int(h.forwards.Load())}
}

// Close ends all connections and the process groups of their sessions, and removes the home directory if New made it. A
// process that has left its group (a daemon) lives on.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	listener := h.listener
	h.mu.Unlock()
	if listener != nil {
		listener.Close()
	}
	h.Cut()
	h.mu.Lock()
	for group := range h.groups {
		killGroup(group)
	}
	h.mu.Unlock()
	h.serving.Wait()
	h.removeHome()
	return nil
}

func (h *Host) accept(l net.Listener) {
	defer h.serving.Done()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		h.connections.Add(1)
		fc := newFaultConn(conn, &h.faults)
		h.mu.Lock()
		closed := h.closed
		h.conns[fc] = true
		if !closed {
			h.serving.Add(1)
		}
		h.mu.Unlock()
		if closed {
			fc.Close()
			return
		}
		go func() {
			defer h.serving.Done()
			h.serve(fc)
			h.mu.Lock()
			delete(h.conns, fc)
			h.mu.Unlock()
		}()
	}
}

// Rekey gives the host a new ed25519 host key, as a machine that was set up anew has. Open connections stay.
func (h *Host) Rekey() error {
	key, _, err := NewKey()
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hostKeys = []ssh.Signer{key}
	return nil
}

// Refuse closes the port, so that connecting is refused; Refuse(false) opens it again. Open connections stay.
func (h *Host) Refuse(refuse bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if refuse {
		if h.listener == nil {
			return nil
		}
		err := h.listener.Close()
		h.listener = nil
		return err
	}
	if h.listener != nil || h.closed {
		return nil
	}
	l, err := net.Listen("tcp", h.address)
	if err != nil {
		return fmt.Errorf("open the port again: %w", err)
	}
	h.listener = l
	h.serving.Add(1)
	go h.accept(l)
	return nil
}
