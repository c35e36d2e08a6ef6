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

// TestPlaceProperty checks with random machines that the chosen devices fit and are as
// few as possible, and that Place only fails if no allowed choice of devices fits.
func TestPlaceProperty(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	for seed := range uint64(20000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		r, devices := randomRequest(rng), randomMachine(rng)
		d, err := placement.Place(r, devices)
		least := fewest(r, devices, false)
		switch {
		case err == nil && len(d.Devices) == 0:
			seen["cpu"]++
			if least != 0 || usable(r, devices) {
				t.Errorf("seed %d: Place() chose the CPU, want %d devices", seed, least)
			}
		case err == nil:
			seen["placed"]++
			if len(d.Devices) != least || !fits(r, devices, d.Devices) {
				t.Errorf("seed %d: Place(%+v, %+v) = %+v, want %d devices that fit", seed, r, devices, d, least)
			}
		case errors.As(err, new(*placement.WaitError)):
			seen["wait"]++
			if least != 0 || fewest(r, devices, true) == 0 {
				t.Errorf("seed %d: Place() = %v, want %d devices", seed, err, least)
			}
		default:
			seen["error"]++
			if least != 0 || fewest(r, devices, true) != 0 {
				t.Errorf("seed %d: Place() = %v, want %d devices", seed, err, max(least, fewest(r, devices, true)))
			}
		}
		shuffled := slices.Clone(devices)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again, err := placement.Place(r, shuffled); err == nil && !slices.Equal(again.Devices, d.Devices) {
			t.Errorf("seed %d: Place() of the shuffled devices chose %+v, want %+v", seed, again.Devices, d.Devices)
		}
	}
	for _, result := range []string{"cpu", "placed", "wait", "error"} {
		if seen[result] < 100 {
			t.Errorf("Place() had result %q %d times, want at least 100", result, seen[result])
		}
	}
}

func randomRequest(rng *rand.Rand) placement.Request {
	r := placement.Request{Worker: "w", UsesAccelerator: true, Estimate: rng.Int64N(60), Overhead: rng.Int64N(4)}
	if rng.IntN(3) == 0 {
		r.Fraction = 0.5 + rng.Float64()/2
	}
	if rng.IntN(2) == 0 {
		r.DeviceCounts = [][]int{{1}, {2, 3}, {1, 2, 3}, {}}[rng.IntN(4)]
	}
	r.Vendor = []string{"", "any", "nvidia", "amd"}[rng.IntN(4)]
	return r
}

func randomMachine(rng *rand.Rand) []placement.Device {
	var devices []placement.Device
	for _, vendor := range []string{"amd", "nvidia"} {
		for i := range rng.IntN(5) {
			d := placement.Device{Device: gpu.Device{Vendor: gpu.Vendor(vendor), Index: i, MemoryReserved: rng.Uint64N(3) * rng.Uint64N(8)}}
			if rng.IntN(8) > 0 {
				d.MemoryTotal = 10 + rng.Uint64N(15)
				if rng.IntN(8) > 0 {
					d.MemoryFree = new(rng.Uint64N(d.MemoryTotal + 1))
				}
			}
			if rng.IntN(6) == 0 {
				d.Error = "lost"
			}
			if rng.IntN(4) == 0 {
				d.Draining = []string{"w-1"}
			}
			d.MIG = [](*bool){nil, new(false), new(true)}[rng.IntN(3)]
			devices = append(devices, d)
		}
	}
	return devices
}

// deviceFits implements the rule in the package comment. If drained is
// set, the stopping workers of the device have exited.
func deviceFits(r placement.Request, d placement.Device, n int, drained bool) bool {
	need := (r.Estimate+int64(n)-1)/int64(n) + r.Overhead
	total := int64(d.MemoryTotal)
	share := int64(r.Fraction * float64(total)) // 0 without a fraction, or without a total
	if share > 0 && need > share {
		return false
	}
	free := total
	switch {
	case d.MemoryFree != nil && (!drained || len(d.Draining) == 0):
		free = int64(*d.MemoryFree)
	case total == 0:
		return true // nothing is known: assumed to be sufficient
	}
	return max(free-int64(d.MemoryReserved), 0) >= max(need, share)
}

// eligible reports whether the device works and the engine supports its vendor.
func eligible(r placement.Request, d placement.Device) bool {
	return d.Error == "" && (r.Vendor == "" || r.Vendor == "any" || r.Vendor == string(d.Vendor))
}

// usable reports whether any device is eligible.
func usable(r placement.Request, devices []placement.Device) bool {
	return slices.ContainsFunc(devices, func(d placement.Device) bool { return eligible(r, d) })
}

// fewest tries all sets of devices and returns the size of the smallest allowed one, or 0
// if none is allowed.
func fewest(r placement.Request, devices []placement.Device, drained bool) int {
	counts := r.DeviceCounts
	if counts == nil {
		counts = []int{1, 2, 4, 8}
	}
	for _, n := range counts {
		for set := range 1 << len(devices) {
			if allowed(r, devices, set, n, drained) {
				return n
			}
		}
	}
	return 0
}

// allowed reports whether the devices in the bit set are n devices of one vendor that fit.
func allowed(r placement.Request, devices []placement.Device, set, n int, drained bool) bool {
	size, vendor := 0, ""
	for i, d := range devices {
		if set>>i&1 == 0 {
			continue
		}
		if vendor != "" && string(d.Vendor) != vendor || !eligible(r, d) || !deviceFits(r, d, n, drained) || len(d.Draining) > 0 && !drained {
			return false
		}
		size, vendor = size+1, string(d.Vendor)
	}
	return size == n
}

// fits reports whether the chosen devices are an allowed set.
func fits(r placement.Request, devices []placement.Device, chosen []operations.WorkerDevice) bool {
	set := 0
	for i, d := range devices {
		if slices.ContainsFunc(chosen, func(c operations.WorkerDevice) bool { return c.Vendor == string(d.Vendor) && c.Index == d.Index }) {
			set |= 1 << i
		}
	}
	return allowed(r, devices, set, len(chosen), false)
}
