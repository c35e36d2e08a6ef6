// Package proc names processes so that no stranger is ever taken for one of
// rbee's, and finds the ones that belong together.
//
// A process id alone is given again. An [ID] is a process id together with the
// start time of its process and the boot of the machine; all three together
// never come back. [List] is a picture of all processes of this user, [Marked]
// finds those that carry a variable in the environment which they were started
// with, as every descendant does that did not clear it.
//
// Sources: proc(5) and proc_pid_stat(5) on Linux, sysctl(3) on macOS. On other
// systems nothing can be identified, and so nothing is ever signaled.
package proc

import (
	"os"
	"syscall"
)

// ID names one process for good. The zero ID names none.
type ID struct {
	PID       int    `json:"pid"`
	StartTime string `json:"start_time"`
	BootID    string `json:"boot_id"`
}

// Process is a process in a [List].
type Process struct {
	ID
	Parent int // process id
	Group  int // process group
}

// Identify names the process that has this pid now. The error is
// os.ErrProcessDone if there is none, or if it has ended and only its exit
// status is left.
func Identify(pid int) (ID, error) { return identify(pid) }

// Alive reports whether this very process still runs.
func (p ID) Alive() bool {
	if p.PID <= 1 || p.StartTime == "" {
		return false
	}
	now, err := identify(p.PID)
	return err == nil && now == p
}

// ThisBoot reports whether the machine has not been started anew since.
func (p ID) ThisBoot() bool {
	now, err := bootID()
	return err == nil && now == p.BootID
}

// Signal signals this very process, and nobody who got its pid after it. The
// error is os.ErrProcessDone if it has ended.
func (p ID) Signal(sig syscall.Signal) error {
	target, err := os.FindProcess(p.PID) // holds on to the process where the system can
	if err != nil {
		return err
	}
	defer target.Release() //nolint:errcheck // nothing to do about it
	if !p.Alive() {
		return os.ErrProcessDone
	}
	return target.Signal(sig)
}

// List is all processes of this user that run, in no order.
func List() ([]Process, error) { return list() }

// Marked lists the processes of this user that were started with variable name
// set to value.
func Marked(name, value string) ([]ID, error) {
	all, err := list()
	if err != nil {
		return nil, err
	}
	var marked []ID
	for _, p := range all {
		if hasVariable(p.PID, name+"="+value) && p.Alive() {
			marked = append(marked, p.ID)
		}
	}
	return marked, nil
}
