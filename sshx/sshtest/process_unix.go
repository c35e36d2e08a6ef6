//go:build unix

package sshtest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// startSession makes the command the leader of a new session and process group, as sshd does.
func startSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

func hangUpGroup(group int) { _ = syscall.Kill(-group, syscall.SIGHUP) }
func killGroup(group int)   { _ = syscall.Kill(-group, syscall.SIGKILL) }

func groupExists(group int) bool { return !errors.Is(syscall.Kill(-group, 0), syscall.ESRCH) }

// signalGroup sends the signal of a signal request to a process group.
func signalGroup(group int, payload []byte) {
	var msg struct{ Name string }
	if ssh.Unmarshal(payload, &msg) != nil {
		return
	}
	if sig := unix.SignalNum("SIG" + msg.Name); sig != 0 {
		_ = syscall.Kill(-group, sig)
	}
}

// signalName returns the name, without SIG, of the signal that terminated a process, or "" if no signal did.
func signalName(state *os.ProcessState) string {
	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !ws.Signaled() {
		return ""
	}
	return strings.TrimPrefix(unix.SignalName(ws.Signal()), "SIG")
}
