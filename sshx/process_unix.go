//go:build unix

package sshx

import (
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setProcessGroup starts the program in a new process group, so that it can be terminated with its children.
func setProcessGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// hangUpGroup sends SIGHUP to the process group of the program.
func hangUpGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGHUP) }

// killGroup sends SIGKILL to the process group of the program.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// waitOrKillGroup waits for the program to exit. After localGracePeriod, it kills the process group.
func waitOrKillGroup(cmd *exec.Cmd) {
	kill := time.AfterFunc(localGracePeriod, func() { killGroup(cmd) })
	_ = cmd.Wait()
	kill.Stop()
}

// exitStatus returns the status as a shell reports it, and the name of the signal without SIG.
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
