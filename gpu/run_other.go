//go:build !unix

package gpu

import "os/exec"

func setProcessGroup(*exec.Cmd) {}

// killGroup kills only the program: this platform has no process groups.
func killGroup(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
}
