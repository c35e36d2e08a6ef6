package hive

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// detached is a process of its own session, which outlives the SSH connection.
type detached struct{ h *Hive }

func (detached) name() string                       { return SupervisorNone }
func (detached) enable(context.Context, bool) error { return nil }
func (detached) stop(context.Context) error         { return nil } // Hive.stop ends every daemon
func (detached) remove(context.Context) error       { return nil }

func (d detached) start(context.Context, bool) (<-chan struct{}, error) {
	out, err := os.OpenFile(d.h.path(logFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	user, err := d.h.userHome()
	if err != nil {
		return nil, err
	}
	keepOwnFiles()
	cmd := exec.Command(d.h.path(wire.Binary), "hive", "serve") //nolint:gosec // rbee itself; it outlives this context
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = append(append(passedOn(), sessionEnv()...), "HOME="+user, "PATH="+os.Getenv("PATH"), "RBEE_HOME="+d.h.Home, "RBEE_SUPERVISOR="+SupervisorNone)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its log says how it ended
		close(exited)
	}()
	return exited, nil
}

// keepOwnFiles keeps what this process inherited from the daemon: an open pipe
// of the SSH session would hold that session open.
func keepOwnFiles() {
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

// sessionEnv is what belongs to the user's session, which a service manager gives
// its services itself.
func sessionEnv() []string { return environ("XDG_RUNTIME_DIR", "USER", "LOGNAME") }
