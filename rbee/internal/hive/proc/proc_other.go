//go:build !linux && !darwin

package proc

import "errors"

func identify(int) (ID, error)     { return ID{}, errors.ErrUnsupported }
func bootID() (string, error)      { return "", errors.ErrUnsupported }
func list() ([]Process, error)     { return nil, errors.ErrUnsupported }
func hasVariable(int, string) bool { return false }

// Memory returns 0: the resident memory of a process is unknown on this system.
func Memory(int) int64 { return 0 }

// Arguments returns nil: the command line of a process is unknown on this system.
func Arguments(int) []string { return nil }

// CanWait reports whether [Wait] is supported on this system.
const CanWait = false

// Wait returns errors.ErrUnsupported: this system cannot wait for a child without
// reaping it.
func Wait(int) error { return errors.ErrUnsupported }

// Listener returns 0 and false: this system does not report which process listens
// on a port.
func Listener(int, []int) (pid int, known bool) { return 0, false }
