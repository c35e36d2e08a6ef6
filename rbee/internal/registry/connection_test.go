package registry

import (
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/pkgmgr"
)

// TestLinkStates holds what a hive is called, by how long it has been silent.
func TestLinkStates(t *testing.T) {
	t.Parallel()
	now, pool := time.Now(), NewPool(t.Context(), PoolOptions{})
	away := &operations.Error{Code: operations.CodeUnreachable, Message: "no route"}
	for _, c := range []struct {
		name string
		link *Connection
		want operations.Link
		say  string
	}{
		{"not tried", &Connection{pool: pool}, operations.LinkConnecting, ""},
		{"never reached", &Connection{pool: pool, dialFailed: true, problem: away}, operations.LinkOffline, "no route"},
		{"just heard", &Connection{pool: pool, client: &Client{}, lastSeen: now}, operations.LinkOnline, ""},
		{"heard", &Connection{pool: pool, client: &Client{}, lastSeen: now.Add(-14 * time.Second)}, operations.LinkOnline, ""},
		{"silent", &Connection{pool: pool, client: &Client{}, lastSeen: now.Add(-16 * time.Second)}, operations.LinkStale, "not heard for 16s"},
		{"silent for long", &Connection{pool: pool, client: &Client{}, lastSeen: now.Add(-46 * time.Second)}, operations.LinkOffline, ""},
		{"cut", &Connection{pool: pool, lastSeen: now, problem: away}, operations.LinkOffline, "no route"},
	} {
		if v := c.link.View(now); v.Link != c.want || v.Problem != c.say {
			t.Errorf("%s: %s, %q", c.name, v.Link, v.Problem)
		}
	}
}

type closing struct {
	pkgmgr.Host
	closed int
}

func (c *closing) Close() error { c.closed++; return nil }

// TestSharedHost holds that a connection which is given up stays open for those who
// are using it, and no longer.
func TestSharedHost(t *testing.T) {
	t.Parallel()
	c := &closing{}
	h := &sharedHost{Host: c}
	first, second := h.acquire(), h.acquire()
	_ = first.Close()
	_ = first.Close()
	h.closeWhenUnused()
	if c.closed != 0 {
		t.Error("closed under somebody's hands")
	}
	_ = second.Close()
	if c.closed != 1 {
		t.Errorf("closed %d times", c.closed)
	}
	c = &closing{}
	h = &sharedHost{Host: c}
	if h.closeWhenUnused(); c.closed != 1 {
		t.Error("not closed, and nobody uses it")
	}
}

func TestReadSnapshot(t *testing.T) {
	t.Parallel()
	s, err := parseSnapshot(sse.Event{Data: []byte(`{"version":"1","workers":[{"id":"w"}],"models":[{"id":"m"}]}`)}, "gpu-1")
	if err != nil || s.Workers[0].Hive != "gpu-1" || s.Models[0].Hive != "gpu-1" || s.Machine.Alias != "gpu-1" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := parseSnapshot(sse.Event{Comment: true, Data: []byte("still here")}, "a"); s != nil || err != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := parseSnapshot(sse.Event{Data: []byte("{")}, "a"); err == nil {
		t.Error("half a snapshot was read")
	}
}

var _ pkgmgr.Host = (*closing)(nil)
