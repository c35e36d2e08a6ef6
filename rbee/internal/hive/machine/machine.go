// Package machine tells what the machine it runs on has: processor, memory,
// disk, and the accelerators with the processes that hold their memory. It only
// looks. Nothing needs root, and nothing is changed.
//
// The accelerators come from package gpu, which asks the vendors' tools; the rest
// comes from the kernel. What cannot be found out is empty, 0 or nil: a machine
// that tells little is still a machine.
package machine

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
)

// Machine is this machine. Its zero value tells of it without disks. Its methods
// may be called at once from several goroutines.
type Machine struct {
	// Home is rbee's directory and ModelsPath where models lie; neither need
	// exist. Empty means that its disk is not told.
	Home, ModelsPath string

	// Libc is passed through to the report: "glibc 2.36", "musl" or empty.
	Libc string

	// Detector finds the accelerators. It remembers tools that hang, so whoever
	// looks more than once keeps one. Nil means a new one for each call.
	Detector *gpu.Detector
}

// Capabilities looks at everything at once, so it takes as long as the slowest
// of the vendors' tools, each of which has a time limit. The report's Alias and
// Processes are left to the caller, who may know whose they are. An accelerator that
// cannot be used is a device with its Error set. The error is ctx's own.
func (m Machine) Capabilities(ctx context.Context) (*operations.HiveCapabilitiesReport, error) {
	r := &operations.HiveCapabilitiesReport{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Libc: m.Libc, ModelsPath: m.ModelsPath,
		CPU: operations.CPU{Model: cpuModel(), Threads: runtime.NumCPU()},
	}
	r.Hostname, _ = os.Hostname()
	r.Kernel = kernelRelease()
	r.MemoryTotal, r.MemoryAvailable = memory()

	var found gpu.Report
	var detecting error
	var all sync.WaitGroup
	all.Go(func() { found, detecting = m.detector().Detect(ctx) })
	all.Go(func() { r.DiskTotal, r.DiskFree = diskSpace(ctx, m.Home) })
	all.Go(func() { _, r.ModelsFree = diskSpace(ctx, m.ModelsPath) })
	all.Wait()
	if detecting != nil {
		return nil, detecting
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("look at the machine: %w", err)
	}
	r.CUDA = found.CUDA
	r.Devices = fillUnifiedMemory(found.Devices, r.MemoryTotal, r.MemoryAvailable)
	return r, nil
}

// Devices lists the accelerators, sorted by vendor and index. The list is never
// nil. The error is ctx's own.
func (m Machine) Devices(ctx context.Context) ([]gpu.Device, error) {
	found, err := m.detector().Devices(ctx)
	if err != nil {
		return nil, err
	}
	total, available := memory()
	return fillUnifiedMemory(found, total, available), nil
}

// Processes lists the processes that hold memory on accelerators, whosever they
// are, sorted by vendor, device and process. If a vendor's tool fails, the
// others' processes come together with an error in its words.
func (m Machine) Processes(ctx context.Context) ([]operations.DeviceProcess, error) {
	found, err := m.detector().Processes(ctx)
	var processes []operations.DeviceProcess
	for _, p := range found {
		processes = append(processes, operations.DeviceProcess{
			Vendor: string(p.Vendor), DeviceUUID: p.DeviceUUID, PID: p.PID, Name: p.Name, User: p.User, Memory: p.Memory,
		})
	}
	return processes, err
}

func (m Machine) detector() *gpu.Detector {
	if m.Detector != nil {
		return m.Detector
	}
	return new(gpu.Detector)
}

// fillUnifiedMemory completes the devices: what shares the machine's
// memory has as much of it free as the machine has, if its tool says nothing else.
func fillUnifiedMemory(found []gpu.Device, total, available uint64) []gpu.Device {
	for i := range found {
		d := &found[i]
		if !d.Unified || d.Error != "" {
			continue
		}
		if d.MemoryTotal == 0 {
			d.MemoryTotal = total
		}
		if d.MemoryFree == nil && available > 0 {
			d.MemoryFree = new(min(available, d.MemoryTotal))
		}
	}
	return found
}
