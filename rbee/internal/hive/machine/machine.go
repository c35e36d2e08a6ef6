// Package machine reports the hardware of the local machine: processor, memory, disk,
// accelerators, and the processes that hold memory on the accelerators. It is read-only and
// does not need root.
//
// The accelerators come from package gpu, which runs the tools of the vendors. The other
// values come from the kernel. An unknown value is empty, 0 or nil; it is not an error.
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

// Machine is the local machine. Its zero value reports no disks. Its methods are safe for
// concurrent use.
type Machine struct {
	// Home is the rbee directory, and ModelsPath the directory of models. They need not
	// exist. If a path is empty, its disk is not reported.
	Home, ModelsPath string

	// Libc is the C library for the report, such as "glibc 2.36" or "musl"; empty if it is
	// unknown.
	Libc string

	// Detector finds the accelerators. It remembers tools that hang, so a caller should
	// reuse it. Nil means a new Detector for each call.
	Detector *gpu.Detector
}

// Capabilities returns the hardware of the machine. It runs all queries concurrently, so it
// takes as long as the slowest vendor tool; each tool has a time limit. The caller sets
// Alias and Processes of the report. An unusable accelerator is a device with Error set.
// Capabilities fails only if ctx ends.
func (m Machine) Capabilities(ctx context.Context) (*operations.HiveCapabilitiesReport, error) {
	r := &operations.HiveCapabilitiesReport{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Libc: m.Libc, ModelsPath: m.ModelsPath,
		CPU: operations.CPU{Model: cpuModel(), Threads: runtime.NumCPU()},
	}
	r.Hostname, _ = os.Hostname()
	r.Kernel = kernelRelease()
	r.MemoryTotal, r.MemoryAvailable = memory()

	var found gpu.Report
	var detectErr error
	var wg sync.WaitGroup
	wg.Go(func() { found, detectErr = m.detector().Detect(ctx) })
	wg.Go(func() { r.DiskTotal, r.DiskFree = diskSpace(ctx, m.Home) })
	wg.Go(func() { _, r.ModelsFree = diskSpace(ctx, m.ModelsPath) })
	wg.Wait()
	if detectErr != nil {
		return nil, detectErr
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot inspect the machine: %w", err)
	}
	r.CUDA = found.CUDA
	r.Devices = fillUnifiedMemory(found.Devices, r.MemoryTotal, r.MemoryAvailable)
	return r, nil
}

// Devices returns the accelerators, sorted by vendor and index. The list is never nil if
// err is nil. Devices fails only if ctx ends.
func (m Machine) Devices(ctx context.Context) ([]gpu.Device, error) {
	found, err := m.detector().Devices(ctx)
	if err != nil {
		return nil, err
	}
	total, available := memory()
	return fillUnifiedMemory(found, total, available), nil
}

// Processes returns the processes of all users that hold memory on accelerators, sorted by
// vendor, device and PID. If the tool of a vendor fails, Processes returns its error
// together with the processes of the other vendors.
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

// fillUnifiedMemory sets the missing memory values of devices that share the memory of the
// machine: they default to the total and available memory of the machine.
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
