package placement_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/placement"
)

// Whatever the machine: what is decided fits, the fewest devices are taken, and
// where Place waits or refuses, no allowed choice was there.
func TestPlaceProperty(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for seed := range uint64(20000) {
		r := rand.New(rand.NewPCG(seed, 1))
		l, devices := anyLoad(r), anyMachine(r)
		d, err := placement.Place(l, devices)
		least := fewest(l, devices, false)
		switch {
		case err == nil && len(d.Devices) == 0:
			seen["cpu"]++
			if least != 0 || usable(l, devices) {
				t.Errorf("seed %d: on the CPU, and %d devices would do", seed, least)
			}
		case err == nil:
			seen["placed"]++
			if len(d.Devices) != least || !fits(l, devices, d.Devices) {
				t.Errorf("seed %d: %+v, the fewest are %d\n%+v\n%+v", seed, d, least, l, devices)
			}
		case errors.As(err, new(*placement.Wait)):
			seen["wait"]++
			if least != 0 || fewest(l, devices, true) == 0 {
				t.Errorf("seed %d: %v, and %d devices would do", seed, err, least)
			}
		default:
			seen["refused"]++
			if least != 0 || fewest(l, devices, true) != 0 {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
		shuffled := slices.Clone(devices)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again, err := placement.Place(l, shuffled); err == nil && !slices.Equal(again.Devices, d.Devices) {
			t.Errorf("seed %d: %+v, in another order %+v", seed, d.Devices, again.Devices)
		}
	}
	for _, what := range []string{"cpu", "placed", "wait", "refused"} {
		if seen[what] < 100 {
			t.Errorf("only %d of %q: the test tests too little", seen[what], what)
		}
	}
}

func anyLoad(r *rand.Rand) placement.Load {
	l := placement.Load{Worker: "w", Wants: true, Estimate: r.Int64N(60), Overhead: r.Int64N(4)}
	if r.IntN(3) == 0 {
		l.Fraction = 0.5 + r.Float64()/2
	}
	if r.IntN(2) == 0 {
		l.Split = [][]int{{1}, {2, 3}, {1, 2, 3}, {}}[r.IntN(4)]
	}
	l.Vendor = []string{"", "any", "nvidia", "amd"}[r.IntN(4)]
	return l
}

func anyMachine(r *rand.Rand) []placement.Device {
	var devices []placement.Device
	for _, vendor := range []string{"amd", "nvidia"} {
		for i := range r.IntN(5) {
			d := placement.Device{Device: gpu.Device{Vendor: gpu.Vendor(vendor), Index: i, MemoryReserved: r.Uint64N(3) * r.Uint64N(8)}}
			if r.IntN(8) > 0 {
				d.MemoryTotal = 10 + r.Uint64N(15)
				if r.IntN(8) > 0 {
					d.MemoryFree = new(r.Uint64N(d.MemoryTotal + 1))
				}
			}
			if r.IntN(6) == 0 {
				d.Error = "lost"
			}
			if r.IntN(4) == 0 {
				d.Draining = []string{"w-1"}
			}
			d.MIG = [](*bool){nil, new(false), new(true)}[r.IntN(3)]
			devices = append(devices, d)
		}
	}
	return devices
}

// holds is the rule in the plainest words.
func holds(l placement.Load, d placement.Device, n int, drained bool) bool {
	need := (l.Estimate+int64(n)-1)/int64(n) + l.Overhead
	total := int64(d.MemoryTotal)
	share := int64(l.Fraction * float64(total)) // 0 without a fraction, or without a total
	if share > 0 && need > share {
		return false
	}
	free := total
	switch {
	case d.MemoryFree != nil && (!drained || len(d.Draining) == 0):
		free = int64(*d.MemoryFree)
	case total == 0:
		return true // taken on trust
	}
	return max(free-int64(d.MemoryReserved), 0) >= max(need, share)
}

func eligible(l placement.Load, d placement.Device) bool {
	return d.Error == "" && (l.Vendor == "" || l.Vendor == "any" || l.Vendor == string(d.Vendor))
}

func usable(l placement.Load, devices []placement.Device) bool {
	return slices.ContainsFunc(devices, func(d placement.Device) bool { return eligible(l, d) })
}

// fewest tries every set of devices, for the smallest allowed one; 0 if there is none.
func fewest(l placement.Load, devices []placement.Device, drained bool) int {
	split := l.Split
	if split == nil {
		split = []int{1, 2, 4, 8}
	}
	for _, n := range split {
		for set := range 1 << len(devices) {
			if allowed(l, devices, set, n, drained) {
				return n
			}
		}
	}
	return 0
}

func allowed(l placement.Load, devices []placement.Device, set, n int, drained bool) bool {
	size, vendor := 0, ""
	for i, d := range devices {
		if set>>i&1 == 0 {
			continue
		}
		if vendor != "" && string(d.Vendor) != vendor || !eligible(l, d) || !holds(l, d, n, drained) || len(d.Draining) > 0 && !drained {
			return false
		}
		size, vendor = size+1, string(d.Vendor)
	}
	return size == n
}

// fits is whether what was chosen is an allowed set.
func fits(l placement.Load, devices []placement.Device, chosen []operations.WorkerDevice) bool {
	set := 0
	for i, d := range devices {
		if slices.ContainsFunc(chosen, func(c operations.WorkerDevice) bool { return c.Vendor == string(d.Vendor) && c.Index == d.Index }) {
			set |= 1 << i
		}
	}
	return allowed(l, devices, set, len(chosen), false)
}
