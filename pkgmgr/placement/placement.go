// Package placement chooses the accelerators of a worker. It is pure: it does not
// read devices, start processes or wait.
//
// # Required memory
//
// A worker on n devices needs this much memory on each of them:
//
//	Estimate/n + Overhead
//
// If the engine reserves a fixed fraction of the memory of every device, as vLLM
// does, that fraction must be free and must be at least this large. The available
// memory of a device is its free memory, as the vendor's tool reports it, less the
// reservations of workers that are still loading. If the free memory is not known,
// the total memory counts as free. If the total is not known either, the device is
// assumed to have sufficient memory, and the reason of the decision mentions this.
//
// # Choice of devices
//
// Unless devices are requested by index, Place chooses the smallest allowed number
// of devices that fit, all of one vendor, and prefers those with the most
// available memory. It skips devices whose memory a stopping worker may still
// use. If only those fit, Place returns a [*WaitError], and the caller retries when
// the workers have exited. Devices in MIG mode are the last choice, because the
// vendor's tool reports the memory of the complete card, but an engine gets only
// one slice.
//
// If devices are requested by index, Place never chooses other devices.
//
// If a worker does not fit, the error contains the calculation, with one line for
// each device. In this case Place does not choose the CPU, because the worker would
// be much slower without a visible reason. The error has the reason
// [operations.ReasonInsufficientMemory] if stopping idle on-demand workers would free enough
// memory, and [operations.ReasonTooLarge] otherwise.
package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// anyVendor is the vendor of an engine that supports devices of every vendor.
const anyVendor = "any"

// Request describes the worker to place. Sizes are in bytes. Negative sizes count as 0.
type Request struct {
	// Worker and Model are the worker type and the model, for reasons and errors.
	// Model may be empty.
	Worker, Model string

	// Device selects devices, as in [operations.WorkerSpawn]: empty or "auto",
	// "none", or indices.
	Device string

	// Vendor is the only vendor that the engine supports: "nvidia", "amd", "intel"
	// or "apple". Empty and "any" mean all vendors.
	Vendor string

	// Devices contains the conditions under which the installed build of the engine runs
	// on a device; nil if it runs on every device of Vendor.
	Devices *wire.DeviceRequirements

	// UsesAccelerator means that the engine can use accelerators. If it is false, the worker
	// runs on the CPU, unless devices are requested by index.
	UsesAccelerator bool

	// RequiresAccelerator means that the engine cannot run without an accelerator.
	RequiresAccelerator bool

	// Estimate is the memory that the worker needs on all devices together. 0 means
	// that it is not known; then only Overhead is required.
	Estimate int64

	// Overhead is the additional memory on each device, for context and buffers.
	Overhead int64

	// Breakdown lists the parts of Estimate, such as "weights 15.0 GiB + cache
	// 2.0 GiB". It may be empty.
	Breakdown string

	// Fraction is the fraction of the total memory of each device that the engine
	// reserves, such as 0.9. It must be free, and the worker must fit into it. 0
	// means that the engine reserves nothing.
	Fraction float64

	// DeviceCounts are the numbers of devices that the engine can use, ascending;
	// nil means 1, 2, 4 or 8. They do not limit devices that are requested by index.
	DeviceCounts []int
}

// Device is an accelerator and its state on the hive.
type Device struct {
	gpu.Device

	// Draining contains the IDs of stopping workers that may still use memory of the
	// device.
	Draining []string

	// Reclaimable is the memory of idle on-demand workers, in bytes. The queen may
	// stop them to free memory.
	Reclaimable int64

	// unfit is the reason why the engine cannot run on the device. [Place] sets it.
	unfit string
}

// Decision is the result of [Place].
type Decision struct {
	// Devices are the devices of the worker, in the requested order, or by index if
	// none were requested. It is empty if the worker runs on the CPU.
	Devices []operations.WorkerDevice

	// Env contains the variables that make only these devices visible to the engine.
	// It is never nil. See [Place] for the variables.
	Env map[string]string

	// Reason explains the choice in one line, with the sizes.
	Reason string

	// Estimate is the memory that the worker is expected to use on all its devices,
	// with overheads and reservations of the engine, in bytes. It is reserved while
	// the worker loads. It is 0 on the CPU, or if it is not known.
	Estimate int64
}

// WaitError is the error of [Place] if the worker fits only on devices whose memory
// stopping workers may still use. The caller waits until those workers have exited, and
// retries.
type WaitError struct {
	Workers []string // IDs, sorted
	Vendor  string   // of the devices
	Devices []int    // indices, sorted
}

// Error returns a message with the workers and devices.
func (w *WaitError) Error() string {
	return fmt.Sprintf("waiting for %s to release memory on %s %s",
		strings.Join(w.Workers, ", "), w.Vendor, joinIndices(w.Devices))
}

// Place chooses the devices that the worker of r runs on, or the CPU. devices are all
// devices of the machine, in any order. They may be of several vendors, and some may be
// broken. Errors are [*operations.Error] or [*WaitError]. Equal arguments result in equal
// decisions.
//
// The environment of the decision contains the variables of one vendor and of Vulkan. Their
// values are device indices in PCI order, because some engines cannot read UUIDs:
//
//	NVIDIA  CUDA_DEVICE_ORDER=PCI_BUS_ID, CUDA_VISIBLE_DEVICES=0,1
//	AMD     HIP_VISIBLE_DEVICES=0,1
//	Intel   ONEAPI_DEVICE_SELECTOR=level_zero:0,1
//	Vulkan  GGML_VK_VISIBLE_DEVICES=0,1, numbered across all vendors; not set if a
//	        device is broken, because Vulkan may or may not count it
//	Apple   no variable: there is one device, and it cannot be hidden
//
// For the CPU, the environment hides the devices of every vendor on the machine.
func Place(r Request, devices []Device) (Decision, error) {
	r = r.normalize()
	devices = r.checkDevices(devices)
	switch r.Device {
	case operations.DeviceNone:
		if r.RequiresAccelerator {
			return Decision{}, errorf(operations.ReasonDeviceUnusable, "%s requires an accelerator, but device %q was requested", r.Worker, operations.DeviceNone)
		}
		return onCPU(devices, "using the CPU as requested"), nil
	case "", operations.DeviceAuto:
		if !r.UsesAccelerator && !r.RequiresAccelerator {
			return onCPU(devices, r.Worker+" uses no accelerator: using the CPU"), nil
		}
		return r.placeAuto(devices)
	default:
		return r.placeByIndex(devices)
	}
}

// normalize returns r with defaults, with sizes in their valid range, and with the
// conditions of Devices applied to the other fields.
func (r Request) normalize() Request {
	r.Estimate, r.Overhead = max(r.Estimate, 0), max(r.Overhead, 0)
	r.Fraction = min(r.Fraction, 1)
	if r.Vendor == anyVendor {
		r.Vendor = ""
	}
	if n := r.Devices; n != nil && r.Vendor == "" && n.Vendor != anyVendor && n.Vendor != wire.NoGPU {
		r.Vendor = n.Vendor
	}
	if r.Devices != nil && r.Devices.Vendor == wire.NoGPU && !r.RequiresAccelerator {
		r.UsesAccelerator = false
	}
	if r.DeviceCounts == nil {
		r.DeviceCounts = []int{1, 2, 4, 8}
	}
	return r
}

// placeAuto chooses devices. It first tries devices without stopping workers, then all
// devices as if the stopping workers had exited.
func (r Request) placeAuto(devices []Device) (Decision, error) {
	groups := r.vendorGroups(devices)
	if len(groups) == 0 {
		return r.placeWithoutDevice(devices)
	}
	idle := make([][]Device, len(groups))
	all := make([][]Device, len(groups))
	for i, g := range groups {
		for _, d := range g {
			if len(d.Draining) == 0 {
				idle[i] = append(idle[i], d)
			}
			all[i] = append(all[i], d.afterDrain())
		}
	}
	if chosen := r.choose(idle); chosen != nil {
		slices.SortFunc(chosen, byIndex)
		return r.decide(chosen, devices, fmt.Sprintf("most memory free of %s%s", count(len(slices.Concat(groups...)), "device"), r.unfitNote(devices))), nil
	}
	if chosen := r.choose(all); chosen != nil {
		return Decision{}, newWait(chosen)
	}
	return Decision{}, r.noFitError(groups, devices)
}

// choose returns the smallest allowed number of devices of one group that fit, or
// nil if the worker does not fit.
func (r Request) choose(groups [][]Device) []Device {
	for _, n := range r.DeviceCounts {
		for _, g := range groups {
			var fitting []Device
			for _, d := range g {
				if r.shortfall(d, n) == 0 {
					fitting = append(fitting, d)
				}
			}
			if n > 0 && len(fitting) >= n {
				slices.SortStableFunc(fitting, byPreference)
				return fitting[:n]
			}
		}
	}
	return nil
}

// vendorGroups returns the usable devices that the engine supports, grouped by vendor.
// The vendor of the device with the most available memory comes first.
func (r Request) vendorGroups(devices []Device) [][]Device {
	var groups [][]Device
	for _, vendor := range vendors(devices) {
		if r.Vendor != "" && r.Vendor != vendor {
			continue
		}
		var g []Device
		for _, d := range devices {
			if string(d.Vendor) == vendor && d.usable() {
				g = append(g, d)
			}
		}
		if len(g) > 0 {
			slices.SortFunc(g, byPreference)
			groups = append(groups, g)
		}
	}
	slices.SortStableFunc(groups, func(a, b []Device) int { return byAvailable(a[0], b[0]) })
	return groups
}

// decide returns the decision for the chosen devices. present are all devices of the
// machine, and basis describes how the devices were chosen.
func (r Request) decide(chosen, present []Device, basis string) Decision {
	d := Decision{Env: visibleEnv(chosen, present), Reason: r.reason(chosen, basis)}
	for _, c := range chosen {
		d.Devices = append(d.Devices, operations.WorkerDevice{Index: c.Index, Vendor: string(c.Vendor), UUID: c.UUID, Name: c.Name})
		expected := r.reservation(c)
		if r.Estimate > 0 {
			expected = max(expected, r.perDevice(len(chosen)))
		}
		d.Estimate = add(d.Estimate, expected)
	}
	return d
}

// placeWithoutDevice returns the decision for a machine without a device that the engine
// can use: the CPU, or an error if the engine cannot run on it.
func (r Request) placeWithoutDevice(devices []Device) (Decision, error) {
	kind := "accelerator"
	if r.Vendor != "" {
		kind = r.Vendor + " " + kind
	}
	if r.RequiresAccelerator {
		if len(devices) == 0 {
			return Decision{}, errorf(operations.ReasonDeviceUnusable, "%s requires an %s, but this machine has no accelerator", r.Worker, kind)
		}
		return Decision{}, errorf(operations.ReasonDeviceUnusable, "%s requires an %s, but none is usable:%s", r.Worker, kind, deviceLines(devices, Device.status))
	}
	if r.UsesAccelerator && len(r.unfitDevices(devices)) > 0 {
		return Decision{}, errorf(operations.ReasonDeviceUnusable, "the installed build of %s does not support the accelerators of this machine; use device %q to run it on the CPU:%s",
			r.Worker, operations.DeviceNone, deviceLines(devices, Device.status))
	}
	if len(devices) == 0 {
		return onCPU(devices, "no "+kind+" on this machine: using the CPU"), nil
	}
	return onCPU(devices, "no usable "+kind+": using the CPU ("+deviceList(devices, Device.status)+")"), nil
}

// onCPU returns a decision that hides all devices.
func onCPU(devices []Device, reason string) Decision {
	return Decision{Env: hiddenEnv(devices), Reason: reason}
}

// newWait returns the error for the stopping workers of the chosen devices.
func newWait(chosen []Device) *WaitError {
	w := &WaitError{}
	for _, d := range chosen {
		if len(d.Draining) > 0 {
			w.Vendor = string(d.Vendor)
			w.Workers = append(w.Workers, d.Draining...)
			w.Devices = append(w.Devices, d.Index)
		}
	}
	slices.Sort(w.Workers)
	w.Workers = slices.Compact(w.Workers)
	slices.Sort(w.Devices)
	return w
}

// errorf returns an error with [operations.CodeFailed].
func errorf(reason operations.Reason, format string, args ...any) *operations.Error {
	return &operations.Error{Code: operations.CodeFailed, Reason: reason, Message: fmt.Sprintf(format, args...)}
}
