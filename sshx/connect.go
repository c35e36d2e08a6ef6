package sshx

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/melbahja/goph"
	"github.com/rbee-keeper/rbee/sshx/internal/tcp"
	"github.com/rbee-keeper/rbee/sshx/sshconfig"
	"golang.org/x/crypto/ssh"
)

// The stages of a dial, as shown in error messages.
const (
	stageJump     = "connecting to the jump host"
	stageQueue    = "waiting for other handshakes"
	stageConnect  = "connecting"
	stageExchange = "exchanging keys"
	stageLogin    = "logging in"
)

// attempt makes one attempt to connect and log in. dropped reports whether the host closed the connection before the login,
// as sshd does when too many logins are in progress (MaxStartups in sshd_config(5)). Such an attempt can be repeated.
func (st *state) attempt(l *login) (c *Client, dropped bool, err error) {
	l.setStage(stageJump)
	var via *Client
	if len(l.r.Jump) > 0 {
		if via, err = st.jumpHost(l.ctx, l.r.Jump); err != nil {
			return nil, false, &reasonError{classify(err), fmt.Errorf("jump host: %w", err)}
		}
	}
	l.setStage(stageQueue)
	release, err := st.slots.acquire(l.ctx, slotKey(l.r))
	if err != nil {
		return nil, false, err
	}
	defer release()
	l.clock.Resume()
	defer l.clock.Pause()

	l.setStage(stageConnect)
	conn, err := openConn(l.ctx, l.r, via)
	if err != nil {
		return nil, via != nil && isDropped(err), err // the next attempt reconnects to the jump host
	}
	link := &link{Conn: conn, raw: tcp.Raw(conn)}
	stop := context.AfterFunc(l.ctx, func() { conn.Close() })
	gophClient, err := l.handshake(link)
	if !stop() && err == nil {
		err = context.Cause(l.ctx)
	}
	if err != nil {
		conn.Close()
		dropped, err = l.checkDropped(link, err)
		return nil, dropped, err
	}
	st.passwords.setAccepted(l.r.Address(), l.lastPassword)
	return newClient(gophClient, link, l.r, st.keepAlive), false, nil
}

// checkDropped reports whether err means that the host dropped the connection before the login. It returns err with the
// output of the host or the ProxyCommand added. If the host is not an SSH server, the error has [ReasonProtocol].
func (l *login) checkDropped(link *link, err error) (dropped bool, _ error) {
	if l.ctx.Err() != nil || !isDropped(err) {
		return false, err
	}
	if proxy, ok := link.Conn.(*commandConn); ok {
		failed, stderr := proxy.exitResult()
		if stderr != "" {
			err = fmt.Errorf("%w; ProxyCommand: %s", err, stderr)
		}
		if failed {
			return false, err
		}
	}
	if l.currentStage() != stageExchange {
		return false, err
	}
	// These are the messages of sshd when it is overloaded (MaxStartups) or blocks an address (PerSourcePenalties).
	line := link.firstLine()
	if line == "" || strings.HasPrefix(line, "SSH-") || strings.HasPrefix(line, "Exceeded MaxStartups") || strings.HasPrefix(line, "Not allowed at this time") {
		if line != "" && !strings.HasPrefix(line, "SSH-") {
			err = fmt.Errorf("%w; host sent %q", err, line)
		}
		return true, err
	}
	return false, &reasonError{ReasonProtocol, fmt.Errorf("not an SSH server: host sent %q", line)}
}

// openConn opens the connection to the host: directly, through a jump host or through a ProxyCommand.
func openConn(ctx context.Context, r sshconfig.Settings, via *Client) (net.Conn, error) {
	address := net.JoinHostPort(r.HostName, strconv.Itoa(r.Port))
	switch {
	case via != nil:
		return via.ssh.DialContext(ctx, "tcp", address)
	case r.ProxyCommand != "":
		conn, err := startCommandConn(r.ProxyCommand)
		if err != nil {
			return nil, &reasonError{ReasonConfig, fmt.Errorf("cannot start ProxyCommand: %w", err)}
		}
		return conn, nil
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// handshake runs the SSH handshake and the login. It returns as soon as the context ends, even if it is waiting for an
// agent or the user.
func (l *login) handshake(conn net.Conn) (*goph.Client, error) {
	config, err := l.clientConfig()
	if err != nil {
		return nil, &reasonError{ReasonConfig, err}
	}
	l.setStage(stageExchange)
	type result struct {
		client *goph.Client
		err    error
	}
	done := make(chan result, 1)
	go func() {
		c, chans, reqs, err := ssh.NewClientConn(conn, l.r.HostKeyName(), config)
		if err != nil {
			done <- result{err: err}
			return
		}
		done <- result{client: &goph.Client{Client: ssh.NewClient(c, chans, reqs)}}
	}()
	select {
	case res := <-done:
		return res.client, res.err
	case <-l.ctx.Done():
		conn.Close()
		return nil, context.Cause(l.ctx)
	}
}

func (l *login) clientConfig() (*ssh.ClientConfig, error) {
	set, err := l.st.knownHosts.open(l.r.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("cannot read known_hosts: %w", err)
	}
	return &ssh.ClientConfig{
		User:              l.r.User,
		AuthCallback:      l.next,
		HostKeyAlgorithms: set.algorithms(l.r.HostKeyName()),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if err := l.verify(key); err != nil {
				return err
			}
			l.setStage(stageLogin)
			return nil
		},
	}, nil
}

// handshakeSlots limits the number of concurrent handshakes, in total and per address.
type handshakeSlots struct {
	all chan struct{}

	mu        sync.Mutex
	byAddress map[string]chan struct{}
}

func slotKey(r sshconfig.Settings) string {
	var b strings.Builder
	for _, hop := range r.Jump {
		b.WriteString(hop.Address() + ">")
	}
	return b.String() + net.JoinHostPort(r.HostName, strconv.Itoa(r.Port)) + " " + r.ProxyCommand
}

func (s *handshakeSlots) acquire(ctx context.Context, key string) (release func(), err error) {
	s.mu.Lock()
	if s.byAddress == nil {
		s.byAddress = map[string]chan struct{}{}
	}
	perAddress := s.byAddress[key]
	if perAddress == nil {
		perAddress = make(chan struct{}, handshakesPerAddress)
		s.byAddress[key] = perAddress
	}
	s.mu.Unlock()
	for i, sem := range []chan struct{}{perAddress, s.all} {
		select {
		case sem <- struct{}{}:
		case <-ctx.Done():
			if i > 0 {
				<-perAddress
			}
			return nil, context.Cause(ctx)
		}
	}
	return func() { <-s.all; <-perAddress }, nil
}
