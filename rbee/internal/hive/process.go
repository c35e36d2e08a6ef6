package hive

import (
	"os"
	"syscall"
)

// process names one process for good: a pid alone is given again.
type process struct {
	PID       int    `json:"pid"`
	StartTime string `json:"start_time"`
	BootID    string `json:"boot_id"`
}

// alive reports whether this very process still runs.
func (p process) alive() bool {
	if p.PID <= 1 || p.StartTime == "" {
		return false
	}
	now, err := identify(p.PID)
	return err == nil && now == p
}

// signal signals this very process, and nobody who got its pid after it.
func (p process) signal(sig syscall.Signal) error {
	target, err := os.FindProcess(p.PID) // holds on to the process where the system can
	if err != nil {
		return err
	}
	defer target.Release() //nolint:errcheck // nothing to do about it
	if !p.alive() {
		return os.ErrProcessDone
	}
	return target.Signal(sig)
}
