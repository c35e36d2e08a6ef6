//go:build !unix

package sshx

import (
	"os"
	"os/exec"
	"time"
)

// This system has no process groups as Unix knows them: only the program itself is ended.

func ownGroup(*exec.Cmd) {}

func hangUp(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func endGroup(cmd *exec.Cmd) {
	kill := time.AfterFunc(localGrace, func() { killGroup(cmd) })
	_ = cmd.Wait()
	kill.Stop()
}

func exitStatus(state *os.ProcessState) (status int, signal string) { return state.ExitCode(), "" }
