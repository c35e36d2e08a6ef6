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

// agentConnectTimeout limits the time to connect to the socket of an agent.
const agentConnectTimeout = 2 * time.Second

// agents holds the connections of a Dialer to SSH agents, one for each socket.
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
	d := net.Dialer{Timeout: agentConnectTimeout}
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

// remove closes and removes a failed connection, so that the next login opens a new one.
func (a *agents) remove(socket string, c *agentConn) {
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

// agentSigners returns the keys of the agent. If the agent does not respond, it adds a note and returns nil.
func (l *login) agentSigners() []ssh.Signer {
	socket := l.r.IdentityAgent
	if socket == "" {
		return nil
	}
	for attempt := 0; ; attempt++ {
		c, err := l.st.agents.get(l.ctx, socket)
		if err != nil {
			l.note("cannot use the SSH agent: %v", err)
			return nil
		}
		signers, err := c.agent.Signers()
		if err == nil {
			return signers
		}
		l.st.agents.remove(socket, c) // the agent may have been restarted
		if attempt > 0 {
			l.note("cannot use the SSH agent: %v", fmt.Errorf("%s: %w", socket, err))
			return nil
		}
	}
}
