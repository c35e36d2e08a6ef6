package placement

import (
	"cmp"
	"math"
	"slices"
)

// lack is how much memory d is short of as one of n devices, in bytes; 0 means
// that it holds its part of the load.
func (l Load) lack(d Device, n int) int64 {
	part := l.part(n)
	most := int64(0) // what the engine's own limit leaves out
	if reserved := l.reserves(d); reserved > 0 {
		most = max(part-reserved, 0)
		part = max(part, reserved)
	}
	if room, known := d.room(); known {
		return max(part-room, most, 0)
	}
	return most
}

// part is what the load itself takes on each of n devices.
func (l Load) part(n int) int64 {
	n = max(n, 1)
	part := l.Estimate / int64(n)
	if l.Estimate%int64(n) != 0 {
		part++
	}
	return add(part, l.Overhead)
}

// reserves is what the engine reserves on d; 0 if it does not reserve, or if the
// device's total memory is not known.
func (l Load) reserves(d Device) int64 {
	if !(l.Fraction > 0) { // also for what is no number
		return 0
	}
	return int64(l.Fraction * float64(d.total()))
}

// room is the memory of d that nobody holds or was promised, in bytes, and
// whether it is known at all.
func (d Device) room() (int64, bool) {
	free, known := d.free()
	return max(free-clamp(d.MemoryReserved), 0), known
}

// free is the free memory of d, its total where that is all that is known.
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

// guessed means that free is not what the machine's tools said.
func (d Device) guessed() bool {
	return d.MemoryFree == nil && (d.MemoryUsed == nil || d.MemoryTotal == 0)
}

func (d Device) total() int64 { return clamp(d.MemoryTotal) }

// drained is d as it would be without its ending workers, at best.
func (d Device) drained() Device {
	if len(d.Draining) > 0 {
		d.MemoryFree, d.MemoryUsed = nil, nil
	}
	return d
}

// reclaimed are the devices as they would be without the workers that may be ended
// to make room.
func reclaimed(groups [][]Device) [][]Device {
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

func (d Device) usable() bool { return d.works() && d.unfit == "" }

// works reports whether the device can be used at all, by whatever engine.
func (d Device) works() bool { return d.Error == "" && d.Index >= 0 }

func (d Device) sliced() bool { return d.MIG != nil && *d.MIG }

// byRoom puts first what is to be taken first: devices that need no waiting,
// whole ones, those whose memory is known, and among them the most free.
func byRoom(a, b Device) int {
	return cmp.Or(
		boolCompare(len(a.Draining) > 0, len(b.Draining) > 0),
		byFree(a, b),
		byIndex(a, b),
	)
}

func byFree(a, b Device) int {
	roomA, knownA := a.room()
	roomB, knownB := b.room()
	return cmp.Or(
		boolCompare(a.sliced(), b.sliced()),
		boolCompare(!knownA, !knownB),
		cmp.Compare(roomB, roomA),
	)
}

func byIndex(a, b Device) int { return cmp.Compare(a.Index, b.Index) }

// boolCompare puts false before true.
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

// vendors are those of the devices, sorted.
func vendors(devices []Device) []string {
	var all []string
	for _, d := range devices {
		all = append(all, string(d.Vendor))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// clamp makes a size a signed one.
func clamp(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// add adds sizes without running over.
func add(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
