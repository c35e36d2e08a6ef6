// Package inspect reads the state of this machine: what is installed, whether the daemon
// runs, and what the machine has.
package inspect

import (
	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/verify"
)

// Inspector reads the state of this machine.
type Inspector struct {
	Home     *home.Dir
	Store    *installed.Store
	Daemon   *control.Daemon
	Verifier *verify.Verifier

	// Detector finds the machine's accelerators; nil is the usual one, of its own.
	Detector        *gpu.Detector
	defaultDetector gpu.Detector // the usual one, which must be the same at each look
}
