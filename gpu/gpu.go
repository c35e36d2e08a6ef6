// Package gpu finds the accelerators of the machine it runs on: NVIDIA, AMD,
// Intel and Apple, or none.
//
// # How it looks
//
// Each vendor's own tool is asked, because it knows its driver best; the PCI
// list under /sys fills in what the tools leave out and tells of cards that no
// driver answers for:
//
//	NVIDIA  nvidia-smi: one call for the devices; another, where it is wanted, for the CUDA version
//	AMD     amd-smi, else rocm-smi, else amdgpu's files under /sys
//	Intel   discrete cards under /sys, with xpu-smi's details where it is installed:
//	        without it, nobody tells how much of their memory is in use
//	Apple   system_profiler and sysctl; memory is shared with the CPU
//
// All vendors are asked at once, so Detect takes as long as the slowest tool,
// and never longer than the time limit of each: a tool that hangs, as it does
// behind a wedged driver, is killed with all its children. One that even so does not
// end is left behind and remembered; until it ends, a [Detector] starts no other.
//
// Who holds memory is asked apart ([Detector.Processes]), of the same tools: whoever
// computes there, and on NVIDIA whoever draws.
//
// # A broken driver is not an empty machine
//
// A card whose driver or tool fails is a Device with Error set, in the tool's
// own words. An empty list means that there is no accelerator here.
// What a tool does not say is nil or empty, never a made-up zero.
//
// Nothing here needs root, writes a file, or changes a setting of a device.
package gpu

import (
	"cmp"
	"context"
	"sort"
)

// Vendor is who made a device.
type Vendor string

// The vendors that are looked for.
const (
	NVIDIA Vendor = "nvidia"
	AMD    Vendor = "amd"
	Intel  Vendor = "intel"
	Apple  Vendor = "apple"
)

// Device is one accelerator.
type Device struct {
	// Index is the device's number in its vendor's tool, or -1 if none was
	// given. NVIDIA's is the one that CUDA_VISIBLE_DEVICES means when
	// CUDA_DEVICE_ORDER is PCI_BUS_ID. AMD's is the one that HIP_VISIBLE_DEVICES
	// means, where the kernel's list of compute nodes tells it; amd-smi itself may
	// count in another order. It can change at a reboot; UUID does not.
	Index  int    `json:"index"`
	Vendor Vendor `json:"vendor"`
	UUID   string `json:"uuid,omitempty"`
	Name   string `json:"name,omitempty"`
	// PCIBusID is domain:bus:device.function in lower case, as under /sys:
	// "0000:41:00.0".
	PCIBusID string `json:"pci_bus_id,omitempty"`

	// MemoryTotal is in bytes; 0 means unknown.
	MemoryTotal uint64 `json:"memory_total,omitempty"`
	// MemoryUsed and MemoryFree are in bytes; nil means unknown. They need not
	// add up to the total: drivers keep some memory for themselves.
	MemoryUsed *uint64 `json:"memory_used,omitempty"`
	MemoryFree *uint64 `json:"memory_free,omitempty"`
	// MemoryReserved is the part of the free memory, in bytes, that is reserved for
	// workers that are loading and have not allocated it yet. The hive sets it; a
	// detector does not know it.
	MemoryReserved uint64 `json:"memory_reserved,omitempty"`
	// Unified is true where the memory is the machine's own, shared with the CPU:
	// Apple's, NVIDIA's on boards such as the GB10, whose tool does not say how
	// much there is, and AMD's in processors (APUs). The memory of an APU is its
	// carve-out together with what the driver may lend it of main memory (GTT).
	Unified bool `json:"unified,omitempty"`

	// Driver is the version of the kernel driver, such as "570.86.15".
	Driver string `json:"driver,omitempty"`
	// ComputeCapability is NVIDIA's, such as "9.0".
	ComputeCapability string `json:"compute_capability,omitempty"`
	// Architecture is AMD's target, such as "gfx942", or Apple's Metal family,
	// such as "metal3".
	Architecture string `json:"architecture,omitempty"`
	// MIG is whether NVIDIA's multi-instance mode is on; nil where the device
	// has none.
	MIG *bool `json:"mig,omitempty"`

	// Utilization is how busy the device is, in percent; nil means unknown.
	Utilization *float64 `json:"utilization,omitempty"`
	// Temperature is in degrees Celsius; nil means unknown.
	Temperature *float64 `json:"temperature,omitempty"`
	// Power is the current draw in watts; nil means unknown.
	Power *float64 `json:"power,omitempty"`

	// Error is why the device cannot be used, in the tool's or driver's own
	// words; empty means that it can.
	Error string `json:"error,omitempty"`
}

// Available returns the free memory that is not reserved, in bytes; known is false if
// the free memory is unknown.
func (d *Device) Available() (n uint64, known bool) {
	if d.MemoryFree == nil {
		return 0, false
	}
	return *d.MemoryFree - min(d.MemoryReserved, *d.MemoryFree), true
}

// Report is what Detect found.
type Report struct {
	// Devices are sorted by vendor, index and PCI address.
	Devices []Device `json:"devices"`
	// CUDA is the newest CUDA version that the NVIDIA driver runs, such as
	// "12.8"; empty if there is none, or it does not say.
	CUDA string `json:"cuda,omitempty"`
}

// Usable lists the devices without an error.
func (r Report) Usable() []Device {
	var ok []Device
	for _, d := range r.Devices {
		if d.Error == "" {
			ok = append(ok, d)
		}
	}
	return ok
}

// Process is a process that holds memory on a device. One process on two
// devices is listed twice.
type Process struct {
	Vendor Vendor `json:"vendor"`
	// DeviceUUID is the Device.UUID; empty where the tool gives none.
	DeviceUUID string `json:"device_uuid,omitempty"`
	PID        int    `json:"pid"`
	// Name is the program as the tool gives it, often its path.
	Name string `json:"name,omitempty"`
	// Memory is the device memory held, in bytes; nil means unknown.
	Memory *uint64 `json:"memory,omitempty"`
	// User owns the process: a name, or a number if the machine knows no name
	// for it. It is empty if the process has ended or cannot be seen.
	User string `json:"user,omitempty"`
}

// Detect looks with a zero Detector.
func Detect(ctx context.Context) (Report, error) {
	return (&Detector{}).Detect(ctx)
}

func sortDevices(devices []Device) {
	sort.Slice(devices, func(i, j int) bool {
		a, b := &devices[i], &devices[j]
		return cmp.Or(
			cmp.Compare(a.Vendor, b.Vendor),
			cmp.Compare(uint(a.Index), uint(b.Index)), // -1 goes last
			cmp.Compare(a.PCIBusID, b.PCIBusID),
			cmp.Compare(a.UUID, b.UUID),
			cmp.Compare(a.Error, b.Error),
		) < 0
	})
}

func sortProcesses(processes []Process) {
	sort.Slice(processes, func(i, j int) bool {
		a, b := &processes[i], &processes[j]
		return cmp.Or(
			cmp.Compare(a.Vendor, b.Vendor),
			cmp.Compare(a.DeviceUUID, b.DeviceUUID),
			cmp.Compare(a.PID, b.PID),
			cmp.Compare(a.Name, b.Name),
		) < 0
	})
}
