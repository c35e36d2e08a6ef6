package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// RunTool is the Runner that is used by default. It searches PATH and the
// vendors' usual folders, runs the program in a process group of its own with
// the C locale, and kills that whole group when ctx ends.
func RunTool(ctx context.Context, name string, args ...string) (Result, error) {
	path, err := findTool(name)
	if err != nil {
		return Result{}, err
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
	if err := cmd.Start(); err != nil {
		return Result{}, err
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		killGroup(cmd)
		select {
		case <-done: //nolint:errcheck // a killed tool has nothing to say
		case <-time.After(afterKill): // stuck in the kernel: its buffers are not ours to read
		}
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
