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

// DefaultTimeout is how long one call of a vendor's tool may take.
const DefaultTimeout = 10 * time.Second

// Detector looks for accelerators. The zero value is ready to use; its fields
// are set before the first call, and its methods may be called at once from
// several goroutines.
//
// Keep one where you look more than once, and do not copy it: it shares one call
// between those who ask a tool the same at the same time, and remembers tools that
// hang so that the next look does not add another.
type Detector struct {
	// Timeout limits each call of a tool; 0 means DefaultTimeout.
	Timeout time.Duration
	// Run runs a tool; nil means the Run of [Tools] of its own. It is called from
	// several goroutines at once, but not with the same command line.
	Run Runner
	// Sys and Proc are where sysfs and procfs are; empty means /sys and /proc.
	Sys, Proc string

	goos     string // for tests and recordings; empty means runtime.GOOS
	recorded sysfs  // what [Parse] reads in place of Sys
	tools    Tools
	calls    calls
}

// Detect finds the devices of all vendors, and what else a [Report] tells. Its
// error is ctx's own; a vendor's failure is a Device with Error set.
//
// On NVIDIA it takes two calls of nvidia-smi, made at once: none of the columns that
// the quick query for devices can be asked for is the CUDA version, which stands in
// the header of the plain table. [Detector.Devices] does without it.
func (d *Detector) Detect(ctx context.Context) (Report, error) {
	var cuda string
	var all sync.WaitGroup
	if d.os() != "darwin" {
		all.Go(func() { cuda = d.cudaVersion(ctx) })
	}
	devices, err := d.Devices(ctx)
	all.Wait()
	if err != nil {
		return Report{}, err
	}
	return Report{Devices: devices, CUDA: cuda}, nil
}

// Devices finds the devices of all vendors: the quick look, for those who look
// often. They are sorted as in a [Report], and never nil. The error is ctx's own; a
// vendor's failure is a Device with Error set.
func (d *Detector) Devices(ctx context.Context) ([]Device, error) {
	var found [3][]Device
	var all sync.WaitGroup
	if d.os() == "darwin" {
		found[0] = d.apple(ctx)
	} else {
		cards := d.pciCards()
		all.Go(func() { found[0] = d.nvidia(ctx, of(cards, NVIDIA)) })
		all.Go(func() { found[1] = d.hipOrder(d.withArchitecture(d.amd(ctx, of(cards, AMD)))) })
		all.Go(func() { found[2] = d.intel(ctx, of(cards, Intel)) })
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("detect GPUs: %w", err)
	}
	devices := append([]Device{}, slices.Concat(found[:]...)...) // [] in JSON, not null
	sortDevices(devices)
	return devices, nil
}

// Processes lists the processes that hold memory on the devices, with their
// owners. Machines without a tool that knows, such as Apple's, give none. If a
// tool fails, the others' processes come together with an error in its words.
//
// Inside a container the tools may give process ids of the host, whose owners
// cannot be seen there.
func (d *Detector) Processes(ctx context.Context) ([]Process, error) {
	var found [3][]Process
	var failed [3]error
	var all sync.WaitGroup
	for i, list := range []func(context.Context) ([]Process, error){
		d.nvidiaProcesses, d.amdProcesses, d.intelProcesses,
	} {
		all.Go(func() { found[i], failed[i] = list(ctx) })
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list GPU processes: %w", err)
	}
	processes := append([]Process{}, slices.Concat(found[:]...)...) // [] in JSON, not null
	for i := range processes {
		processes[i].User = owner(d.proc(), processes[i].PID)
	}
	sortProcesses(processes)
	if err := errors.Join(failed[:]...); err != nil {
		return processes, fmt.Errorf("list GPU processes: %w", err)
	}
	return processes, nil
}

// toolError says that a tool could not be run, or did not do its work.
type toolError struct {
	tool  string
	words string // what it said, in one line
	err   error  // nil if it ended by itself
}

func (e *toolError) Error() string { return e.words }
func (e *toolError) Unwrap() error { return e.err }

// ask has a tool run under the time limit. The result is what it printed, also
// when it failed; the error is then a *toolError.
func (d *Detector) ask(ctx context.Context, tool string, args ...string) (Result, error) {
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
		return r, &toolError{tool, fmt.Sprintf("%s did not answer within %s and was killed", tool, limit), err}
	case err != nil:
		return r, &toolError{tool, fmt.Sprintf("%s could not be run: %v", tool, err), err}
	case r.ExitCode != 0:
		return r, &toolError{tool: tool, words: r.complaint(tool)}
	}
	return r, nil
}

// complaint is what a failed tool said, in one line.
func (r Result) complaint(tool string) string {
	said := oneLine(string(r.Stdout) + "\n" + string(r.Stderr))
	if said == "" {
		return fmt.Sprintf("%s failed with exit code %d and said nothing", tool, r.ExitCode)
	}
	return said
}

// oneLine joins text to a line of bounded length, fit for a table or a log.
func oneLine(text string) string {
	const most = 500
	line := strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if r := []rune(line); len(r) > most {
		line = string(r[:most]) + "…"
	}
	return line
}

// missing is whether a tool is not installed.
func missing(err error) bool { return errors.Is(err, exec.ErrNotFound) }

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
