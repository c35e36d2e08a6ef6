package sshx

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/rbee-keeper/rbee/sshx/sshconfig"
)

// jumpHosts holds the connections to jump hosts. All targets with the same route share one connection until the Dialer is
// closed. A connection that has ended is replaced when it is needed again.
type jumpHosts struct {
	mu      sync.Mutex
	byRoute map[string]*jumpConn
}

type jumpConn struct {
	ready   chan struct{} // closed after client or err is set
	client  *Client
	err     error
	waiters int
	cancel  context.CancelFunc
}

// jumpHost returns a connection to the last host of chain, through the other hosts.
func (st *state) jumpHost(ctx context.Context, chain []sshconfig.Settings) (*Client, error) {
	route := make([]string, len(chain))
	for i, r := range chain {
		route[i] = r.Address()
	}
	last := chain[len(chain)-1]
	last.Jump = chain[:len(chain)-1]
	return st.jumpHosts.get(ctx, strings.Join(route, ">"), func(ctx context.Context) (*Client, error) {
		return st.dial(ctx, last)
	})
}

// get returns the connection for a route. It waits for the dial in progress, or starts one. The dial is canceled when no
// caller waits for it.
func (s *jumpHosts) get(ctx context.Context, route string, dial func(context.Context) (*Client, error)) (*Client, error) {
	s.mu.Lock()
	if s.byRoute == nil {
		s.byRoute = map[string]*jumpConn{}
	}
	h := s.byRoute[route]
	if h == nil || h.isDead() {
		dialCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		h = &jumpConn{ready: make(chan struct{}), cancel: cancel}
		s.byRoute[route] = h
		go func() {
			h.client, h.err = dial(dialCtx)
			cancel()
			close(h.ready)
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.byRoute[route] != h && h.client != nil { // no caller waits for it
				h.client.Close()
			}
		}()
	}
	h.waiters++
	s.mu.Unlock()

	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if h.waiters--; h.waiters == 0 && !h.isReady() {
			h.cancel()
			if s.byRoute[route] == h {
				delete(s.byRoute, route)
			}
		}
	}()
	select {
	case <-h.ready:
		return h.client, h.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (h *jumpConn) isReady() bool {
	select {
	case <-h.ready:
		return true
	default:
		return false
	}
}

// isDead reports whether the dial has failed or the connection has ended.
func (h *jumpConn) isDead() bool {
	if !h.isReady() {
		return false
	}
	if h.err != nil {
		return true
	}
	select {
	case <-h.client.Done():
		return true
	default:
		return false
	}
}

var errDialerClosed = errors.New("dialer closed")

func (s *jumpHosts) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.byRoute {
		h.cancel()
		if h.isReady() && h.client != nil {
			h.client.shutdown(errDialerClosed)
		}
	}
	s.byRoute = nil
}
