package gpu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// DefaultTimeout is the default time limit for each run of a vendor's tool.
const DefaultTimeout = 10 * time.Second

// Detector detects accelerators. The zero value is ready to use. Set the fields before the
// first call; the methods are safe for concurrent use.
//
// Use one Detector for repeated calls and do not copy it. Concurrent calls share one run of
// each tool, and a tool is not started again while an earlier run of the tool hangs.
type Detector struct {
	// Timeout is the time limit for each run of a tool; 0 means DefaultTimeout.
	Timeout time.Duration
	// Run runs a tool; nil means the method [Tools.Run] of an internal Tools value. Run is
	// called concurrently, but never twice at the same time with the same command line.
	Run Runner
	// Sys and Proc are the mount points of sysfs and procfs; empty means /sys and /proc.
	Sys, Proc string

	goos     string // for tests and recordings; empty means runtime.GOOS
	recorded sysfs  // used by [Parse] instead of Sys; nil otherwise
	tools    Tools
	calls    calls
}

// Detect returns the devices of all vendors and the CUDA version. It returns an error only if
// ctx is done; the error wraps ctx.Err(). If a vendor's tool or driver fails, the report
// contains a Device with Error set.
//
// For the CUDA version, Detect runs nvidia-smi a second time in parallel, because only the
// default output contains the version. [Detector.Devices] does not need this run.
func (d *Detector) Detect(ctx context.Context) (Report, error) {
	var cuda string
	var wg sync.WaitGroup
	if d.os() != "darwin" {
		wg.Go(func() { cuda = d.cudaVersion(ctx) })
	}
	devices, err := d.Devices(ctx)
	wg.Wait()
	if err != nil {
		return Report{}, err
	}
	return Report{Devices: devices, CUDA: cuda}, nil
}

// Devices returns the devices of all vendors, sorted as in a [Report]. It returns an error only
// if ctx is done; the error wraps ctx.Err(). Without an error, the result is not nil. If a
// vendor's tool or driver fails, the result contains a Device with Error set.
func (d *Detector) Devices(ctx context.Context) ([]Device, error) {
	var found [3][]Device
	var wg sync.WaitGroup
	if d.os() == "darwin" {
		found[0] = d.apple(ctx)
	} else {
		cards := d.pciCards()
		wg.Go(func() { found[0] = d.nvidia(ctx, cardsOf(cards, NVIDIA)) })
		wg.Go(func() { found[1] = d.withHIPIndices(d.withArchitecture(d.amd(ctx, cardsOf(cards, AMD)))) })
		wg.Go(func() { found[2] = d.intel(ctx, cardsOf(cards, Intel)) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot detect GPUs: %w", err)
	}
	devices := append([]Device{}, slices.Concat(found[:]...)...) // [] in JSON, not null
	sortDevices(devices)
	return devices, nil
}

// Processes returns the processes that use device memory, with their owners. The list is empty
// on machines without a tool that reports processes, such as Macs. If a tool fails, Processes
// returns the processes of the other vendors and an error.
//
// In a container, the tools may report PIDs of the host. The owners of these processes
// are unknown.
func (d *Detector) Processes(ctx context.Context) ([]Process, error) {
	var found [3][]Process
	var errs [3]error
	var wg sync.WaitGroup
	for i, list := range []func(context.Context) ([]Process, error){
		d.nvidiaProcesses, d.amdProcesses, d.intelProcesses,
	} {
		wg.Go(func() { found[i], errs[i] = list(ctx) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot list GPU processes: %w", err)
	}
	processes := append([]Process{}, slices.Concat(found[:]...)...) // [] in JSON, not null
	for i := range processes {
		processes[i].User = owner(d.proc(), processes[i].PID)
	}
	sortProcesses(processes)
	if err := errors.Join(errs[:]...); err != nil {
		return processes, fmt.Errorf("cannot list GPU processes: %w", err)
	}
	return processes, nil
}

// toolError reports that a tool cannot be run or failed.
type toolError struct {
	tool    string
	message string // one line
	err     error  // nil if the tool exited
}

func (e *toolError) Error() string { return e.message }
func (e *toolError) Unwrap() error { return e.err }

// runTool runs a tool with the time limit of d. If the tool fails, runTool returns its output
// and a *toolError.
func (d *Detector) runTool(ctx context.Context, tool string, args ...string) (Result, error) {
	limit := d.Timeout
	if limit <= 0 {
		limit = DefaultTimeout
	}
	run := d.Run
	if run == nil {
		run = d.tools.Run
	}
	r, err := d.calls.do(ctx, limit, run, tool, args...)
	var hang *HangError
	switch {
	case errors.As(err, &hang):
		return r, &toolError{tool, hang.Error(), err}
	case errors.Is(err, exec.ErrNotFound):
		return r, &toolError{tool, tool + " is not installed", err}
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return r, &toolError{tool, fmt.Sprintf("%s did not finish within %s and was killed", tool, limit), err}
	case err != nil:
		return r, &toolError{tool, fmt.Sprintf("cannot run %s: %v", tool, err), err}
	case r.ExitCode != 0:
		return r, &toolError{tool: tool, message: r.failureText(tool)}
	}
	return r, nil
}

// failureText returns the output of a failed tool in one line, or its exit code if the output
// is empty.
func (r Result) failureText(tool string) string {
	output := oneLine(string(r.Stdout) + "\n" + string(r.Stderr))
	if output == "" {
		return fmt.Sprintf("%s failed with exit code %d and no output", tool, r.ExitCode)
	}
	return output
}

// oneLine converts text to a single line of at most 500 characters, for tables and logs.
func oneLine(text string) string {
	const maxLength = 500
	line := strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if r := []rune(line); len(r) > maxLength {
		line = string(r[:maxLength]) + "…"
	}
	return line
}

// isNotInstalled reports whether err means that a tool is not installed.
func isNotInstalled(err error) bool { return errors.Is(err, exec.ErrNotFound) }

func (d *Detector) os() string {
	if d.goos != "" {
		return d.goos
	}
	return runtime.GOOS
}

func (d *Detector) sysfs() sysfs {
	switch {
	case d.recorded != nil:
		return d.recorded
	case d.Sys != "":
		return dirSysfs(d.Sys)
	}
	return dirSysfs("/sys")
}

func (d *Detector) proc() string {
	if d.Proc != "" {
		return d.Proc
	}
	return "/proc"
}
