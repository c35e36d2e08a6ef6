package hive

import (
	"net/http"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
)

// Store reads what is installed in a home. It changes nothing.
type Store struct {
	Home *Dir

	// Version is that of the running rbee.
	Version string

	// Exe is the path of the running binary, as from os.Executable.
	Exe string
}

// Daemon finds, starts and stops the daemon of a home.
type Daemon struct {
	Home *Dir

	// Supervisor is what is to keep the daemon running, one of the names of managers
	// in package service. Empty picks what works on this machine.
	Supervisor string

	// Command runs a program of the system; nil means that of package service.
	Command service.Command
}

// Verifier runs the verify commands of installed workers, one at a time on this
// machine.
type Verifier struct {
	Home  *Dir
	Store *Store
}

// Inspector reads the state of this machine.
type Inspector struct {
	Home     *Dir
	Store    *Store
	Daemon   *Daemon
	Verifier *Verifier

	// Detector finds the machine's accelerators; nil is the usual one, of its own.
	Detector *gpu.Detector
	detector gpu.Detector // the usual one, which must be the same at each look
}

// Installer applies requests to a home.
type Installer struct {
	Home      *Dir
	Store     *Store
	Daemon    *Daemon
	Inspector *Inspector
	Verifier  *Verifier

	// HTTP downloads workers; nil means a client of rbee's own that takes
	// proxies from the environment.
	HTTP *http.Client

	// stall is how long a transfer may bring no byte; 0 means stallTimeout.
	stall time.Duration

	// reached, if not nil, is told of each point at which tests end the process.
	reached func(point string)
}

func (in *Installer) reach(point string) {
	if in.reached != nil {
		in.reached(point)
	}
}

// Server is the daemon of a home.
type Server struct {
	Home      *Dir
	Store     *Store
	Inspector *Inspector
	Verifier  *Verifier

	// HTTP downloads models; nil means the usual client of package models.
	HTTP *http.Client
}
