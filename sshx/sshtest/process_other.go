//go:build !unix

package sshtest

import (
	"os"
	"os/exec"
)

// This system has no process groups as Unix knows them: only the command's own process is ended.

func ownSession(*exec.Cmd) {}

func hangUpGroup(group int) { killGroup(group) }

func killGroup(group int) {
	if p, err := os.FindProcess(group); err == nil {
		_ = p.Kill()
	}
}

func groupLives(int) bool { return false }

func signalGroup(group int, _ []byte) { killGroup(group) }

func signalName(*os.ProcessState) string { return "" }
