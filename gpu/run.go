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

// Runner runs a program and returns what it printed. The error is
// exec.ErrNotFound if there is no such program, ctx's error if ctx ended
// first, or why it could not be started; a program that ends with a code other
// than 0 is no error.
type Runner func(ctx context.Context, name string, args ...string) (Result, error)

// Result is what a program printed, and how it ended.
type Result struct {
	Stdout, Stderr []byte // the first 4 MiB of each
	ExitCode       int    // -1 if a signal ended it
}

// maxOutput keeps a tool gone mad from filling the memory.
const maxOutput = 4 << 20

// afterKill is how long a killed tool is waited for. One that sits in a
// driver's call never ends, so it is left behind then.
const afterKill = time.Second

// toolDirs are searched after PATH, which is short in a daemon or over SSH.
func toolDirs() []string {
	return []string{"/usr/bin", "/usr/sbin", "/usr/local/bin", "/opt/rocm/bin", "/usr/local/nvidia/bin", "/usr/lib/wsl/lib"}
}

// Tools runs the vendors' tools and remembers those that it could not end: its
// method Run is a [Runner]. The zero value is ready to use. It must not be copied,
// and may be used from several goroutines.
type Tools struct {
	kill     func(*exec.Cmd) // for tests; nil means killGroup
	patience time.Duration   // for tests; 0 means afterKill

	mu   sync.Mutex
	left []*HangError // left behind, oldest first
}

// HangError says that a tool is not started, because one that was started before
// has been killed and still has not ended: a driver holds it in the kernel, where
// no signal reaches it. Another one would hang beside it.
type HangError struct {
	Tool  string
	PID   int       // of the process that hangs
	Since time.Time // when that was started
}

func (e *HangError) Error() string {
	return fmt.Sprintf("%s still hangs since %s: its process %d was killed and has not ended, as behind a wedged driver",
		e.Tool, e.Since.UTC().Format(time.RFC3339), e.PID)
}

// Run searches PATH and the vendors' usual folders for the program, runs it in a
// process group of its own with the C locale, and kills that whole group when ctx
// ends. A program that cannot be killed is left behind; until it has ended, Run
// answers at once with a *[HangError] for a program of that name.
func (t *Tools) Run(ctx context.Context, name string, args ...string) (Result, error) {
	path, err := findTool(name)
	if err != nil {
		return Result{}, err
	}
	if hang := t.hanging(name); hang != nil {
		return Result{}, hang
	}
	var stdout, stderr limitedBuffer
	cmd := exec.Command(path, args...) // the group is ended here, not by the command's own context
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = afterKill // a child of the tool may hold its output open
	ownGroup(cmd)
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	since := time.Now()
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		t.end(cmd, &HangError{Tool: name, PID: cmd.Process.Pid, Since: since}, ended)
		return Result{}, ctx.Err()
	}
	var exit *exec.ExitError
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		killGroup(cmd) // what the tool left behind
	case err != nil && !errors.As(err, &exit):
		return Result{}, fmt.Errorf("wait for %s: %w", path, err)
	}
	return Result{Stdout: stdout.kept, Stderr: stderr.kept, ExitCode: cmd.ProcessState.ExitCode()}, nil
}

// end kills a tool. One that does not end soon is remembered until it does.
func (t *Tools) end(cmd *exec.Cmd, hang *HangError, ended <-chan error) {
	kill, patience := t.kill, t.patience
	if kill == nil {
		kill = killGroup
	}
	if patience == 0 {
		patience = afterKill
	}
	kill(cmd)
	select {
	case <-ended: //nolint:errcheck // a killed tool has nothing to say
		return
	case <-time.After(patience): // stuck in the kernel: its buffers are not ours to read
	}
	t.mu.Lock()
	t.left = append(t.left, hang)
	t.mu.Unlock()
	go func() {
		<-ended //nolint:errcheck // nor has it later
		t.mu.Lock()
		t.left = slices.DeleteFunc(t.left, func(l *HangError) bool { return l == hang })
		t.mu.Unlock()
	}()
}

// hanging is the oldest process of a tool that was left behind and has not ended,
// or nil.
func (t *Tools) hanging(name string) *HangError {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.left {
		if l.Tool == name {
			return l
		}
	}
	return nil
}

// findTool is the program's path, or exec.ErrNotFound.
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

// limitedBuffer keeps the first maxOutput bytes and lets the rest pass by.
type limitedBuffer struct{ kept []byte }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.kept = append(b.kept, p[:min(len(p), maxOutput-len(b.kept))]...)
	return len(p), nil
}
