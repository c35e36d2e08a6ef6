// Package install applies the steps of a request: it installs, replaces and removes
// workers and rbee itself.
//
// A new thing is built beside the old one and takes its place with one rename or one
// exchange; package hive says more.
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

// Installer applies requests to a home.
type Installer struct {
	Home      *home.Dir
	Store     *installed.Store
	Daemon    *control.Daemon
	Inspector *inspect.Inspector
	Verifier  *verify.Verifier

	// HTTP downloads workers; nil means a client of rbee's own that takes
	// proxies from the environment.
	HTTP *http.Client

	// stall is how long a transfer may bring no byte; 0 means defaultStallTimeout.
	stall time.Duration

	// onTestPoint, if not nil, is told of each point at which tests end the process.
	onTestPoint func(point string)
}

func (in *Installer) testPoint(point string) {
	if in.onTestPoint != nil {
		in.onTestPoint(point)
	}
}
