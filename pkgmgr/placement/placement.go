// Package placement decides which accelerators a worker gets. It only decides:
// what the machine has comes in, a decision goes out, and nothing is read,
// started or waited for here.
//
// # The arithmetic
//
// A load needs memory on each of its n devices:
//
//	Estimate/n + Overhead
//
// and, where the engine reserves a fixed share of every device as vLLM does,
// that share must be free and must be large enough for it. What a device has
// left is what its tool calls free, less what was promised to workers that are
// still loading. A device whose free memory is not known counts with its total,
// and one of which not even that is known is taken on trust: the reason says so.
//
// # The choice
//
// Left to itself, Place takes the fewest devices that an engine may be split
// over and that hold it, all of one vendor, those with the most memory left
// first. Devices of which an ending worker may still hold memory are passed
// over; if only they could hold the load, Place answers with a [*Wait], and the
// caller asks again when they have drained. A device in MIG mode comes last,
// because its numbers are those of the whole card and an engine gets a slice.
//
// Devices that were asked for by index are taken or refused, never replaced.
//
// What does not fit is refused with the arithmetic, line by line. It is never put
// on the CPU instead: there it would run, a hundred times slower, and nobody
// would know why. Only a refusal for want of memory that could be made free, by
// ending workers that are there on demand, has the reason
// [operations.ReasonNoRoom].
package placement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// anyVendor is the [Load.Vendor] of an engine that takes every vendor's devices.
const anyVendor = "any"

// Load is what is to be placed. Sizes are in bytes; negative ones count as 0.
type Load struct {
	// Worker and Model are named in reasons and errors.
	Worker, Model string

	// Device is what was asked for, as in [operations.WorkerSpawn]: empty or
	// "auto", "none", or indices.
	Device string

	// Vendor is the one vendor that the engine works with: "nvidia", "amd",
	// "intel", "apple". Empty and "any" mean all of them.
	Vendor string

	// Devices are the conditions under which the engine's build runs on a device;
	// nil if every one of Vendor will do.
	Devices *wire.DeviceNeeds

	// Wants means that the engine can use accelerators at all. Without it the
	// load goes to the CPU, unless devices were asked for by index.
	Wants bool

	// Requires means that the engine cannot run without an accelerator.
	Requires bool

	// Estimate is the memory that is needed over all devices together; 0 means
	// that it is not known, and then every device with room for Overhead will do.
	Estimate int64

	// Overhead is needed on each device on top: context and buffers.
	Overhead int64

	// Explain says how Estimate came about, such as "weights 15.0 GiB + cache
	// 2.0 GiB". May be empty.
	Explain string

	// Fraction is the share of each device's total memory that the engine
	// reserves, such as 0.9: it must be free, and the load must fit into it.
	// 0 means that the engine takes what it needs.
	Fraction float64

	// Split are the numbers of devices that the engine can be split over,
	// ascending; nil means 1, 2, 4 or 8. It does not bind whoever names indices.
	Split []int
}

// Device is an accelerator, with what the hive knows of it.
type Device struct {
	gpu.Device

	// Draining are the ids of workers that are ending and may still hold memory
	// on the device.
	Draining []string

	// Reclaimable is memory of workers that were started on demand and answer
	// nothing now, in bytes: a queen may end them to make room.
	Reclaimable int64

	// unfit says why the load's engine cannot run on the device; set by [Place].
	unfit string
}

// Decision is where a load goes.
type Decision struct {
	// Devices are those that the worker gets: in the order in which they were
	// asked for, else by index. Empty means the CPU.
	Devices []operations.WorkerDevice

	// Env is what makes the engine see those devices and no others. It is never
	// nil. See [Place] for the variables.
	Env map[string]string

	// Reason says why, with the numbers, in one line.
	Reason string

	// Estimate is the memory that the load is expected to take over all its
	// devices, with overheads and what the engine reserves, in bytes; 0 if that is
	// not known or on the CPU. It is what a loading worker was promised.
	Estimate int64
}

// Wait is the error of a load that would fit on devices from which an ending
// worker's memory has not come back yet. The caller waits for those workers to
// end and asks again.
type Wait struct {
	Workers []string // ids, sorted
	Vendor  string   // of the devices
	Devices []int    // indices, sorted
}

// Error names the workers and devices.
func (w *Wait) Error() string {
	return fmt.Sprintf("waiting for the memory of %s on %s %s: it is ending",
		strings.Join(w.Workers, ", "), w.Vendor, indices(w.Devices))
}

// Place decides where l goes on a machine with these devices, which may be of
// several vendors, broken and in any order. Errors are [*operations.Error] or
// [*Wait]. The same input gives the same decision.
//
// The decision's environment holds one vendor's variable, with indices in PCI
// order and never UUIDs, which some engines cannot read, and that for Vulkan:
//
//	NVIDIA  CUDA_DEVICE_ORDER=PCI_BUS_ID, CUDA_VISIBLE_DEVICES=0,1
//	AMD     HIP_VISIBLE_DEVICES=0,1
//	Intel   ONEAPI_DEVICE_SELECTOR=level_zero:0,1
//	all     GGML_VK_VISIBLE_DEVICES=0,1, counted through all vendors; not set
//	        where a device is broken, which Vulkan may count or not
//	Apple   nothing: there is one device, and no way to hide it
//
// For the CPU, it hides the devices of every vendor that is here.
func Place(l Load, devices []Device) (Decision, error) {
	l = l.tidy()
	devices = l.checked(devices)
	switch l.Device {
	case operations.DeviceNone:
		if l.Requires {
			return Decision{}, failed(operations.ReasonDeviceUnusable, "%s needs an accelerator, and device %q was asked for", l.Worker, operations.DeviceNone)
		}
		return onCPU(devices, "as asked: on the CPU"), nil
	case "", operations.DeviceAuto:
		if !l.Wants && !l.Requires {
			return onCPU(devices, l.Worker+" uses no accelerator: on the CPU"), nil
		}
		return l.auto(devices)
	default:
		return l.byIndex(devices)
	}
}

// tidy brings l into a form without special cases.
func (l Load) tidy() Load {
	l.Estimate, l.Overhead = max(l.Estimate, 0), max(l.Overhead, 0)
	l.Fraction = min(l.Fraction, 1)
	if l.Vendor == anyVendor {
		l.Vendor = ""
	}
	if n := l.Devices; n != nil && l.Vendor == "" && n.Vendor != anyVendor && n.Vendor != wire.NoGPU {
		l.Vendor = n.Vendor
	}
	if l.Devices != nil && l.Devices.Vendor == wire.NoGPU && !l.Requires {
		l.Wants = false
	}
	if l.Split == nil {
		l.Split = []int{1, 2, 4, 8}
	}
	return l
}

// auto chooses devices. The idle ones are tried first, then those that would
// fit with the memory that ending workers give back.
func (l Load) auto(devices []Device) (Decision, error) {
	groups := l.groups(devices)
	if len(groups) == 0 {
		return l.without(devices)
	}
	idle := make([][]Device, len(groups))
	drained := make([][]Device, len(groups))
	for i, g := range groups {
		for _, d := range g {
			if len(d.Draining) == 0 {
				idle[i] = append(idle[i], d)
			}
			drained[i] = append(drained[i], d.drained())
		}
	}
	if chosen := l.choose(idle); chosen != nil {
		slices.SortFunc(chosen, byIndex)
		return l.decide(chosen, devices, fmt.Sprintf("most memory free of %s%s", count(len(slices.Concat(groups...)), "device"), l.unfit(devices))), nil
	}
	if chosen := l.choose(drained); chosen != nil {
		return Decision{}, waitFor(chosen)
	}
	return Decision{}, l.refuse(groups, devices)
}

// choose takes the fewest devices of one group that hold the load; nil if none do.
func (l Load) choose(groups [][]Device) []Device {
	for _, n := range l.Split {
		for _, g := range groups {
			var fit []Device
			for _, d := range g {
				if l.lack(d, n) == 0 {
					fit = append(fit, d)
				}
			}
			if n > 0 && len(fit) >= n {
				slices.SortStableFunc(fit, byRoom)
				return fit[:n]
			}
		}
	}
	return nil
}

// groups are the usable devices that the engine works with, one group a vendor,
// the vendor with the most memory left on one device first.
func (l Load) groups(devices []Device) [][]Device {
	var groups [][]Device
	for _, vendor := range vendors(devices) {
		if l.Vendor != "" && l.Vendor != vendor {
			continue
		}
		var g []Device
		for _, d := range devices {
			if string(d.Vendor) == vendor && d.usable() {
				g = append(g, d)
			}
		}
		if len(g) > 0 {
			slices.SortFunc(g, byRoom)
			groups = append(groups, g)
		}
	}
	slices.SortStableFunc(groups, func(a, b []Device) int { return byFree(a[0], b[0]) })
	return groups
}

// decide makes the decision for devices, of those that are here, that hold the load.
func (l Load) decide(chosen, here []Device, why string) Decision {
	d := Decision{Env: visible(chosen, here), Reason: l.reason(chosen, why)}
	for _, c := range chosen {
		d.Devices = append(d.Devices, operations.WorkerDevice{Index: c.Index, Vendor: string(c.Vendor), UUID: c.UUID, Name: c.Name})
		takes := l.reserves(c)
		if l.Estimate > 0 {
			takes = max(takes, l.part(len(chosen)))
		}
		d.Estimate = add(d.Estimate, takes)
	}
	return d
}

// without is the decision where there is no device to choose from.
func (l Load) without(devices []Device) (Decision, error) {
	kind := "accelerator"
	if l.Vendor != "" {
		kind = l.Vendor + " " + kind
	}
	if l.Requires {
		if len(devices) == 0 {
			return Decision{}, failed(operations.ReasonDeviceUnusable, "%s needs an %s, and this machine has no accelerator", l.Worker, kind)
		}
		return Decision{}, failed(operations.ReasonDeviceUnusable, "%s needs an %s, and none here can be used%s", l.Worker, kind, lines(devices, Device.health))
	}
	if l.Wants && len(l.unfitDevices(devices)) > 0 {
		return Decision{}, failed(operations.ReasonDeviceUnusable, "the installed build of %s runs on none of the accelerators here (device %q runs it on the CPU)%s",
			l.Worker, operations.DeviceNone, lines(devices, Device.health))
	}
	if len(devices) == 0 {
		return onCPU(devices, "no "+kind+" here: on the CPU"), nil
	}
	return onCPU(devices, "no "+kind+" here that can be used: on the CPU ("+listed(devices, Device.health)+")"), nil
}

func onCPU(devices []Device, reason string) Decision {
	return Decision{Env: hidden(devices), Reason: reason}
}

func waitFor(chosen []Device) *Wait {
	w := &Wait{}
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

func failed(reason operations.Reason, format string, args ...any) *operations.Error {
	return &operations.Error{Code: operations.CodeFailed, Reason: reason, Message: fmt.Sprintf(format, args...)}
}
