// Package proc identifies processes, so that rbee never signals a process that
// it did not start, and finds processes that belong together.
//
// The system reuses PIDs. An [ID] is a PID together with the start
// time of the process and the boot of the machine; this combination is never
// reused. [List] lists all processes of this user. [FindByEnv] lists only processes
// with a variable in their initial environment; descendants inherit the variable unless
// they clear it.
//
// Sources: proc(5) and proc_pid_stat(5) on Linux, sysctl(3) on macOS. On other
// systems no process can be identified, so none is ever signaled.
package proc

import (
	"os"
	"syscall"
)

// ID identifies one process permanently. The zero ID identifies no process.
type ID struct {
	PID       int    `json:"pid"`
	StartTime string `json:"start_time"`
	BootID    string `json:"boot_id"`
}

// Process is a process in the result of [List].
type Process struct {
	ID
	Parent int // PID
	Group  int // process group
}

// Identify returns the ID of the process that has this PID now. The error is
// os.ErrProcessDone if no process has the PID or the process is a zombie.
func Identify(pid int) (ID, error) { return identify(pid) }

// Alive reports whether the process still runs.
func (p ID) Alive() bool {
	if p.PID <= 1 || p.StartTime == "" {
		return false
	}
	now, err := identify(p.PID)
	return err == nil && now == p
}

// IsCurrentBoot reports whether p belongs to the current boot of the machine.
func (p ID) IsCurrentBoot() bool {
	now, err := bootID()
	return err == nil && now == p.BootID
}

// Signal signals the process, and never a later process with the same PID. The
// error is os.ErrProcessDone if the process has exited.
func (p ID) Signal(sig syscall.Signal) error {
	target, err := os.FindProcess(p.PID) // opens a pidfd where the system has them
	if err != nil {
		return err
	}
	defer target.Release() //nolint:errcheck // cannot be handled
	if !p.Alive() {
		return os.ErrProcessDone
	}
	return target.Signal(sig)
}

// List returns all running processes of this user, in no particular order.
func List() ([]Process, error) { return list() }

// FindByEnv returns the processes of this user that were started with the
// environment variable name set to value.
func FindByEnv(name, value string) ([]ID, error) {
	all, err := list()
	if err != nil {
		return nil, err
	}
	var found []ID
	for _, p := range all {
		if hasVariable(p.PID, name+"="+value) && p.Alive() {
			found = append(found, p.ID)
		}
	}
	return found, nil
}
