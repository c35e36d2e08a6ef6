// Package install applies the steps of a request: it installs, replaces and removes
// workers and rbee itself.
//
// It creates a new version next to the old one, and then replaces the old one with one
// rename or one exchange; see package hive.
package install

import (
	"net/http"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/inspect"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/verify"
)

// Installer applies requests to an rbee directory.
type Installer struct {
	Home      *home.Dir
	Store     *installed.Store
	Daemon    *control.Daemon
	Inspector *inspect.Inspector
	Verifier  *verify.Verifier

	// HTTP downloads workers; nil means a default client that uses the proxies from the
	// environment.
	HTTP *http.Client

	// stall limits the time in which a transfer receives no data; 0 means
	// defaultStallTimeout.
	stall time.Duration

	// onTestPoint, if not nil, is called at the points where tests kill the process.
	onTestPoint func(point string)
}

func (in *Installer) testPoint(point string) {
	if in.onTestPoint != nil {
		in.onTestPoint(point)
	}
}
