//go:build unix

package demo

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup keeps a command out of the terminal's Ctrl-C, which is for the demo:
// it passes the interrupt on once, when its context ends.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
}
