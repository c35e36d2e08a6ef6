package sshx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/rbee-keeper/rbee/sshx/internal/timeout"
	"github.com/rbee-keeper/rbee/sshx/sshconfig"
)

const (
	// defaultTimeout is the default of [Dialer.Timeout].
	defaultTimeout = 20 * time.Second
	// defaultKeepAlive is the default of [Dialer.KeepAlive].
	defaultKeepAlive = 15 * time.Second

	// defaultHandshakes is the default of [Dialer.MaxHandshakes]. A handshake takes 8 round trips and 2 ms of CPU. With a
	// round trip of 50 ms, 64 concurrent handshakes complete 160 logins per second and use a third of one CPU.
	defaultHandshakes = 64
	// handshakesPerAddress is less than 10, the default limit (MaxStartups) at which sshd starts to drop connections.
	handshakesPerAddress = 8

	// maxDialAttempts limits the attempts to connect to a host that drops connections before the login.
	maxDialAttempts = 5
	// initialBackoff is the mean delay before the second attempt. It doubles with each attempt.
	initialBackoff = 150 * time.Millisecond
)

// Target identifies a host as a user would write it. Empty fields are set from ssh_config.
type Target = sshconfig.Target

// Dialer opens connections. The zero value is ready to use: it reads ~/.ssh/config and ~/.ssh/known_hosts, uses the SSH
// agent and the default keys, rejects unknown hosts, and never prompts. A Dialer is safe for concurrent use and must not be
// copied or modified after its first use. Use one Dialer for many hosts: it reads ssh_config and keys once, reads known_hosts
// again only after a change, and connects to each jump host once.
type Dialer struct {
	// ConfigFiles lists the ssh_config files in order of precedence. Nil means ~/.ssh/config and /etc/ssh/ssh_config, which
	// may be missing. A non-nil empty slice means no files.
	ConfigFiles []string
	// KnownHosts lists the known_hosts files. Nil means UserKnownHostsFile and GlobalKnownHostsFile of ssh_config, or the
	// defaults of OpenSSH in ~/.ssh and /etc/ssh.
	KnownHosts []string
	// Home is the home directory. Empty means the result of os.UserHomeDir.
	Home string
	// AcceptNewHostKeys accepts the key of an unknown host and appends it to the first known_hosts file. If necessary, the
	// file (mode 0600) and its directory are created. It overrides StrictHostKeyChecking of ssh_config. A changed key is
	// always rejected.
	AcceptNewHostKeys bool
	// Prompter asks the user for passphrases and passwords, and to confirm unknown host keys. Nil means no prompts.
	Prompter Prompter
	// Timeout limits the time of a dial: connecting, handshake, login and retries. It does not include the time that
	// prompts take or that the dial waits for other handshakes. Each jump host has a separate timeout. 0 means
	// ConnectTimeout of ssh_config, or 20 s.
	Timeout time.Duration
	// KeepAlive is the time without received data after which a keepalive request is sent. After three requests without a
	// response, the connection is closed. 0 means ServerAliveInterval of ssh_config, or 15 s. A negative value disables
	// keepalive requests.
	KeepAlive time.Duration
	// MaxHandshakes limits the number of concurrent handshakes. 0 means 64. The limit per address is 8.
	MaxHandshakes int

	mu    sync.Mutex
	state *state
	err   error
}

// state is the internal state of a Dialer.
type state struct {
	config    *sshconfig.Config
	acceptNew bool
	timeout   time.Duration
	keepAlive time.Duration

	prompts    promptQueue
	passwords  passwordCache
	keys       keyring
	agents     agents
	knownHosts knownHosts
	jumpHosts  jumpHosts
	slots      handshakeSlots
}

// init creates the state on first use.
func (d *Dialer) init() (*state, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == nil && d.err == nil {
		d.state, d.err = d.newState()
	}
	return d.state, d.err
}

func (d *Dialer) newState() (*state, error) {
	handshakes := d.MaxHandshakes
	if handshakes <= 0 {
		handshakes = defaultHandshakes
	}
	st := &state{
		acceptNew: d.AcceptNewHostKeys, timeout: d.Timeout, keepAlive: d.KeepAlive,
		prompts: promptQueue{prompter: d.Prompter, sem: make(chan struct{}, 1)},
		slots:   handshakeSlots{all: make(chan struct{}, handshakes)},
	}
	var err error
	st.config, err = sshconfig.Load(sshconfig.Options{Files: d.ConfigFiles, KnownHosts: d.KnownHosts, Home: d.Home})
	return st, err
}

// Resolve returns the ssh_config settings for a target. It does not use the network, but can run the commands of "Match
// exec" lines.
func (d *Dialer) Resolve(t Target) (sshconfig.Settings, error) {
	st, err := d.init()
	if err == nil {
		var s sshconfig.Settings
		if s, err = st.config.Resolve(t); err == nil {
			return s, nil
		}
	}
	return sshconfig.Settings{}, &Error{Op: "resolve", Target: t.String(), Reason: ReasonConfig, Err: err}
}

// Hosts returns the host names that match a pattern such as "gpu-*", sorted. It searches the Host lines of ssh_config and of
// included files, and ignores names with wildcards. In the pattern, * matches any number of characters and ? matches one.
func (d *Dialer) Hosts(pattern string) ([]string, error) {
	st, err := d.init()
	if err != nil {
		return nil, &Error{Op: "hosts", Target: pattern, Reason: ReasonConfig, Err: err}
	}
	return st.config.Hosts(pattern), nil
}

// Dial connects to the target and logs in. Errors are [*Error] values. ctx applies only until Dial returns.
func (d *Dialer) Dial(ctx context.Context, t Target) (*Client, error) {
	r, err := d.Resolve(t)
	if err != nil {
		var sshErr *Error
		if errors.As(err, &sshErr) {
			sshErr.Op = opDial
		}
		return nil, err
	}
	st, err := d.init()
	if err != nil {
		return nil, dialError(r, ReasonConfig, err)
	}
	return st.dial(ctx, r)
}

// Close closes the shared connections to jump hosts and agents. This also closes all connections through these jump hosts.
// Other clients remain connected. The Dialer can be used again.
func (d *Dialer) Close() error {
	d.mu.Lock()
	st := d.state
	d.mu.Unlock()
	if st != nil {
		st.jumpHosts.close()
		st.agents.close()
	}
	return nil
}

func dialError(r sshconfig.Settings, reason Reason, err error) error {
	return &Error{Op: opDial, Target: r.Address(), Reason: reason, Err: err}
}

// errDialTimeout is the context cause of a dial that reached its timeout.
var errDialTimeout = errors.New("dial timeout")

func (st *state) dial(ctx context.Context, r sshconfig.Settings) (*Client, error) {
	if r.KeyFile != "" {
		if f := st.keys.get(r.KeyFile); f.err != nil {
			return nil, dialError(r, ReasonConfig, fmt.Errorf("cannot use key file: %w", f.err))
		}
	}
	limit := st.timeout
	if limit <= 0 {
		limit = r.ConnectTimeout
	}
	if limit <= 0 {
		limit = defaultTimeout
	}
	dialCtx, clock, cancel := timeout.WithClock(ctx, limit, errDialTimeout)
	defer cancel()
	retryDelay := &backoff.ExponentialBackOff{ // with jitter, so that many clients do not retry at the same time
		InitialInterval: initialBackoff, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: initialBackoff << maxDialAttempts,
	}
	for attempt := 1; ; attempt++ {
		l := &login{st: st, r: r, ctx: dialCtx, clock: clock}
		client, dropped, err := st.attempt(l)
		if err == nil {
			return client, nil
		}
		if dropped && attempt < maxDialAttempts && waitBackoff(dialCtx, clock, retryDelay.NextBackOff()) {
			continue
		}
		if dropped && ctx.Err() == nil {
			return nil, dialError(r, ReasonLost, fmt.Errorf("%s: %w (%d attempts)", l.currentStage(), err, attempt))
		}
		return nil, l.dialError(ctx, limit, err)
	}
}

// waitBackoff waits before the next attempt. It returns false if ctx ends.
func waitBackoff(ctx context.Context, c *timeout.Clock, d time.Duration) bool {
	c.Resume()
	defer c.Pause()
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// dialError returns the error of a failed dial, with its reason.
func (l *login) dialError(ctx context.Context, limit time.Duration, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var withReason *reasonError
	var hostKey *HostKeyError
	switch {
	case errors.As(err, &withReason):
		return dialError(l.r, withReason.reason, withReason.err)
	case errors.As(err, &hostKey):
		reason := ReasonHostKeyUnknown
		if hostKey.File != "" {
			reason = ReasonHostKeyChanged
		}
		return dialError(l.r, reason, hostKey)
	case ctx.Err() != nil:
		return dialError(l.r, classify(ctx.Err()), fmt.Errorf("%s: %w", l.stage, ctx.Err()))
	case errors.Is(context.Cause(l.ctx), errDialTimeout):
		return dialError(l.r, ReasonTimeout, &timeoutError{limit, l.stage})
	}
	reason := classify(err)
	switch {
	case reason == ReasonFailed && l.stage == stageExchange:
		reason = ReasonProtocol
	case reason == ReasonFailed && l.stage == stageLogin:
		reason = ReasonAuth
	}
	if reason == ReasonAuth {
		err = l.authError(err)
	}
	var network *net.OpError
	if l.stage == stageConnect && errors.As(err, &network) {
		return dialError(l.r, reason, cause(network))
	}
	return dialError(l.r, reason, fmt.Errorf("%s: %w", l.stage, err))
}

// cause returns the cause of a network error, without the address and the system call.
func cause(err *net.OpError) error {
	var call *os.SyscallError
	if errors.As(err.Err, &call) {
		return call.Err
	}
	return err.Err
}

// timeoutError is the error of a dial that reached its timeout. It wraps [os.ErrDeadlineExceeded].
type timeoutError struct {
	limit time.Duration
	stage string
}

func (e *timeoutError) Error() string {
	if e.stage == stageConnect {
		return fmt.Sprintf("no response within %s", e.limit)
	}
	return fmt.Sprintf("no response within %s while %s", e.limit, e.stage)
}

func (*timeoutError) Unwrap() error { return os.ErrDeadlineExceeded }

// authError returns the error of a failed login, with the accepted methods and the attempts. The caller holds l.mu.
func (l *login) authError(err error) error {
	attempts := strings.Join(l.notes, "; ")
	if attempts == "" {
		attempts = "no key to offer"
	}
	if l.exhausted {
		return fmt.Errorf("permission denied (the host accepts %s): %s", strings.Join(l.allowed, ", "), attempts)
	}
	return fmt.Errorf("%w; %s", err, attempts)
}

// reasonError adds a reason to an error where the error occurs.
type reasonError struct {
	reason Reason
	err    error
}

func (e *reasonError) Error() string { return e.err.Error() }
func (e *reasonError) Unwrap() error { return e.err }
