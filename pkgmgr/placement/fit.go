package placement

import (
	"cmp"
	"math"
	"slices"
)

// shortfall returns how much more memory d would need if the worker used n devices, in
// bytes. It is 0 if the worker fits.
func (r Request) shortfall(d Device, n int) int64 {
	need := r.perDevice(n)
	excess := int64(0) // the memory beyond the reservation of the engine
	if reserved := r.reservation(d); reserved > 0 {
		excess = max(need-reserved, 0)
		need = max(need, reserved)
	}
	if available, known := d.available(); known {
		return max(need-available, excess, 0)
	}
	return excess
}

// perDevice returns the memory that the worker needs on each of n devices.
func (r Request) perDevice(n int) int64 {
	n = max(n, 1)
	size := r.Estimate / int64(n)
	if r.Estimate%int64(n) != 0 {
		size++
	}
	return add(size, r.Overhead)
}

// reservation returns the memory that the engine reserves on d. It is 0 if the engine
// reserves nothing, or if the total memory of the device is not known.
func (r Request) reservation(d Device) int64 {
	if !(r.Fraction > 0) { // also true for NaN
		return 0
	}
	return int64(r.Fraction * float64(d.total()))
}

// available returns the memory of d that is neither in use nor reserved, in bytes, and
// whether it is known.
func (d Device) available() (int64, bool) {
	free, known := d.free()
	return max(free-clamp(d.MemoryReserved), 0), known
}

// free returns the free memory of d, or its total memory if only that is known, in bytes.
// It reports false if neither is known.
func (d Device) free() (int64, bool) {
	switch total := d.total(); {
	case d.MemoryFree != nil:
		return clamp(*d.MemoryFree), true
	case total > 0 && d.MemoryUsed != nil:
		return max(total-clamp(*d.MemoryUsed), 0), true
	default:
		return total, total > 0
	}
}

// isFreeUnknown reports whether the vendor's tool reports no free memory, so that free
// returns the total memory.
func (d Device) isFreeUnknown() bool {
	return d.MemoryFree == nil && (d.MemoryUsed == nil || d.MemoryTotal == 0)
}

func (d Device) total() int64 { return clamp(d.MemoryTotal) }

// afterDrain returns d as if its stopping workers had exited: all of its memory counts as
// free, because the memory that they use is not known.
func (d Device) afterDrain() Device {
	if len(d.Draining) > 0 {
		d.MemoryFree, d.MemoryUsed = nil, nil
	}
	return d
}

// afterReclaim returns the devices as if the idle on-demand workers had been stopped.
func afterReclaim(groups [][]Device) [][]Device {
	all := make([][]Device, len(groups))
	for i, g := range groups {
		for _, d := range g {
			if free, known := d.free(); known && d.Reclaimable > 0 {
				more := uint64(min(add(free, d.Reclaimable), d.total())) //nolint:gosec // not negative
				d.MemoryFree = &more
			}
			all[i] = append(all[i], d)
		}
	}
	return all
}

// usable reports whether the device works and the engine can run on it.
func (d Device) usable() bool { return d.works() && d.unfit == "" }

// works reports whether the device has no error and has an index.
func (d Device) works() bool { return d.Error == "" && d.Index >= 0 }

// hasMIG reports whether MIG mode is enabled.
func (d Device) hasMIG() bool { return d.MIG != nil && *d.MIG }

// byPreference compares devices in the order in which they are chosen: devices without
// stopping workers first, then as byAvailable, then by index.
func byPreference(a, b Device) int {
	return cmp.Or(
		boolCompare(len(a.Draining) > 0, len(b.Draining) > 0),
		byAvailable(a, b),
		byIndex(a, b),
	)
}

// byAvailable compares devices: those without MIG come before those with MIG, then known
// memory before unknown memory, then more available memory before less.
func byAvailable(a, b Device) int {
	availableA, knownA := a.available()
	availableB, knownB := b.available()
	return cmp.Or(
		boolCompare(a.hasMIG(), b.hasMIG()),
		boolCompare(!knownA, !knownB),
		cmp.Compare(availableB, availableA),
	)
}

func byIndex(a, b Device) int { return cmp.Compare(a.Index, b.Index) }

// boolCompare compares two booleans; false sorts first.
func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// vendors returns the vendors of the devices, sorted.
func vendors(devices []Device) []string {
	var all []string
	for _, d := range devices {
		all = append(all, string(d.Vendor))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// clamp returns n as an int64, at most [math.MaxInt64].
func clamp(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// add returns a+b, at most [math.MaxInt64].
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
