package engine

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// StartProcess starts a process that leads its own session and process group and
// writes its output to out. If scope is not empty, the process runs in a systemd user
// scope of this name.
func StartProcess(argv, env []string, out *os.File, scope string) (*os.Process, error) {
	line := argv
	if scope != "" {
		// systemd-run creates the scope and then executes the program in the same process.
		line = append([]string{"systemd-run", "--user", "--scope", "--quiet", "--collect", "--unit=" + scope, "--"}, argv...)
	}
	cmd := exec.Command(line[0], line[1:]...) //nolint:gosec // an installed worker; it outlives every context here
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", argv[0], err)
	}
	return cmd.Process, nil
}

// Process is the process that leads the process group of a worker.
type Process struct {
	Exited chan struct{} // closed when the process has exited

	// pidReserved reports whether the system cannot reuse the PID, which is also the
	// process group ID, before the call of Reap.
	pidReserved bool

	// Reap waits until the process has exited, and returns its exit status, nil if
	// unknown, and a description of the exit.
	Reap func() (status *int, description string)
}

// PIDReserved reports whether the process group ID certainly still belongs to the
// worker.
func (c *Process) PIDReserved() bool { return c != nil && c.pidReserved }

// WatchChild watches a process that this hive started.
func WatchChild(id proc.ID, process *os.Process) *Process {
	c := &Process{Exited: make(chan struct{}), pidReserved: proc.CanWait}
	release, done := make(chan struct{}), make(chan struct{})
	var state *os.ProcessState
	go func() {
		defer close(done)
		if proc.Wait(id.PID) == nil {
			close(c.Exited)
			<-release
			state, _ = process.Wait()
			return
		}
		state, _ = process.Wait() // if this fails, describeExit reports an unknown status
		close(c.Exited)
	}()
	c.Reap = sync.OnceValues(func() (*int, string) {
		close(release)
		<-done
		return describeExit(state)
	})
	return c
}

// describeExit returns the exit status of a process, nil if unknown, and a
// description of the exit.
func describeExit(state *os.ProcessState) (status *int, description string) {
	if state == nil {
		return nil, "the process exited with unknown status"
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		description = fmt.Sprintf("the process was killed by signal %d (%s)", ws.Signal(), ws.Signal())
		if ws.Signal() == syscall.SIGKILL {
			description += "; the kernel sends this signal when memory runs out"
		}
		return nil, description
	}
	code := state.ExitCode()
	return &code, fmt.Sprintf("exit status %d", code)
}

// WatchProcess watches a process that is not a child of this process, until it has
// exited or stop is closed.
func WatchProcess(stop <-chan struct{}, id proc.ID) *Process {
	c := &Process{Exited: make(chan struct{})}
	c.Reap = func() (*int, string) {
		return nil, "the process exited with unknown status, because an earlier hive daemon started it"
	}
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for id.Alive() {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
		close(c.Exited)
	}()
	return c
}
