package sshx

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// agentConnectLimit bounds how long an agent's socket may take to accept.
const agentConnectLimit = 2 * time.Second

// agents keeps one connection to each SSH agent for the whole Dialer.
type agents struct {
	mu   sync.Mutex
	open map[string]*agentConn
}

type agentConn struct {
	conn  net.Conn
	agent agent.ExtendedAgent
}

func (a *agents) get(ctx context.Context, socket string) (*agentConn, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.open[socket]; c != nil {
		return c, nil
	}
	d := net.Dialer{Timeout: agentConnectLimit}
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if a.open == nil {
		a.open = map[string]*agentConn{}
	}
	c := &agentConn{conn: conn, agent: agent.NewClient(conn)}
	a.open[socket] = c
	return c, nil
}

// drop forgets a connection that has failed, so that the next login makes a new one.
func (a *agents) drop(socket string, c *agentConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[socket] == c {
		delete(a.open, socket)
	}
	c.conn.Close()
}

func (a *agents) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.open {
		c.conn.Close()
	}
	a.open = nil
}

// agentSigners are the keys that the agent holds now. An agent that does not answer is noted and passed over.
func (l *login) agentSigners() []ssh.Signer {
	socket := l.r.IdentityAgent
	if socket == "" {
		return nil
	}
	for try := 0; ; try++ {
		c, err := l.st.agents.get(l.ctx, socket)
		if err != nil {
			l.note("no agent: %v", err)
			return nil
		}
		signers, err := c.agent.Signers()
		if err == nil {
			return signers
		}
		l.st.agents.drop(socket, c) // it may have been restarted since the last login
		if try > 0 {
			l.note("no agent: %v", fmt.Errorf("%s: %w", socket, err))
			return nil
		}
	}
}
