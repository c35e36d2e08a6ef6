package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// sharedHost is a connection with several users. After closeWhenUnused, the release of the
// last user closes the connection.
type sharedHost struct {
	pkgmgr.Host

	mu      sync.Mutex
	users   int
	closing bool
}

// acquire returns the connection for one user. Closing it releases the user.
func (h *sharedHost) acquire() pkgmgr.Host {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users++
	return &acquiredHost{Host: h.Host, shared: h}
}

// closeWhenUnused closes the connection once it has no users.
func (h *sharedHost) closeWhenUnused() { h.release(func() { h.closing = true }) }

func (h *sharedHost) release(change func()) {
	h.mu.Lock()
	change()
	last := h.closing && h.users == 0
	h.mu.Unlock()
	if last {
		_ = h.Host.Close() // nothing depends on the error
	}
}

// acquiredHost is the connection of one user of a sharedHost.
type acquiredHost struct {
	pkgmgr.Host
	shared *sharedHost
	once   sync.Once
}

// Close implements [pkgmgr.Host].
func (h *acquiredHost) Close() error {
	h.once.Do(func() { h.shared.release(func() { h.shared.users-- }) })
	return nil
}

// daemonHost is an acquired connection to a hive whose daemon responds.
type daemonHost struct {
	pkgmgr.Host
	client *client.Client
}

var _ pkgmgr.StateReader = (*daemonHost)(nil)

// maxStateSize limits the state that a daemon reports, in bytes.
const maxStateSize = 64 << 20

// ReadState implements [pkgmgr.StateReader].
func (h *daemonHost) ReadState(ctx context.Context, o pkgmgr.ReadOptions) (*wire.State, error) {
	query := url.Values{}
	if o.Deep {
		query.Set("deep", "1")
	}
	if o.Devices {
		query.Set("devices", "1")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.client.URL+wire.StatePath+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+string(h.client.Token))
	resp, err := h.client.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the hive returned %s", resp.Status)
	}
	s := new(wire.State)
	return s, json.NewDecoder(io.LimitReader(resp.Body, maxStateSize)).Decode(s)
}
