package service

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// detachedManager runs the daemon as a process in a new session (setsid), so that the daemon keeps
// running when the SSH connection is closed.
type detachedManager struct{ s *Service }

// Name implements [Manager].
func (detachedManager) Name() string                       { return Detached }
func (detachedManager) File() (string, error)              { return "", nil }
func (detachedManager) Enable(context.Context, bool) error { return nil }
func (detachedManager) Stop(context.Context) error         { return nil } // the caller stops the process itself
func (detachedManager) Remove(context.Context) error       { return nil }

// Start implements [Manager].
func (d detachedManager) Start(context.Context, bool) (<-chan struct{}, error) {
	out, err := os.OpenFile(d.s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	home, err := d.s.userHome()
	if err != nil {
		return nil, err
	}
	setCloseOnExec()
	cmd := exec.Command(d.s.Program, d.s.Args...) //nolint:gosec // runs rbee itself, without ctx, because the daemon must keep running when ctx ends
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = slices.Concat(d.s.Inherited, loginEnv(), []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}, d.s.Env, d.s.managerEnv(Detached))
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the daemon logs the reason of its exit
		close(exited)
	}()
	return exited, nil
}

// setCloseOnExec prevents the daemon from inheriting the open files of this process: a pipe
// of the SSH session would keep that session open.
func setCloseOnExec() {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(filepath.Base(e.Name())); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

// loginEnv returns the variables of the login session that a service manager would set for
// the daemon.
func loginEnv() []string { return Environ("XDG_RUNTIME_DIR", "USER", "LOGNAME") }
