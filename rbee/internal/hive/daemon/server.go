// Package daemon implements the hive daemon: an HTTP server on loopback that runs runtime
// operations as jobs.
package daemon

import (
	"net/http"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/inspect"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/verify"
)

// Server is the daemon of an rbee directory.
type Server struct {
	Home      *home.Dir
	Store     *installed.Store
	Inspector *inspect.Inspector
	Verifier  *verify.Verifier

	// HTTP downloads models; nil means the default client of package models.
	HTTP *http.Client
}
