//go:build !unix

package gpu

import "os/exec"

func ownGroup(*exec.Cmd) {}

// killGroup ends the program alone: there are no process groups here.
func killGroup(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
}
