package registry

import (
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/pkgmgr"
)

// TestLinkStates checks the link state for different times since the last message.
func TestLinkStates(t *testing.T) {
	t.Parallel()
	now, pool := time.Now(), NewPool(t.Context(), PoolOptions{})
	offline := &operations.Error{Code: operations.CodeUnreachable, Message: "no route"}
	for _, c := range []struct {
		name    string
		link    *Connection
		want    operations.Link
		problem string
	}{
		{"not dialed", &Connection{pool: pool}, operations.LinkConnecting, ""},
		{"never reached", &Connection{pool: pool, hasFailed: true, problem: offline}, operations.LinkOffline, "no route"},
		{"just seen", &Connection{pool: pool, client: &Client{}, lastSeen: now}, operations.LinkOnline, ""},
		{"before stale timeout", &Connection{pool: pool, client: &Client{}, lastSeen: now.Add(-14 * time.Second)}, operations.LinkOnline, ""},
		{"after stale timeout", &Connection{pool: pool, client: &Client{}, lastSeen: now.Add(-16 * time.Second)}, operations.LinkStale, "last seen 16s ago"},
		{"after offline timeout", &Connection{pool: pool, client: &Client{}, lastSeen: now.Add(-46 * time.Second)}, operations.LinkOffline, ""},
		{"disconnected", &Connection{pool: pool, lastSeen: now, problem: offline}, operations.LinkOffline, "no route"},
	} {
		if view := c.link.View(now); view.Link != c.want || view.Problem != c.problem {
			t.Errorf("%s: View() has link %s, problem %q, want %s, %q", c.name, view.Link, view.Problem, c.want, c.problem)
		}
	}
}

type countingHost struct {
	pkgmgr.Host
	closed int
}

func (c *countingHost) Close() error { c.closed++; return nil }

// TestSharedHost checks that the last user closes a connection after closeWhenUnused.
func TestSharedHost(t *testing.T) {
	t.Parallel()
	c := &countingHost{}
	h := &sharedHost{Host: c}
	first, second := h.acquire(), h.acquire()
	_ = first.Close()
	_ = first.Close()
	h.closeWhenUnused()
	if c.closed != 0 {
		t.Errorf("Close() was called %d times while the connection was in use, want 0", c.closed)
	}
	_ = second.Close()
	if c.closed != 1 {
		t.Errorf("Close() was called %d times after the last user, want 1", c.closed)
	}
	c = &countingHost{}
	h = &sharedHost{Host: c}
	if h.closeWhenUnused(); c.closed != 1 {
		t.Errorf("Close() was called %d times without users, want 1", c.closed)
	}
}

func TestParseSnapshot(t *testing.T) {
	t.Parallel()
	s, err := parseSnapshot(sse.Event{Data: []byte(`{"version":"1","workers":[{"id":"w"}],"models":[{"id":"m"}]}`)}, "gpu-1")
	if err != nil || s.Workers[0].Hive != "gpu-1" || s.Models[0].Hive != "gpu-1" || s.Machine.Alias != "gpu-1" {
		t.Errorf("parseSnapshot() = %+v, %v, want workers, models and machine of gpu-1", s, err)
	}
	if s, err := parseSnapshot(sse.Event{Comment: true, Data: []byte("still here")}, "a"); s != nil || err != nil {
		t.Errorf("parseSnapshot() of a comment = %+v, %v, want nil, nil", s, err)
	}
	if _, err := parseSnapshot(sse.Event{Data: []byte("{")}, "a"); err == nil {
		t.Error("parseSnapshot() of truncated JSON = nil error, want an error")
	}
}

var _ pkgmgr.Host = (*countingHost)(nil)
