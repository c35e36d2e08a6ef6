// Package gpu detects the NVIDIA, AMD, Intel and Apple accelerators of a machine.
//
// # Detection
//
// The package runs the tool of each vendor. It reads the PCI devices in /sys for details
// that the tools do not report and for cards without a working driver:
//
//	NVIDIA  nvidia-smi: one run for the devices, and one for the CUDA version if requested
//	AMD     amd-smi, or else rocm-smi, or else the files of amdgpu in /sys
//	Intel   discrete cards in /sys, with details from xpu-smi if it is installed;
//	        without it, the used memory is unknown
//	Apple   system_profiler and sysctl; memory is shared with the CPU
//
// The tools of all vendors run in parallel, each with a time limit. A tool that hangs, for
// example because of a stuck driver, is killed with all its children. If it does not exit
// even then, a [Detector] does not start the tool again until it has exited.
//
// [Detector.Processes] reports the processes that use device memory: compute processes, and
// for NVIDIA also graphics processes.
//
// # Errors
//
// A card whose driver or tool fails is a Device with Error set to the message of the tool. An
// empty list means that the machine has no accelerator. Values that a tool does not report
// are nil or empty, not zero.
//
// The package does not require root, and does not write files or change device settings.
package gpu

import (
	"cmp"
	"context"
	"sort"
)

// Vendor is the vendor of a device.
type Vendor string

// The supported vendors.
const (
	NVIDIA Vendor = "nvidia"
	AMD    Vendor = "amd"
	Intel  Vendor = "intel"
	Apple  Vendor = "apple"
)

// Device is an accelerator.
type Device struct {
	// Index is the device's index in its vendor's tool, or -1 if unknown. For NVIDIA it is
	// the index in CUDA_VISIBLE_DEVICES if CUDA_DEVICE_ORDER is PCI_BUS_ID. For AMD it is
	// the index in HIP_VISIBLE_DEVICES if the kernel lists all devices as compute nodes;
	// amd-smi may use another order. Unlike UUID, the index can change after a reboot.
	Index  int    `json:"index"`
	Vendor Vendor `json:"vendor"`
	UUID   string `json:"uuid,omitempty"`
	Name   string `json:"name,omitempty"`
	// PCIBusID is the PCI address domain:bus:device.function in lower case, as in /sys:
	// "0000:41:00.0".
	PCIBusID string `json:"pci_bus_id,omitempty"`

	// MemoryTotal is in bytes; 0 means unknown.
	MemoryTotal uint64 `json:"memory_total,omitempty"`
	// MemoryUsed and MemoryFree are in bytes; nil means unknown. Their sum can be less than
	// the total because drivers reserve memory.
	MemoryUsed *uint64 `json:"memory_used,omitempty"`
	MemoryFree *uint64 `json:"memory_free,omitempty"`
	// MemoryReserved is the part of the free memory, in bytes, that is reserved for workers
	// that are loading and have not allocated it yet. The hive sets it, not the detector.
	MemoryReserved uint64 `json:"memory_reserved,omitempty"`
	// Unified reports whether the device shares main memory with the CPU, as Apple devices,
	// AMD APUs and NVIDIA boards such as the GB10 do. The memory of an APU is the sum of its
	// carve-out and the main memory that the driver can map (GTT). The memory of the NVIDIA
	// boards is unknown, because nvidia-smi does not report it.
	Unified bool `json:"unified,omitempty"`

	// Driver is the version of the kernel driver, such as "570.86.15".
	Driver string `json:"driver,omitempty"`
	// ComputeCapability is the compute capability of an NVIDIA device, such as "9.0".
	ComputeCapability string `json:"compute_capability,omitempty"`
	// Architecture is the compiler target of an AMD device, such as "gfx942", or the Metal
	// family of an Apple device, such as "metal3".
	Architecture string `json:"architecture,omitempty"`
	// MIG reports whether the multi-instance mode of an NVIDIA device is enabled; nil if
	// the device does not support it.
	MIG *bool `json:"mig,omitempty"`

	// Utilization is in percent; nil means unknown.
	Utilization *float64 `json:"utilization,omitempty"`
	// Temperature is in degrees Celsius; nil means unknown.
	Temperature *float64 `json:"temperature,omitempty"`
	// Power is the current draw in watts; nil means unknown.
	Power *float64 `json:"power,omitempty"`

	// Error is the reason why the device cannot be used, with the message of the tool or
	// driver; empty means that it can be used.
	Error string `json:"error,omitempty"`
}

// Available returns the free memory that is not reserved, in bytes. known reports whether the
// free memory is known.
func (d *Device) Available() (n uint64, known bool) {
	if d.MemoryFree == nil {
		return 0, false
	}
	return *d.MemoryFree - min(d.MemoryReserved, *d.MemoryFree), true
}

// Report is the result of [Detect].
type Report struct {
	// Devices are sorted by vendor, index and PCI address.
	Devices []Device `json:"devices"`
	// CUDA is the newest CUDA version that the NVIDIA driver supports, such as "12.8";
	// empty if unknown.
	CUDA string `json:"cuda,omitempty"`
}

// Usable returns the devices without an error.
func (r Report) Usable() []Device {
	var usable []Device
	for _, d := range r.Devices {
		if d.Error == "" {
			usable = append(usable, d)
		}
	}
	return usable
}

// Process is a process that uses memory of a device. A process that uses several devices is
// listed once for each device.
type Process struct {
	Vendor Vendor `json:"vendor"`
	// DeviceUUID is the Device.UUID; empty if the tool does not report it.
	DeviceUUID string `json:"device_uuid,omitempty"`
	PID        int    `json:"pid"`
	// Name is the program as reported by the tool, often its path.
	Name string `json:"name,omitempty"`
	// Memory is the used device memory in bytes; nil means unknown.
	Memory *uint64 `json:"memory,omitempty"`
	// User is the user name of the process owner, or the user ID if the owner has no name.
	// It is empty if the process has exited or is not visible.
	User string `json:"user,omitempty"`
}

// Detect detects the accelerators with the default settings; see [Detector.Detect].
func Detect(ctx context.Context) (Report, error) {
	return (&Detector{}).Detect(ctx)
}

func sortDevices(devices []Device) {
	sort.Slice(devices, func(i, j int) bool {
		a, b := &devices[i], &devices[j]
		return cmp.Or(
			cmp.Compare(a.Vendor, b.Vendor),
			cmp.Compare(uint(a.Index), uint(b.Index)), // -1 is last
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
