//go:build !unix

package sshx

import (
	"os"
	"os/exec"
	"time"
)

// Without Unix process groups, only the program itself is terminated.

func setProcessGroup(*exec.Cmd) {}

func hangUpGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func killGroup(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func waitOrKillGroup(cmd *exec.Cmd) {
	kill := time.AfterFunc(localGracePeriod, func() { killGroup(cmd) })
	_ = cmd.Wait()
	kill.Stop()
}

func exitStatus(state *os.ProcessState) (status int, signal string) { return state.ExitCode(), "" }
