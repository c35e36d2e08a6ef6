package sshx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/rbee-keeper/rbee/sshx/sshconfig"
)

const (
	defaultTimeout   = 20 * time.Second
	defaultKeepAlive = 15 * time.Second

	// defaultHandshakes keeps a slow line busy (a handshake waits for 8 round trips and costs this side 2 ms of CPU), while
	// no handshake waits for more than an eighth of a second for its share of one CPU.
	defaultHandshakes = 64
	// handshakesPerAddress stays below the 10 at which sshd begins to drop connections by its default MaxStartups.
	handshakesPerAddress = 8

	// droppedTries is how often a connection is tried that the host drops before the login begins.
	droppedTries = 5
	// firstPause is the mean pause before the second try; each further pause is twice as long.
	firstPause = 150 * time.Millisecond
)

// Target says which host to reach, as a user would write it. Empty fields are filled in from ssh_config.
type Target = sshconfig.Target

// Dialer opens connections. The zero value works: it reads ~/.ssh/config and ~/.ssh/known_hosts, uses the agent and the
// default keys, refuses unknown hosts, and never asks anything. It is safe for concurrent use and must not be copied or
// changed after its first use. One Dialer for many hosts saves work: ssh_config and keys are read once, known_hosts only
// when it has changed, and a jump host is connected to once.
type Dialer struct {
	// ConfigFiles are the ssh_config files, the most important first. nil: ~/.ssh/config and /etc/ssh/ssh_config, which
	// need not exist; empty: none.
	ConfigFiles []string
	// KnownHosts are the known_hosts files, in place of what ssh_config says. nil: UserKnownHostsFile and
	// GlobalKnownHostsFile of ssh_config, else OpenSSH's defaults in ~/.ssh and /etc/ssh.
	KnownHosts []string
	// Home is the home directory that ~ stands for. "": os.UserHomeDir.
	Home string
	// AcceptNewHostKeys accepts the key of an unknown host and appends it to the first known_hosts file, which is created
	// with its folder if need be (0600). It goes before StrictHostKeyChecking of ssh_config. A changed key is refused always.
	AcceptNewHostKeys bool
	// Prompter asks the user for passphrases, passwords and unknown host keys. nil: nothing is ever asked.
	Prompter Prompter
	// Timeout bounds a whole dial: connecting, handshake, login and further tries; not the time that questions to the user
	// take, nor that spent in a queue. Each jump host has its own. 0: ConnectTimeout of ssh_config, else 20 s.
	Timeout time.Duration
	// KeepAlive is how long a connection may be silent before the host is asked for a sign of life; after three missing
	// answers the connection is closed. 0: ServerAliveInterval of ssh_config, else 15 s; negative: never.
	KeepAlive time.Duration
	// MaxHandshakes bounds the handshakes under way at once. 0: 64. To one address there are never more than 8.
	MaxHandshakes int

	mu  sync.Mutex
	run *state
	err error
}

// state is what a Dialer holds while it is in use.
type state struct {
	config    *sshconfig.Config
	acceptNew bool
	timeout   time.Duration
	keepAlive time.Duration

	ask       asker
	passwords passwords
	keys      keyring
	agents    agents
	known     knownHosts
	hops      hops
	slots     slots
}

// start prepares the Dialer on first use.
func (d *Dialer) start() (*state, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.run == nil && d.err == nil {
		d.run, d.err = d.newState()
	}
	return d.run, d.err
}

func (d *Dialer) newState() (*state, error) {
	handshakes := d.MaxHandshakes
	if handshakes <= 0 {
		handshakes = defaultHandshakes
	}
	st := &state{
		acceptNew: d.AcceptNewHostKeys, timeout: d.Timeout, keepAlive: d.KeepAlive,
		ask:   asker{prompter: d.Prompter, busy: make(chan struct{}, 1)},
		slots: slots{all: make(chan struct{}, handshakes)},
	}
	var err error
	st.config, err = sshconfig.Load(sshconfig.Options{Files: d.ConfigFiles, KnownHosts: d.KnownHosts, Home: d.Home})
	return st, err
}

// Resolve says what ssh_config makes of a target. It uses no network; it may run the commands of "Match exec" lines.
func (d *Dialer) Resolve(t Target) (sshconfig.Settings, error) {
	st, err := d.start()
	if err == nil {
		var s sshconfig.Settings
		if s, err = st.config.Resolve(t); err == nil {
			return s, nil
		}
	}
	return sshconfig.Settings{}, &Error{Op: "resolve", Target: t.String(), Reason: ReasonConfig, Err: err}
}

// Hosts lists the concrete (wildcard-free) names in the Host lines of ssh_config, included files too, that match a
// pattern such as "gpu-*", sorted. * is any run of characters and ? is one character.
func (d *Dialer) Hosts(pattern string) ([]string, error) {
	st, err := d.start()
	if err != nil {
		return nil, &Error{Op: "hosts", Target: pattern, Reason: ReasonConfig, Err: err}
	}
	return st.config.Hosts(pattern), nil
}

// Dial connects and logs in. The error is an [*Error]. When ctx ends, Dial returns at once; after it has returned, ctx
// has no influence on the connection.
func (d *Dialer) Dial(ctx context.Context, t Target) (*Client, error) {
	r, err := d.Resolve(t)
	if err != nil {
		var own *Error
		if errors.As(err, &own) {
			own.Op = "dial"
		}
		return nil, err
	}
	st, err := d.start()
	if err != nil {
		return nil, dialError(r, ReasonConfig, err)
	}
	return st.dial(ctx, r)
}

// Close closes the shared connections to jump hosts and agents; connections through those jump hosts end with them.
// Other clients are left alone. The Dialer may be used again.
func (d *Dialer) Close() error {
	d.mu.Lock()
	st := d.run
	d.mu.Unlock()
	if st != nil {
		st.hops.close()
		st.agents.close()
	}
	return nil
}

func dialError(r sshconfig.Settings, reason Reason, err error) error {
	return &Error{Op: "dial", Target: r.Address(), Reason: reason, Err: err}
}

// errDialTimeout is the cause with which the clock ends a dial.
var errDialTimeout = errors.New("dial timeout")

func (st *state) dial(ctx context.Context, r sshconfig.Settings) (*Client, error) {
	if r.KeyFile != "" {
		if f := st.keys.get(r.KeyFile); f.err != nil {
			return nil, dialError(r, ReasonConfig, fmt.Errorf("key file: %w", f.err))
		}
	}
	limit := st.timeout
	if limit <= 0 {
		limit = r.ConnectTimeout
	}
	if limit <= 0 {
		limit = defaultTimeout
	}
	dialCtx, clock, cancel := startClock(ctx, limit, errDialTimeout)
	defer cancel()
	pauses := &backoff.ExponentialBackOff{ // random, so that many clients do not come back all at once
		InitialInterval: firstPause, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: firstPause << droppedTries,
	}
	for try := 1; ; try++ {
		l := &login{st: st, r: r, ctx: dialCtx, clock: clock}
		client, dropped, err := st.attempt(l)
		if err == nil {
			return client, nil
		}
		if dropped && try < droppedTries && pauseBefore(dialCtx, clock, pauses.NextBackOff()) {
			continue
		}
		if dropped && ctx.Err() == nil {
			return nil, dialError(r, ReasonLost, fmt.Errorf("%s: %w (%d tries)", l.currentStage(), err, try))
		}
		return nil, l.failure(ctx, limit, err)
	}
}

// pauseBefore sleeps before another try.
func pauseBefore(ctx context.Context, c *clock, d time.Duration) bool {
	c.resume()
	defer c.pause()
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// failure words the end of a dial and gives it a reason.
func (l *login) failure(ctx context.Context, limit time.Duration, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var known *stepError
	var hostKey *HostKeyError
	switch {
	case errors.As(err, &known):
		return dialError(l.r, known.reason, known.err)
	case errors.As(err, &hostKey):
		reason := ReasonHostKeyUnknown
		if hostKey.File != "" {
			reason = ReasonHostKeyChanged
		}
		return dialError(l.r, reason, hostKey)
	case ctx.Err() != nil:
		return dialError(l.r, classify(ctx.Err()), fmt.Errorf("%s: %w", l.stage, ctx.Err()))
	case errors.Is(context.Cause(l.ctx), errDialTimeout):
		return dialError(l.r, ReasonTimeout, fmt.Errorf("no answer within %s while %s: %w", limit, l.stage, os.ErrDeadlineExceeded))
	}
	reason := classify(err)
	switch {
	case reason == ReasonFailed && l.stage == stageExchange:
		reason = ReasonProtocol
	case reason == ReasonFailed && l.stage == stageLogin:
		reason = ReasonAuth
	}
	if reason == ReasonAuth {
		err = l.denied(err)
	}
	return dialError(l.r, reason, fmt.Errorf("%s: %w", l.stage, err))
}

// denied says what the host wanted and what was tried. l.mu is held.
func (l *login) denied(err error) error {
	tried := strings.Join(l.notes, "; ")
	if tried == "" {
		tried = "there was no key to offer"
	}
	if l.exhausted {
		return fmt.Errorf("permission denied (the host takes %s): %s", strings.Join(l.allowed, ", "), tried)
	}
	return fmt.Errorf("%w; %s", err, tried)
}

// stepError gives a cause its reason where it is known best.
type stepError struct {
	reason Reason
	err    error
}

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }
