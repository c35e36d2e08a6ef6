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

// StartProcess makes a process, the leader of a session and a group of its own, that
// writes to a file. It is in a scope of systemd if that has a name.
func StartProcess(argv, env []string, out *os.File, scope string) (*os.Process, error) {
	line := argv
	if scope != "" {
		// systemd-run becomes the program itself once the scope is made.
		line = append([]string{"systemd-run", "--user", "--scope", "--quiet", "--collect", "--unit=" + scope, "--"}, argv...)
	}
	cmd := exec.Command(line[0], line[1:]...) //nolint:gosec // an installed worker; it outlives every context here
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = "/", env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", argv[0], err)
	}
	return cmd.Process, nil
}

// Process is the process that leads a worker's group.
type Process struct {
	Ended chan struct{} // closed when it has ended
	held  bool          // its pid is held until Reap, and with it its group's name

	// Reap returns how it ended, once it has; status is nil if it is not known.
	Reap func() (status *int, how string)
}

// HoldsPID reports whether the number of the group is surely the worker's still.
func (c *Process) HoldsPID() bool { return c != nil && c.held }

// Hold follows a process that this hive started.
func Hold(id proc.ID, process *os.Process) *Process {
	c := &Process{Ended: make(chan struct{}), held: proc.Holds}
	release, done := make(chan struct{}), make(chan struct{})
	var state *os.ProcessState
	go func() {
		defer close(done)
		if proc.Wait(id.PID) == nil {
			close(c.Ended)
			<-release
			state, _ = process.Wait()
			return
		}
		state, _ = process.Wait() // its status is lost if this fails, which is said below
		close(c.Ended)
	}()
	c.Reap = sync.OnceValues(func() (*int, string) {
		close(release)
		<-done
		return describe(state)
	})
	return c
}

// describe words how a process ended.
func describe(state *os.ProcessState) (status *int, how string) {
	if state == nil {
		return nil, "it ended; its exit status is not known"
	}
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		how = fmt.Sprintf("it was ended by signal %d (%s)", ws.Signal(), ws.Signal())
		if ws.Signal() == syscall.SIGKILL {
			how += ", which is how the kernel ends processes when memory runs out"
		}
		return nil, how
	}
	code := state.ExitCode()
	return &code, fmt.Sprintf("exit status %d", code)
}

// Follow watches a process that is nobody's child here, until stop is closed.
func Follow(stop <-chan struct{}, id proc.ID) *Process {
	c := &Process{Ended: make(chan struct{})}
	c.Reap = func() (*int, string) {
		return nil, "it ended; its exit status is not known, for an earlier hive had started it"
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
		close(c.Ended)
	}()
	return c
}
