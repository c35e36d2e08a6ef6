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

// The stages of a dial, as its messages name them.
const (
	stageJump     = "connecting to the jump host"
	stageQueue    = "waiting for other handshakes"
	stageConnect  = "connecting"
	stageExchange = "exchanging keys"
	stageLogin    = "logging in"
)

// attempt connects once. dropped says that the host closed the connection before the login began, as sshd does when too
// many logins are under way (MaxStartups in sshd_config(5)): that is worth another try.
func (st *state) attempt(l *login) (c *Client, dropped bool, err error) {
	l.setStage(stageJump)
	var via *Client
	if len(l.r.Jump) > 0 {
		if via, err = st.hop(l.ctx, l.r.Jump); err != nil {
			return nil, false, &stepError{classify(err), fmt.Errorf("through its jump host: %w", err)}
		}
	}
	l.setStage(stageQueue)
	release, err := st.slots.acquire(l.ctx, slotName(l.r))
	if err != nil {
		return nil, false, err
	}
	defer release()
	l.clock.resume()
	defer l.clock.pause()

	l.setStage(stageConnect)
	conn, err := openConn(l.ctx, l.r, via)
	if err != nil {
		return nil, via != nil && isDropped(err), err // a jump host that has just died is dialled again
	}
	link := &link{Conn: conn, raw: tcp.Raw(conn)}
	stop := context.AfterFunc(l.ctx, func() { conn.Close() })
	gophClient, err := l.handshake(link)
	if !stop() && err == nil {
		err = context.Cause(l.ctx)
	}
	if err != nil {
		conn.Close()
		dropped, err = l.judge(link, err)
		return nil, dropped, err
	}
	st.passwords.worked(l.r.Address(), l.last)
	return newClient(gophClient, link, l.r, st.keepAlive), false, nil
}

// judge tells a host that drops connections from one that does not speak SSH, and adds what either had to say.
func (l *login) judge(link *link, err error) (dropped bool, _ error) {
	if l.ctx.Err() != nil || !isDropped(err) {
		return false, err
	}
	if pc, ok := link.Conn.(*commandConn); ok {
		failed, said := pc.verdict()
		if said != "" {
			err = fmt.Errorf("%w; ProxyCommand said: %s", err, said)
		}
		if failed {
			return false, err
		}
	}
	if l.currentStage() != stageExchange {
		return false, err
	}
	// sshd's own words when it is busy (MaxStartups) or has had enough of an address (PerSourcePenalties).
	line := link.firstLine()
	if line == "" || strings.HasPrefix(line, "SSH-") || strings.HasPrefix(line, "Exceeded MaxStartups") || strings.HasPrefix(line, "Not allowed at this time") {
		if line != "" && !strings.HasPrefix(line, "SSH-") {
			err = fmt.Errorf("%w; it said: %q", err, line)
		}
		return true, err
	}
	return false, &stepError{ReasonProtocol, fmt.Errorf("this is no SSH server; it said: %q", line)}
}

// openConn opens the byte stream to the host.
func openConn(ctx context.Context, r sshconfig.Settings, via *Client) (net.Conn, error) {
	address := net.JoinHostPort(r.HostName, strconv.Itoa(r.Port))
	switch {
	case via != nil:
		return via.ssh.DialContext(ctx, "tcp", address)
	case r.ProxyCommand != "":
		conn, err := startCommandConn(r.ProxyCommand)
		if err != nil {
			return nil, &stepError{ReasonConfig, fmt.Errorf("ProxyCommand: %w", err)}
		}
		return conn, nil
	}
	return new(net.Dialer).DialContext(ctx, "tcp", address)
}

// handshake runs the SSH handshake and the login. It gives up as soon as the context ends, even while an agent or the
// user does not answer.
func (l *login) handshake(conn net.Conn) (*goph.Client, error) {
	config, err := l.clientConfig()
	if err != nil {
		return nil, &stepError{ReasonConfig, err}
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
	known, err := l.st.known.open(l.r.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("known_hosts: %w", err)
	}
	return &ssh.ClientConfig{
		User:              l.r.User,
		AuthCallback:      l.next,
		HostKeyAlgorithms: known.algorithms(l.r.HostKeyName()),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if err := l.verify(key); err != nil {
				return err
			}
			l.setStage(stageLogin)
			return nil
		},
	}, nil
}

// slots bounds the handshakes under way, altogether and to one address.
type slots struct {
	all chan struct{}

	mu    sync.Mutex
	byKey map[string]chan struct{}
}

func slotName(r sshconfig.Settings) string {
	var b strings.Builder
	for _, hop := range r.Jump {
		b.WriteString(hop.Address() + ">")
	}
	return b.String() + net.JoinHostPort(r.HostName, strconv.Itoa(r.Port)) + " " + r.ProxyCommand
}

func (s *slots) acquire(ctx context.Context, key string) (release func(), err error) {
	s.mu.Lock()
	if s.byKey == nil {
		s.byKey = map[string]chan struct{}{}
	}
	own := s.byKey[key]
	if own == nil {
		own = make(chan struct{}, handshakesPerAddress)
		s.byKey[key] = own
	}
	s.mu.Unlock()
	for i, sem := range []chan struct{}{own, s.all} {
		select {
		case sem <- struct{}{}:
		case <-ctx.Done():
			if i > 0 {
				<-own
			}
			return nil, context.Cause(ctx)
		}
	}
	return func() { <-s.all; <-own }, nil
}
