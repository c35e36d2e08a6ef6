//go:build unix

package demo

import (
	"os"
	"os/exec"
	"syscall"
)

// setProcessGroup runs a command in its own process group, so that Ctrl-C reaches only
// the demo. The demo interrupts the command when its context is done.
func setProcessGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
}
