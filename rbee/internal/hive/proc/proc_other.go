//go:build !linux && !darwin

package proc

import "errors"

func identify(int) (ID, error)     { return ID{}, errors.ErrUnsupported }
func bootID() (string, error)      { return "", errors.ErrUnsupported }
func list() ([]Process, error)     { return nil, errors.ErrUnsupported }
func hasVariable(int, string) bool { return false }

// Memory is how much memory a process holds in bytes; not known here.
func Memory(int) int64 { return 0 }

// Arguments is the command line of a process; not known here.
func Arguments(int) []string { return nil }

// Holds tells whether [Wait] works here.
const Holds = false

// Wait waits until a child has ended, where that can be done without asking for
// its exit status; here it cannot.
func Wait(int) error { return errors.ErrUnsupported }

// Listener is the process among pids that listens on a TCP port; not known here.
func Listener(int, []int) (pid int, known bool) { return 0, false }
