//go:build !unix

package sshtest

import (
	"os"
	"os/exec"
)

// Without Unix process groups, only the process of the command itself is terminated.

func startSession(*exec.Cmd) {}

func hangUpGroup(group int) { killGroup(group) }

func killGroup(group int) {
	if p, err := os.FindProcess(group); err == nil {
		_ = p.Kill()
	}
}

func groupExists(int) bool { return false }

func signalGroup(group int, _ []byte) { killGroup(group) }

func signalName(*os.ProcessState) string { return "" }
