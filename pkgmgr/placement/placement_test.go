package placement_test

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/placement"
)

const gib = 1 << 30

// gpu is a device with free and total memory in GiB.
func device(vendor string, index int, free, total uint64) placement.Device {
	return placement.Device{Device: gpu.Device{
		Vendor: gpu.Vendor(vendor), Index: index, MemoryTotal: total * gib, MemoryFree: new(free * gib),
	}}
}

func reserved(d placement.Device, n int64) placement.Device {
	d.MemoryReserved = uint64(n) * gib
	return d
}

func draining(d placement.Device, workers ...string) placement.Device {
	d.Draining = workers
	return d
}

func broken(d placement.Device, why string) placement.Device { d.Error = why; return d }

func at(d placement.Device, bus string) placement.Device { d.PCIBusID = bus; return d }

func named(d placement.Device, name string) placement.Device { d.Name = name; return d }

// vague is a device of which free memory is not known.
func vague(d placement.Device) placement.Device { d.MemoryFree = nil; return d }

// used is a device of which only used memory is known, or only free.
func used(d placement.Device, n uint64) placement.Device {
	d.MemoryFree, d.MemoryUsed = nil, new(n*gib)
	return d
}

func sliced(d placement.Device) placement.Device { d.MIG = new(true); return d }

// load needs so many GiB, and one on each device.
func load(estimate int64) placement.Load {
	return placement.Load{Worker: "llama-cpp", Model: "org/m", Wants: true, Estimate: estimate * gib, Overhead: gib}
}

func with(l placement.Load, change func(*placement.Load)) placement.Load { change(&l); return l }

func on(l placement.Load, device string) placement.Load { l.Device = device; return l }

func TestPlace(t *testing.T) {
	t.Parallel()
	requires := func(l *placement.Load) { l.Requires = true }
	nvidia := func(l *placement.Load) { l.Vendor = "nvidia" }
	l4s := []placement.Device{device("nvidia", 0, 20, 24), device("nvidia", 1, 22, 24)}
	four := []placement.Device{device("nvidia", 0, 24, 24), device("nvidia", 1, 23, 24), device("nvidia", 2, 24, 24), device("nvidia", 3, 22, 24)}
	amd := device("amd", 0, 60, 64)
	mac := placement.Device{Device: gpu.Device{Vendor: "apple", Index: 0, MemoryTotal: 24 * gib, Unified: true}}
	for _, tt := range []struct {
		name    string
		load    placement.Load
		devices []placement.Device
		want    string // "vendor indices", "cpu", "wait workers", or the error's code
		env     string // "A=b C=d"
		says    string // what the reason or the error has in it
	}{
		{"one fits: the one with most memory", load(10), l4s, "nvidia 1", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1", "22.0 GiB free of 24.0 GiB"},
		{"auto says the same", on(load(10), "auto"), l4s, "nvidia 1", "", "most memory free of 2 devices"},
		{"a tie goes to the first", load(10), four, "nvidia 0", "", ""},
		{"exactly full", load(21), l4s, "nvidia 1", "", ""},
		{"one byte more takes two", with(load(21), func(l *placement.Load) { l.Estimate++ }), l4s, "nvidia 0,1", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0,1", "on each of 2 devices"},
		{"three are not allowed: four", load(60), four, "nvidia 0,1,2,3", "", "60.0 GiB / 4"},
		{"three are allowed", with(load(60), func(l *placement.Load) { l.Split = []int{1, 2, 3} }), four, "nvidia 0,1,2", "", ""},
		{"one is not allowed", with(load(1), func(l *placement.Load) { l.Split = []int{2} }), four, "nvidia 0,2", "", ""},
		{"promised memory does not count", load(10), []placement.Device{device("nvidia", 0, 20, 24), reserved(device("nvidia", 1, 22, 24), 3)}, "nvidia 0", "", ""},
		{"promised memory is told", load(10), []placement.Device{reserved(device("nvidia", 1, 22, 24), 3)}, "nvidia 1", "", "3.0 GiB promised to workers that are loading, so 19.0 GiB left"},
		{"a broken one is passed over", load(10), []placement.Device{device("nvidia", 0, 20, 24), broken(device("nvidia", 1, 24, 24), "GPU is lost")}, "nvidia 0", "", ""},
		{"estimate not known", with(load(0), func(l *placement.Load) { l.Overhead = 0 }), l4s, "nvidia 1", "", "an amount that is not known"},

		{"too big", load(90), l4s, "failed", "", "does not fit"},
		{"too big for any: arithmetic", load(90), []placement.Device{reserved(named(device("nvidia", 0, 20, 24), "NVIDIA L4"), 2)}, "failed", "",
			"nvidia 0 (NVIDIA L4): 20.0 GiB free of 24.0 GiB, 4.0 GiB held, 2.0 GiB promised to workers that are loading, so 18.0 GiB left"},
		{"too big: what it needs", with(load(90), func(l *placement.Load) { l.Explain = "weights 80.0 GiB + cache 10.0 GiB" }), l4s, "failed", "",
			"needed: 91.0 GiB = 90.0 GiB (weights 80.0 GiB + cache 10.0 GiB) + overhead 1.0 GiB"},
		{"too big: what is missing", load(90), l4s, "failed", "", "missing: 26.0 GiB on nvidia 0; it would fit with 46.0 GiB free on each of 2 devices"},
		{"too few devices", with(load(1), func(l *placement.Load) { l.Split = []int{4, 8} }), l4s, "failed", "", "runs on 4 or 8 devices, and here it could use 2 devices"},
		{"it is not put on the CPU instead", load(30), []placement.Device{device("nvidia", 0, 24, 24)}, "failed", "", "missing: 7.0 GiB on nvidia 0"},

		{"a share must be free", with(load(1), func(l *placement.Load) { l.Fraction = 0.9 }), []placement.Device{device("nvidia", 0, 80, 100)}, "failed", "", "missing: 10.0 GiB on nvidia 0; it would fit with 90.0 GiB free"},
		{"a share is free", with(load(1), func(l *placement.Load) { l.Fraction = 0.9 }), []placement.Device{device("nvidia", 0, 80, 100), device("nvidia", 1, 24, 24)}, "nvidia 1", "", "within the 90%"},
		{"the load must fit into the share", with(load(91), func(l *placement.Load) { l.Fraction = 0.9 }), []placement.Device{device("nvidia", 0, 100, 100)}, "failed", "", "takes at most 90% of the memory: 90.0 GiB"},
		{"a share of what is not known", with(load(1), func(l *placement.Load) { l.Fraction = 0.9 }), []placement.Device{vague(device("nvidia", 0, 0, 0))}, "nvidia 0", "", "not known"},

		{"free memory not known: the total", load(20), []placement.Device{vague(device("intel", 0, 0, 24))}, "intel 0", "ONEAPI_DEVICE_SELECTOR=level_zero:0", "24.0 GiB in all, how much is free is not known"},
		{"the total is too little", load(24), []placement.Device{vague(device("intel", 0, 0, 24))}, "failed", "", ""},
		{"nothing known: on trust", load(20), []placement.Device{vague(device("nvidia", 0, 0, 0))}, "nvidia 0", "", "taken on trust"},
		{"known goes before unknown", load(20), []placement.Device{vague(device("nvidia", 0, 0, 0)), device("nvidia", 1, 21, 24)}, "nvidia 1", "", ""},
		{"what is used is known", load(20), []placement.Device{used(device("intel", 0, 0, 24), 4)}, "failed", "", "20.0 GiB free of 24.0 GiB, 4.0 GiB held"},
		{"only what is free is known", load(20), []placement.Device{device("amd", 0, 21, 0)}, "amd 0", "", "; 21.0 GiB free"},
		{"more than any machine has", with(load(1), func(l *placement.Load) { l.Estimate, l.Overhead = math.MaxInt64, math.MaxInt64 }), l4s, "failed", "", "does not fit"},
		{"less than nothing", with(load(-5), func(l *placement.Load) { l.Overhead = -1 }), l4s, "nvidia 1", "", "not known"},
		{"unified memory", load(8), []placement.Device{mac}, "apple 0", "", ""},
		{"too big for unified memory", load(24), []placement.Device{mac}, "failed", "", "needed: 25.0 GiB"},
		{"a slice of MIG comes last", load(8), []placement.Device{sliced(device("nvidia", 0, 80, 80)), device("nvidia", 1, 10, 80)}, "nvidia 1", "", ""},
		{"only a slice of MIG", load(8), []placement.Device{sliced(device("nvidia", 0, 80, 80))}, "nvidia 0", "", "MIG is on"},

		{"a draining one is passed over", load(10), []placement.Device{device("nvidia", 0, 12, 24), draining(device("nvidia", 1, 24, 24), "w-1")}, "nvidia 0", "", ""},
		{"only a draining one could", load(20), []placement.Device{device("nvidia", 0, 12, 24), draining(device("nvidia", 1, 3, 24), "w-1")}, "wait w-1 nvidia 1", "", "waiting for the memory of w-1 on nvidia 1"},
		{"even if it has drained already", load(20), []placement.Device{draining(device("nvidia", 1, 24, 24), "w-1")}, "wait w-1 nvidia 1", "", ""},
		{"a draining one would not do either", load(30), []placement.Device{draining(device("nvidia", 1, 3, 24), "w-1")}, "failed", "", "w-1 is ending there"},
		{"one draining of two", load(44), []placement.Device{device("nvidia", 0, 24, 24), draining(device("nvidia", 1, 3, 24), "w-2", "w-1")}, "wait w-1,w-2 nvidia 1", "", ""},
		{"promises stay when it has drained", load(22), []placement.Device{reserved(draining(device("nvidia", 1, 3, 24), "w-1"), 4)}, "failed", "", ""},

		{"by index", on(load(10), "0"), l4s, "nvidia 0", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0", "as asked"},
		{"by index, in that order", on(load(30), "1,0"), l4s, "nvidia 1,0", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1,0", ""},
		{"by index, for what uses none", with(on(load(10), "0"), func(l *placement.Load) { l.Wants = false }), l4s, "nvidia 0", "", ""},
		{"by index, any number", on(load(60), "0,1,2"), four, "nvidia 0,1,2", "", ""},
		{"no such index", on(load(10), "0,7"), []placement.Device{device("nvidia", 0, 1, 1), broken(device("nvidia", 1, 1, 1), "GPU is lost")}, "not_found", "", "there is no nvidia device 7 here; there are\n  nvidia 0\n  nvidia 1: GPU is lost"},
		{"no device at all", on(load(10), "0"), nil, "not_found", "", "this machine has no accelerator"},
		{"a broken index", on(load(10), "1"), []placement.Device{device("nvidia", 0, 24, 24), broken(device("nvidia", 1, 24, 24), "GPU is lost")}, "failed", "", "nvidia 1 cannot be used: GPU is lost"},
		{"by index, draining", on(load(10), "1"), []placement.Device{device("nvidia", 0, 24, 24), draining(device("nvidia", 1, 24, 24), "w-1")}, "wait w-1 nvidia 1", "", ""},
		{"by index, draining and too small", on(load(30), "1"), []placement.Device{draining(device("nvidia", 1, 24, 24), "w-1")}, "failed", "", "does not fit"},
		{"by index, too little", on(load(21), "0"), l4s, "failed", "", "missing: 2.0 GiB on nvidia 0"},
		{"by index, too little on one of two", on(load(41), "0,1"), l4s, "failed", "", "missing: 1.5 GiB on nvidia 0; it would fit with 21.5 GiB free on each of 2 devices"},
		{"no index", on(load(10), "x"), l4s, "bad_operation", "", `invalid device "x"`},
		{"on trust by index", on(load(10), "0"), []placement.Device{vague(device("amd", 0, 0, 0))}, "amd 0", "HIP_VISIBLE_DEVICES=0", "taken on trust"},

		{"no accelerator", load(10), nil, "cpu", "", "no accelerator here: on the CPU"},
		{"none usable", load(10), []placement.Device{broken(device("nvidia", 0, 24, 24), "GPU is lost")}, "cpu", "CUDA_VISIBLE_DEVICES=-1 GGML_VK_VISIBLE_DEVICES=-1", "nvidia 0: GPU is lost"},
		{"none usable, and one is required", with(load(10), requires), []placement.Device{broken(device("nvidia", 0, 24, 24), "GPU is lost")}, "failed", "", "needs an accelerator, and none here can be used\n  nvidia 0: GPU is lost"},
		{"none, and one is required", with(load(10), requires), nil, "failed", "", "this machine has no accelerator"},
		{"another vendor's", with(load(10), nvidia), []placement.Device{amd}, "cpu", "GGML_VK_VISIBLE_DEVICES=-1 HIP_VISIBLE_DEVICES=-1", "no nvidia accelerator here that can be used: on the CPU (amd 0)"},
		{"another vendor's, and one is required", with(with(load(10), nvidia), requires), []placement.Device{amd}, "failed", "", "needs an nvidia accelerator"},
		{"a card without a driver", load(10), []placement.Device{at(broken(device("amd", -1, 0, 0), "no driver"), "0000:41:00.0")}, "cpu", "GGML_VK_VISIBLE_DEVICES=-1 HIP_VISIBLE_DEVICES=-1", "amd at 0000:41:00.0: no driver"},
		{"without an index", load(10), []placement.Device{device("intel", -1, 24, 24)}, "cpu", "GGML_VK_VISIBLE_DEVICES=-1 ONEAPI_DEVICE_SELECTOR=*:cpu", "its tool gives it no index"},
		{"none as asked", on(load(10), "none"), append([]placement.Device{amd, mac}, l4s...), "cpu", "CUDA_VISIBLE_DEVICES=-1 GGML_VK_VISIBLE_DEVICES=-1 HIP_VISIBLE_DEVICES=-1", "as asked"},
		{"none, but one is required", with(on(load(10), "none"), requires), l4s, "failed", "", `device "none" was asked for`},
		{"it uses none", with(load(10), func(l *placement.Load) { l.Wants = false }), l4s, "cpu", "CUDA_VISIBLE_DEVICES=-1 GGML_VK_VISIBLE_DEVICES=-1", "uses no accelerator"},

		{"Vulkan counts by PCI address", on(load(10), "0"), []placement.Device{at(device("intel", 0, 16, 16), "0000:41:00.0"), at(device("intel", 1, 16, 16), "0000:03:00.0")}, "intel 0", "GGML_VK_VISIBLE_DEVICES=1 ONEAPI_DEVICE_SELECTOR=level_zero:0", ""},
		{"Vulkan counts through vendors", with(on(load(10), "1,0"), nvidia), []placement.Device{at(amd, "0000:03:00.0"), at(l4s[0], "0000:01:00.0"), at(l4s[1], "0000:41:00.0")}, "nvidia 1,0", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1,0 GGML_VK_VISIBLE_DEVICES=2,0", ""},
		{"Vulkan may not count a broken one", load(10), []placement.Device{at(broken(device("nvidia", 0, 24, 24), "GPU is lost"), "0000:01:00.0"), at(amd, "0000:41:00.0")}, "amd 0", "HIP_VISIBLE_DEVICES=0", ""},
		{"Vulkan may not count one without a driver", load(10), []placement.Device{at(device("intel", -1, 24, 24), "0000:01:00.0"), at(amd, "0000:41:00.0")}, "amd 0", "HIP_VISIBLE_DEVICES=0", ""},
		{"two vendors: the one with more memory", load(10), append([]placement.Device{amd}, l4s...), "amd 0", "HIP_VISIBLE_DEVICES=0", ""},
		{"two vendors: the engine's", with(load(10), nvidia), append([]placement.Device{amd}, l4s...), "nvidia 1", "", ""},
		{"any vendor", with(load(10), func(l *placement.Load) { l.Vendor = "any" }), append([]placement.Device{amd}, l4s...), "amd 0", "", ""},
		{"never over two vendors", load(80), []placement.Device{device("amd", 0, 64, 64), device("nvidia", 0, 64, 64)}, "failed", "", "amd 0: 64.0 GiB free of 64.0 GiB, 0 B held\n  nvidia 0:"},
		{"two vendors, by index: the engine's", with(on(load(10), "0"), nvidia), append([]placement.Device{amd}, l4s...), "nvidia 0", "", ""},
		{"two vendors, by index: the one that works", on(load(10), "0"), append([]placement.Device{broken(amd, "no driver")}, l4s...), "nvidia 0", "", ""},
		{"two vendors, by index: which?", on(load(10), "0"), append([]placement.Device{amd}, l4s...), "failed", "", "is ambiguous: this machine has devices of amd and nvidia"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, env, says := outcome(placement.Place(tt.load, tt.devices))
			if got != tt.want {
				t.Errorf("got %q, want %q\n%s", got, tt.want, says)
			}
			if tt.env != "" && env != tt.env || tt.want == "apple 0" && env != "" {
				t.Errorf("environment %q, want %q", env, tt.env)
			}
			if !strings.Contains(says, tt.says) {
				t.Errorf("it says\n%s\nwithout\n%s", says, tt.says)
			}
		})
	}
}

// outcome writes what Place answered in the words of the table.
func outcome(d placement.Decision, err error) (what, env, says string) {
	if wait, ok := errors.AsType[*placement.Wait](err); ok {
		return "wait " + strings.Join(wait.Workers, ",") + " " + wait.Vendor + " " + join(wait.Devices), "", wait.Error()
	}
	if err != nil {
		return string(operations.CodeOf(err)), "", err.Error()
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(d.Env)) {
		list = append(list, name+"="+d.Env[name])
	}
	env = strings.Join(list, " ")
	if len(d.Devices) == 0 {
		return "cpu", env, d.Reason
	}
	var numbers []int
	for _, w := range d.Devices {
		numbers = append(numbers, w.Index)
	}
	return d.Devices[0].Vendor + " " + join(numbers), env, d.Reason
}

func join(numbers []int) string {
	var words []string
	for _, n := range numbers {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ",")
}

// What was decided goes on record: the devices whole, and the memory with its
// overheads.
func TestDecision(t *testing.T) {
	t.Parallel()
	a, b := device("nvidia", 0, 20, 24), named(device("nvidia", 1, 22, 24), "NVIDIA L4")
	b.UUID = "GPU-1"
	d, err := placement.Place(load(30), []placement.Device{b, a})
	if err != nil {
		t.Fatal(err)
	}
	want := []operations.WorkerDevice{{Index: 0, Vendor: "nvidia"}, {Index: 1, Vendor: "nvidia", UUID: "GPU-1", Name: "NVIDIA L4"}}
	if !slices.Equal(d.Devices, want) || d.Estimate != 32*gib {
		t.Errorf("%+v", d)
	}
	if d, err = placement.Place(load(0), []placement.Device{a}); err != nil || d.Estimate != 0 {
		t.Errorf("an estimate from nothing: %+v, %v", d, err)
	}
	vllm := with(load(30), func(l *placement.Load) { l.Fraction = 0.5 })
	if d, err = placement.Place(vllm, []placement.Device{device("nvidia", 0, 80, 80)}); err != nil || d.Estimate != 40*gib {
		t.Errorf("what the engine reserves: %+v, %v", d, err)
	}
	if d, err = placement.Place(on(load(30), "none"), nil); err != nil || d.Env == nil || d.Estimate != 0 {
		t.Errorf("on the CPU: %+v, %v", d, err)
	}
	if strings.Contains(d.Reason, "\n") {
		t.Errorf("the reason is more than a line: %s", d.Reason)
	}
}

// A queen ends workers for a load only if that makes enough room for it.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	idle := func(d placement.Device, gb int64) placement.Device { d.Reclaimable = gb * gib; return d }
	for _, tt := range []struct {
		name    string
		load    placement.Load
		devices []placement.Device
		want    bool
	}{
		{"nobody could go", load(20), []placement.Device{device("nvidia", 0, 3, 24)}, false},
		{"enough could go", load(20), []placement.Device{idle(device("nvidia", 0, 3, 24), 20)}, true},
		{"too little could go", load(20), []placement.Device{idle(device("nvidia", 0, 3, 24), 10)}, false},
		{"it is too large for the device", load(500), []placement.Device{idle(device("nvidia", 0, 3, 24), 1000)}, false},
		{"enough on another device", load(20), []placement.Device{device("nvidia", 0, 3, 24), idle(device("nvidia", 1, 0, 24), 24)}, true},
		{"on two together", load(40), []placement.Device{idle(device("nvidia", 0, 3, 24), 20), idle(device("nvidia", 1, 0, 24), 24)}, true},
		{"not on the device that was asked for", on(load(20), "0"), []placement.Device{device("nvidia", 0, 3, 24), idle(device("nvidia", 1, 0, 24), 24)}, false},
		{"on the device that was asked for", on(load(20), "1"), []placement.Device{device("nvidia", 0, 3, 24), idle(device("nvidia", 1, 0, 24), 24)}, true},
		{"too few devices", with(load(1), func(l *placement.Load) { l.Split = []int{2} }), []placement.Device{idle(device("nvidia", 0, 0, 24), 24)}, false},
	} {
		_, err := placement.Place(tt.load, tt.devices)
		e, ok := errors.AsType[*operations.Error](err)
		if !ok || (e.Reason == operations.ReasonNoRoom) != tt.want {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
