// Package verify runs the verify commands of workers and remembers which have passed
// since the machine was booted.
package verify

import (
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
)

// Verifier runs the verify commands of installed workers, one at a time on this
// machine.
type Verifier struct {
	Home  *home.Dir
	Store *installed.Store
}
