// Package verify runs the verify commands of workers and records which of them passed
// since the last boot.
package verify

import (
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
)

// Verifier runs the verify commands of installed workers. Only one verify command runs on
// the machine at a time.
type Verifier struct {
	Home  *home.Dir
	Store *installed.Store
}
