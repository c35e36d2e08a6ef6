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

// Options configure a host. The zero value is a host that accepts no logins.
type Options struct {
	Home  string   // home directory; empty means a new temporary directory, which Close removes
	Env   []string // environment of commands as NAME=value, added to HOME, USER, LOGNAME, SHELL, PATH and SSH_CONNECTION
	Shell string   // login shell, which runs commands with -c; empty means /bin/sh
	User  string   // name of the only account; empty means the current user

	AuthorizedKeys      []ssh.PublicKey // keys that can log in
	UserAuthorities     []ssh.PublicKey // certificate authorities of user certificates
	Password            string          // empty disables password login
	KeyboardInteractive bool            // use keyboard-interactive instead of the password method
	MaxAuthTries        int             // as in sshd_config(5); 0 means 6

	HostKeys      []ssh.Signer // nil means a new ed25519 key
	Banner        string       // sent before the login
	StartupOutput string       // printed before the output of each command, like the output of shell start-up files
	NoForward     bool         // reject direct-tcpip channels
	MaxSessions   int          // maximum concurrent sessions of a connection; 0 means 10, as in sshd
	NoExec        string       // if not empty, text that is printed instead of running a command, as for an account without commands
}

// Host is an SSH server in this process. All methods are safe for concurrent use.
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

// Stats are the counters of a host.
type Stats struct {
	Connections int // accepted connections
	Logins      int // successful logins
	Execs       int // executed commands
	Forwards    int // opened direct-tcpip channels
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

// prepareHome creates the home directory if it does not exist. It returns the path without symbolic links, as pwd prints it.
// temporary reports whether the directory is a new temporary directory.
func prepareHome(home string) (dir string, temporary bool, err error) {
	if home == "" {
		if home, err = os.MkdirTemp("", "sshtest-"); err != nil {
			return "", false, err
		}
		temporary = true
	} else if err = os.MkdirAll(home, 0o700); err != nil {
		return "", false, err
	}
	dir, err = filepath.EvalSymlinks(home)
	return dir, temporary, err
}

func (h *Host) removeHome() {
	if h.ownHome {
		os.RemoveAll(h.home)
	}
}

// Addr returns the address of the host, 127.0.0.1:port.
func (h *Host) Addr() string { return h.address }

// Port returns the port of the host.
func (h *Host) Port() int { return portOf(h.address) }

func portOf(address string) int {
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return 0
	}
	return a.Port
}

// Home returns the path of the home directory, without symbolic links.
func (h *Host) Home() string { return h.home }

// User returns the name of the account.
func (h *Host) User() string { return h.options.User }

// HostKeys returns the current public host keys.
func (h *Host) HostKeys() []ssh.PublicKey {
	h.mu.Lock()
	defer h.mu.Unlock()
	var keys []ssh.PublicKey
	for _, k := range h.hostKeys {
		keys = append(keys, k.PublicKey())
	}
	return keys
}

// KnownHostsLines returns the known_hosts lines for this host, each with a newline.
func (h *Host) KnownHostsLines() string { return knownHostsLines(h.address, h.HostKeys()) }

func knownHostsLines(address string, keys []ssh.PublicKey) string {
	var b strings.Builder
	for _, key := range keys {
		b.WriteString(knownhosts.Line([]string{address}, key) + "\n")
	}
	return b.String()
}

// Stats returns the current counters.
func (h *Host) Stats() Stats {
	return Stats{int(h.connections.Load()), int(h.logins.Load()), int(h.execs.Load()), int(h.forwards.Load())}
}

// Close closes all connections, kills the process groups of their sessions, and removes the home directory if New created it.
// A process that has left its process group, such as a daemon, keeps running.
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

// Rekey replaces the host keys with a new ed25519 key, like a reinstalled machine. Open connections are not affected.
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

// Refuse closes the port if refuse is true, so that new connections are refused. Refuse(false) opens the port again. Open
// connections are not affected.
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
		return fmt.Errorf("cannot reopen the port: %w", err)
	}
	h.listener = l
	h.serving.Add(1)
	go h.accept(l)
	return nil
}
