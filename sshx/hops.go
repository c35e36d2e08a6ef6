package sshx

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/rbee-keeper/rbee/sshx/sshconfig"
)

// hops keeps the connections to jump hosts: one for each way, shared by all targets behind it, until the Dialer is
// closed. One that has died is dialled again when it is next needed.
type hops struct {
	mu    sync.Mutex
	byWay map[string]*hop
}

type hop struct {
	ready   chan struct{} // closed when client or err is set
	client  *Client
	err     error
	waiters int
	cancel  context.CancelFunc
}

// hop gives the connection to the last of chain, which is reached through the others.
func (st *state) hop(ctx context.Context, chain []sshconfig.Settings) (*Client, error) {
	way := make([]string, len(chain))
	for i, r := range chain {
		way[i] = r.Address()
	}
	last := chain[len(chain)-1]
	last.Jump = chain[:len(chain)-1]
	return st.hops.get(ctx, strings.Join(way, ">"), func(ctx context.Context) (*Client, error) {
		return st.dial(ctx, last)
	})
}

// get joins the dial that is under way, or starts one. The dial goes on while anybody waits for it.
func (s *hops) get(ctx context.Context, way string, dial func(context.Context) (*Client, error)) (*Client, error) {
	s.mu.Lock()
	if s.byWay == nil {
		s.byWay = map[string]*hop{}
	}
	h := s.byWay[way]
	if h == nil || h.dead() {
		dialCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		h = &hop{ready: make(chan struct{}), cancel: cancel}
		s.byWay[way] = h
		go func() {
			h.client, h.err = dial(dialCtx)
			cancel()
			close(h.ready)
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.byWay[way] != h && h.client != nil { // nobody waits any more
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
			if s.byWay[way] == h {
				delete(s.byWay, way)
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

func (h *hop) isReady() bool {
	select {
	case <-h.ready:
		return true
	default:
		return false
	}
}

// dead tells whether the dial failed or its connection has ended.
func (h *hop) dead() bool {
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

var errDialerClosed = errors.New("the dialer was closed")

func (s *hops) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.byWay {
		h.cancel()
		if h.isReady() && h.client != nil {
			h.client.end(errDialerClosed)
		}
	}
	s.byWay = nil
}
