package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Runner runs a program and returns its output. The error is exec.ErrNotFound if the program
// does not exist, ctx.Err() if ctx is done first, or the reason why the program cannot be
// started. An exit code other than 0 is not an error.
type Runner func(ctx context.Context, name string, args ...string) (Result, error)

// Result is the output and exit code of a program.
type Result struct {
	Stdout, Stderr []byte // the first 4 MiB of each
	ExitCode       int    // -1 if a signal terminated the program
}

// maxOutput is the maximum size of the output of a tool, in bytes. The rest is discarded.
const maxOutput = 4 << 20

// killedExitTimeout is the time that a killed tool may take to exit. A tool that is blocked in a
// driver does not exit.
const killedExitTimeout = time.Second

// toolDirs returns the directories to search after PATH, because the PATH of a daemon or SSH
// session may not contain them.
func toolDirs() []string {
	return []string{"/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/rocm/bin", "/usr/local/nvidia/bin", "/usr/lib/wsl/lib"}
}

// Tools runs the vendors' tools and records tools that cannot be killed. Its method Run is a
// [Runner]. The zero value is ready to use. Tools must not be copied and is safe for
// concurrent use.
type Tools struct {
	kill        func(*exec.Cmd) // for tests; nil means killGroup
	exitTimeout time.Duration   // for tests; 0 means killedExitTimeout

	mu   sync.Mutex
	hung []*HangError // hanging processes, oldest first
}

// HangError reports that a tool was not started because an earlier process of the tool was
// killed but has not exited: the process is blocked in a kernel driver and does not receive
// signals. A new process would hang, too.
type HangError struct {
	Tool  string
	PID   int       // of the process that hangs
	Since time.Time // start time of the process
}

// Error returns the tool, the time since which it has been hanging, and the PID.
func (e *HangError) Error() string {
	return fmt.Sprintf("%s has been hanging since %s: process %d was killed but has not exited; the driver may be stuck",
		e.Tool, e.Since.UTC().Format(time.RFC3339), e.PID)
}

// Run searches for the program in PATH and in the vendors' default directories. It runs the
// program with the C locale in a new process group, and kills the group when ctx is done. If a
// killed process does not exit, Run returns a *[HangError] for programs with this name until
// the process has exited.
func (t *Tools) Run(ctx context.Context, name string, args ...string) (Result, error) {
	path, err := findTool(name)
	if err != nil {
		return Result{}, err
	}
	if hang := t.hangingProcess(name); hang != nil {
		return Result{}, hang
	}
	var stdout, stderr limitedBuffer
	cmd := exec.Command(path, args...) // not CommandContext: it would not kill the group
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = killedExitTimeout // a child of the tool may keep the output open
	setProcessGroup(cmd)
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	since := time.Now()
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case err = <-exited:
	case <-ctx.Done():
		t.killTool(cmd, &HangError{Tool: name, PID: cmd.Process.Pid, Since: since}, exited)
		return Result{}, ctx.Err()
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		killGroup(cmd) // remaining children of the tool
	case err != nil && !errors.As(err, &exit):
		return Result{}, fmt.Errorf("cannot run %s: %w", path, err)
	}
	return Result{Stdout: stdout.data, Stderr: stderr.data, ExitCode: cmd.ProcessState.ExitCode()}, nil
}

// killTool kills a tool. If the tool does not exit in time, killTool records hang until the tool
// exits.
func (t *Tools) killTool(cmd *exec.Cmd, hang *HangError, exited <-chan error) {
	kill, timeout := t.kill, t.exitTimeout
	if kill == nil {
		kill = killGroup
	}
	if timeout == 0 {
		timeout = killedExitTimeout
	}
	kill(cmd)
	select {
	case <-exited: //nolint:errcheck // the tool was killed
		return
	case <-time.After(timeout): // do not read the buffers: the command still uses them
	}
	t.mu.Lock()
	t.hung = append(t.hung, hang)
	t.mu.Unlock()
	go func() {
		<-exited //nolint:errcheck // the tool was killed
		t.mu.Lock()
		t.hung = slices.DeleteFunc(t.hung, func(h *HangError) bool { return h == hang })
		t.mu.Unlock()
	}()
}

// hangingProcess returns the oldest hanging process of a tool, or nil.
func (t *Tools) hangingProcess(name string) *HangError {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.hung {
		if h.Tool == name {
			return h
		}
	}
	return nil
}

// findTool returns the path of a program, or exec.ErrNotFound.
func findTool(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range toolDirs() {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// limitedBuffer keeps the first maxOutput bytes and discards the rest.
type limitedBuffer struct{ data []byte }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.data = append(b.data, p[:min(len(p), maxOutput-len(b.data))]...)
	return len(p), nil
}
