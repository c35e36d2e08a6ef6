// Package control finds, starts and stops the daemon of this machine.
package control

import (
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
)

// Daemon finds, starts and stops the daemon of a home.
type Daemon struct {
	Home *home.Dir

	// Supervisor is what is to keep the daemon running, one of the names of managers
	// in package service. Empty picks what works on this machine.
	Supervisor string

	// Command runs a program of the system; nil means that of package service.
	Command service.Command
}
