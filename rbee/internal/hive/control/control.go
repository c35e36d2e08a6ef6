// Package control finds, starts and stops the hive daemon of this machine.
package control

import (
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
)

// Daemon finds, starts and stops the daemon of an rbee directory.
type Daemon struct {
	Home *home.Dir

	// Supervisor is the name of the service manager that runs the daemon, as defined in
	// package service. Empty selects the available manager of this machine.
	Supervisor string

	// Command runs a system program; nil means the default of package service.
	Command service.Command
}
