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
	"slices"
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
	all.Go(func() { r.DiskTotal, r.DiskFree = disk(ctx, m.Home) })
	all.Go(func() { _, r.ModelsFree = disk(ctx, m.ModelsPath) })
	all.Wait()
	if detecting != nil {
		return nil, detecting
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("look at the machine: %w", err)
	}
	r.CUDA = found.CUDA
	r.Devices = devices(found.Devices, r.MemoryTotal, r.MemoryAvailable)
	return r, nil
}

// Devices lists the accelerators, sorted by vendor and index. The list is never
// nil. The error is ctx's own.
func (m Machine) Devices(ctx context.Context) ([]operations.Device, error) {
	found, err := m.detector().Devices(ctx)
	if err != nil {
		return nil, err
	}
	total, available := memory()
	return devices(found, total, available), nil
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

// devices brings the devices into the form of reports. What shares the machine's
// memory has as much of it free as the machine has, if its tool says nothing else.
func devices(found []gpu.Device, total, available uint64) []operations.Device {
	list := make([]operations.Device, 0, len(found))
	for _, d := range found {
		o := operations.Device{
			Index: d.Index, Vendor: string(d.Vendor), UUID: d.UUID, Name: d.Name, PCIBusID: d.PCIBusID,
			MemoryTotal: d.MemoryTotal, MemoryUsed: d.MemoryUsed, MemoryFree: d.MemoryFree, Unified: d.Unified,
			Driver: d.Driver, ComputeCapability: d.ComputeCapability, Architecture: d.Architecture, MIG: d.MIG,
			Utilization: d.Utilization, Temperature: d.Temperature, Power: d.Power, Error: d.Error,
		}
		if o.Unified && o.Error == "" {
			if o.MemoryTotal == 0 {
				o.MemoryTotal = total
			}
			if o.MemoryFree == nil && available > 0 {
				o.MemoryFree = new(min(available, o.MemoryTotal))
			}
		}
		list = append(list, o)
	}
	return slices.Clip(list)
}
