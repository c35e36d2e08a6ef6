package queen

import (
	"sync"

	"github.com/rbee-keeper/rbee/pkgmgr"
)

// heldHost is a connection that is held for everybody, and closed when it is given
// up and the last one who uses it has done.
type heldHost struct {
	pkgmgr.Host

	mu      sync.Mutex
	users   int
	dropped bool
}

// lend gives the connection to somebody, who closes what is given and not the
// connection.
func (h *heldHost) lend() pkgmgr.Host {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.users++
	return &lentHost{Host: h.Host, from: h}
}

// drop gives the connection up.
func (h *heldHost) drop() { h.release(func() { h.dropped = true }) }

func (h *heldHost) release(change func()) {
	h.mu.Lock()
	change()
	last := h.dropped && h.users == 0
	h.mu.Unlock()
	if last {
		_ = h.Host.Close() // nothing is lost by then
	}
}

// lentHost is a held connection in somebody's hands.
type lentHost struct {
	pkgmgr.Host
	from *heldHost
	once sync.Once
}

// Close implements [pkgmgr.Host].
func (l *lentHost) Close() error {
	l.once.Do(func() { l.from.release(func() { l.from.users-- }) })
	return nil
}
