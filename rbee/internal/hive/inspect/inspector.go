// Package inspect reads the state of this machine: installed components, the daemon, and
// the hardware.
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

	// Detector finds the accelerators of the machine; nil means a default detector.
	Detector        *gpu.Detector
	defaultDetector gpu.Detector // reused by all calls
}
