//go:build unix

package sshx

import (
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ownGroup gives the program a process group of its own, so that it can be ended with all its children.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// hangUp asks the program's group to end.
func hangUp(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGHUP) }

// killGroup ends what is left of the program's group.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// endGroup waits for the program's end, which it forces after a while.
func endGroup(cmd *exec.Cmd) {
	kill := time.AfterFunc(localGrace, func() { killGroup(cmd) })
	_ = cmd.Wait()
	kill.Stop()
}

// exitStatus is the status as a shell counts it, and the signal's name without SIG.
func exitStatus(state *os.ProcessState) (status int, signal string) {
	ws, ok := state.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		name := unix.SignalName(ws.Signal())
		if len(name) > 3 {
			name = name[3:]
		}
		return 128 + int(ws.Signal()), name
	}
	return state.ExitCode(), ""
}
