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

// device returns a device with free and total memory in GiB.
func device(vendor string, index int, free, total uint64) placement.Device {
	return placement.Device{Device: gpu.Device{
		Vendor: gpu.Vendor(vendor), Index: index, MemoryTotal: total * gib, MemoryFree: new(free * gib),
	}}
}

// withReserved returns d with n GiB reserved for loading workers.
func withReserved(d placement.Device, n int64) placement.Device {
	d.MemoryReserved = uint64(n) * gib
	return d
}

// withDraining returns d with stopping workers.
func withDraining(d placement.Device, workers ...string) placement.Device {
	d.Draining = workers
	return d
}

func withError(d placement.Device, problem string) placement.Device { d.Error = problem; return d }

func withBus(d placement.Device, bus string) placement.Device { d.PCIBusID = bus; return d }

func withName(d placement.Device, name string) placement.Device { d.Name = name; return d }

// withUnknownFree returns d with unknown free memory.
func withUnknownFree(d placement.Device) placement.Device { d.MemoryFree = nil; return d }

// withUsed returns d with n GiB in use and unknown free memory.
func withUsed(d placement.Device, n uint64) placement.Device {
	d.MemoryFree, d.MemoryUsed = nil, new(n*gib)
	return d
}

// withMIG returns d in MIG mode.
func withMIG(d placement.Device) placement.Device { d.MIG = new(true); return d }

// requestFor returns a request with an estimate in GiB and an overhead of 1 GiB.
func requestFor(estimate int64) placement.Request {
	return placement.Request{Worker: "llama-cpp", Model: "org/m", UsesAccelerator: true, Estimate: estimate * gib, Overhead: gib}
}

func with(r placement.Request, change func(*placement.Request)) placement.Request {
	change(&r)
	return r
}

func on(r placement.Request, device string) placement.Request { r.Device = device; return r }

func TestPlace(t *testing.T) {
	t.Parallel()
	requires := func(r *placement.Request) { r.RequiresAccelerator = true }
	nvidia := func(r *placement.Request) { r.Vendor = "nvidia" }
	l4s := []placement.Device{device("nvidia", 0, 20, 24), device("nvidia", 1, 22, 24)}
	four := []placement.Device{device("nvidia", 0, 24, 24), device("nvidia", 1, 23, 24), device("nvidia", 2, 24, 24), device("nvidia", 3, 22, 24)}
	amd := device("amd", 0, 60, 64)
	mac := placement.Device{Device: gpu.Device{Vendor: "apple", Index: 0, MemoryTotal: 24 * gib, Unified: true}}
	for _, tt := range []struct {
		name    string
		request placement.Request
		devices []placement.Device
		want    string // "vendor indices", "cpu", "wait workers vendor indices", or the code of the error
		env     string // "A=b C=d"; empty is not compared
		message string // part of the reason or the error
	}{
		{"device with the most memory", requestFor(10), l4s, "nvidia 1", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1", "22.0 GiB free of 24.0 GiB"},
		{"auto", on(requestFor(10), "auto"), l4s, "nvidia 1", "", "most memory free of 2 devices"},
		{"equal memory: lowest index", requestFor(10), four, "nvidia 0", "", ""},
		{"exact fit", requestFor(21), l4s, "nvidia 1", "", ""},
		{"one byte too large for one device", with(requestFor(21), func(r *placement.Request) { r.Estimate++ }), l4s, "nvidia 0,1", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0,1", "on each of 2 devices"},
		{"three devices not allowed", requestFor(60), four, "nvidia 0,1,2,3", "", "60.0 GiB / 4"},
		{"three devices allowed", with(requestFor(60), func(r *placement.Request) { r.DeviceCounts = []int{1, 2, 3} }), four, "nvidia 0,1,2", "", ""},
		{"one device not allowed", with(requestFor(1), func(r *placement.Request) { r.DeviceCounts = []int{2} }), four, "nvidia 0,2", "", ""},
		{"reserved memory is not available", requestFor(10), []placement.Device{device("nvidia", 0, 20, 24), withReserved(device("nvidia", 1, 22, 24), 3)}, "nvidia 0", "", ""},
		{"reserved memory in the reason", requestFor(10), []placement.Device{withReserved(device("nvidia", 1, 22, 24), 3)}, "nvidia 1", "", "3.0 GiB reserved for loading workers, 19.0 GiB available"},
		{"broken device is skipped", requestFor(10), []placement.Device{device("nvidia", 0, 20, 24), withError(device("nvidia", 1, 24, 24), "GPU is lost")}, "nvidia 0", "", ""},
		{"unknown estimate", with(requestFor(0), func(r *placement.Request) { r.Overhead = 0 }), l4s, "nvidia 1", "", "an unknown amount"},

		{"too large", requestFor(90), l4s, "failed", "", "does not fit"},
		{"too large: memory of each device", requestFor(90), []placement.Device{withReserved(withName(device("nvidia", 0, 20, 24), "NVIDIA L4"), 2)}, "failed", "",
			"nvidia 0 (NVIDIA L4): 20.0 GiB free of 24.0 GiB, 4.0 GiB in use, 2.0 GiB reserved for loading workers, 18.0 GiB available"},
		{"too large: needed memory", with(requestFor(90), func(r *placement.Request) { r.Breakdown = "weights 80.0 GiB + cache 10.0 GiB" }), l4s, "failed", "",
			"needed: 91.0 GiB = 90.0 GiB (weights 80.0 GiB + cache 10.0 GiB) + overhead 1.0 GiB"},
		{"too large: missing memory", requestFor(90), l4s, "failed", "", "missing: 26.0 GiB on nvidia 0; it would fit with 46.0 GiB free on each of 2 devices"},
		{"too few devices", with(requestFor(1), func(r *placement.Request) { r.DeviceCounts = []int{4, 8} }), l4s, "failed", "", "runs on 4 or 8 devices, but only 2 devices can be used"},
		{"no fallback to the CPU", requestFor(30), []placement.Device{device("nvidia", 0, 24, 24)}, "failed", "", "missing: 7.0 GiB on nvidia 0"},

		{"reserved fraction not free", with(requestFor(1), func(r *placement.Request) { r.Fraction = 0.9 }), []placement.Device{device("nvidia", 0, 80, 100)}, "failed", "", "missing: 10.0 GiB on nvidia 0; it would fit with 90.0 GiB free"},
		{"reserved fraction free", with(requestFor(1), func(r *placement.Request) { r.Fraction = 0.9 }), []placement.Device{device("nvidia", 0, 80, 100), device("nvidia", 1, 24, 24)}, "nvidia 1", "", "within the 90%"},
		{"larger than the reserved fraction", with(requestFor(91), func(r *placement.Request) { r.Fraction = 0.9 }), []placement.Device{device("nvidia", 0, 100, 100)}, "failed", "", "reserves only 90% of the memory: 90.0 GiB"},
		{"reserved fraction of unknown memory", with(requestFor(1), func(r *placement.Request) { r.Fraction = 0.9 }), []placement.Device{withUnknownFree(device("nvidia", 0, 0, 0))}, "nvidia 0", "", "memory unknown"},

		{"unknown free memory", requestFor(20), []placement.Device{withUnknownFree(device("intel", 0, 0, 24))}, "intel 0", "ONEAPI_DEVICE_SELECTOR=level_zero:0", "24.0 GiB total, free memory unknown"},
		{"unknown free memory, total too small", requestFor(24), []placement.Device{withUnknownFree(device("intel", 0, 0, 24))}, "failed", "", ""},
		{"unknown total memory", requestFor(20), []placement.Device{withUnknownFree(device("nvidia", 0, 0, 0))}, "nvidia 0", "", "assumed to be sufficient"},
		{"known memory preferred to unknown", requestFor(20), []placement.Device{withUnknownFree(device("nvidia", 0, 0, 0)), device("nvidia", 1, 21, 24)}, "nvidia 1", "", ""},
		{"only used memory known", requestFor(20), []placement.Device{withUsed(device("intel", 0, 0, 24), 4)}, "failed", "", "20.0 GiB free of 24.0 GiB, 4.0 GiB in use"},
		{"only free memory known", requestFor(20), []placement.Device{device("amd", 0, 21, 0)}, "amd 0", "", "; 21.0 GiB free"},
		{"sizes overflow", with(requestFor(1), func(r *placement.Request) { r.Estimate, r.Overhead = math.MaxInt64, math.MaxInt64 }), l4s, "failed", "", "does not fit"},
		{"negative sizes", with(requestFor(-5), func(r *placement.Request) { r.Overhead = -1 }), l4s, "nvidia 1", "", "unknown amount"},
		{"unified memory", requestFor(8), []placement.Device{mac}, "apple 0", "", ""},
		{"too large for unified memory", requestFor(24), []placement.Device{mac}, "failed", "", "needed: 25.0 GiB"},
		{"MIG device is the last choice", requestFor(8), []placement.Device{withMIG(device("nvidia", 0, 80, 80)), device("nvidia", 1, 10, 80)}, "nvidia 1", "", ""},
		{"only a MIG device", requestFor(8), []placement.Device{withMIG(device("nvidia", 0, 80, 80))}, "nvidia 0", "", "MIG is enabled"},

		{"draining device is skipped", requestFor(10), []placement.Device{device("nvidia", 0, 12, 24), withDraining(device("nvidia", 1, 24, 24), "w-1")}, "nvidia 0", "", ""},
		{"only a draining device fits", requestFor(20), []placement.Device{device("nvidia", 0, 12, 24), withDraining(device("nvidia", 1, 3, 24), "w-1")}, "wait w-1 nvidia 1", "", "waiting for w-1 to release memory on nvidia 1"},
		{"draining device with free memory", requestFor(20), []placement.Device{withDraining(device("nvidia", 1, 24, 24), "w-1")}, "wait w-1 nvidia 1", "", ""},
		{"too large for a draining device", requestFor(30), []placement.Device{withDraining(device("nvidia", 1, 3, 24), "w-1")}, "failed", "", "still used by stopping worker w-1"},
		{"two devices, second draining", requestFor(44), []placement.Device{device("nvidia", 0, 24, 24), withDraining(device("nvidia", 1, 3, 24), "w-2", "w-1")}, "wait w-1,w-2 nvidia 1", "", ""},
		{"reservations remain after draining", requestFor(22), []placement.Device{withReserved(withDraining(device("nvidia", 1, 3, 24), "w-1"), 4)}, "failed", "", ""},

		{"by index", on(requestFor(10), "0"), l4s, "nvidia 0", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=0", "as requested"},
		{"by index, order kept", on(requestFor(30), "1,0"), l4s, "nvidia 1,0", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1,0", ""},
		{"by index, engine without accelerator support", with(on(requestFor(10), "0"), func(r *placement.Request) { r.UsesAccelerator = false }), l4s, "nvidia 0", "", ""},
		{"by index, any number of devices", on(requestFor(60), "0,1,2"), four, "nvidia 0,1,2", "", ""},
		{"unknown index", on(requestFor(10), "0,7"), []placement.Device{device("nvidia", 0, 1, 1), withError(device("nvidia", 1, 1, 1), "GPU is lost")}, "not_found", "", "unknown nvidia device 7; this machine has:\n  nvidia 0\n  nvidia 1: GPU is lost"},
		{"by index, no devices", on(requestFor(10), "0"), nil, "not_found", "", "this machine has no accelerator"},
		{"by index, broken device", on(requestFor(10), "1"), []placement.Device{device("nvidia", 0, 24, 24), withError(device("nvidia", 1, 24, 24), "GPU is lost")}, "failed", "", "nvidia 1 cannot be used: GPU is lost"},
		{"by index, draining", on(requestFor(10), "1"), []placement.Device{device("nvidia", 0, 24, 24), withDraining(device("nvidia", 1, 24, 24), "w-1")}, "wait w-1 nvidia 1", "", ""},
		{"by index, draining and too large", on(requestFor(30), "1"), []placement.Device{withDraining(device("nvidia", 1, 24, 24), "w-1")}, "failed", "", "does not fit"},
		{"by index, too large", on(requestFor(21), "0"), l4s, "failed", "", "missing: 2.0 GiB on nvidia 0"},
		{"by index, too large for first device", on(requestFor(41), "0,1"), l4s, "failed", "", "missing: 1.5 GiB on nvidia 0; it would fit with 21.5 GiB free on each of 2 devices"},
		{"invalid index", on(requestFor(10), "x"), l4s, "bad_operation", "", `"x"`},
		{"by index, unknown memory", on(requestFor(10), "0"), []placement.Device{withUnknownFree(device("amd", 0, 0, 0))}, "amd 0", "HIP_VISIBLE_DEVICES=0", "assumed to be sufficient"},

		{"no accelerator", requestFor(10), nil, "cpu", "", "no accelerator on this machine: using the CPU"},
		{"no usable device", requestFor(10), []placement.Device{withError(device("nvidia", 0, 24, 24), "GPU is lost")}, "cpu", "CUDA_VISIBLE_DEVICES=-1 GGML_VK_VISIBLE_DEVICES=-1", "nvidia 0: GPU is lost"},
		{"no usable device, required", with(requestFor(10), requires), []placement.Device{withError(device("nvidia", 0, 24, 24), "GPU is lost")}, "failed", "", "requires an accelerator, but none is usable:\n  nvidia 0: GPU is lost"},
		{"no accelerator, required", with(requestFor(10), requires), nil, "failed", "", "this machine has no accelerator"},
		{"unsupported vendor", with(requestFor(10), nvidia), []placement.Device{amd}, "cpu", "GGML_VK_VISIBLE_DEVICES=-1 HIP_VISIBLE_DEVICES=-1", "no usable nvidia accelerator: using the CPU (amd 0)"},
		{"unsupported vendor, required", with(with(requestFor(10), nvidia), requires), []placement.Device{amd}, "failed", "", "requires an nvidia accelerator"},
		{"card without a driver", requestFor(10), []placement.Device{withBus(withError(device("amd", -1, 0, 0), "no driver"), "0000:41:00.0")}, "cpu", "GGML_VK_VISIBLE_DEVICES=-1 HIP_VISIBLE_DEVICES=-1", "amd at 0000:41:00.0: no driver"},
		{"device without an index", requestFor(10), []placement.Device{device("intel", -1, 24, 24)}, "cpu", "GGML_VK_VISIBLE_DEVICES=-1 ONEAPI_DEVICE_SELECTOR=*:cpu", "no device index reported"},
		{"CPU requested", on(requestFor(10), "none"), append([]placement.Device{amd, mac}, l4s...), "cpu", "CUDA_VISIBLE_DEVICES=-1 GGML_VK_VISIBLE_DEVICES=-1 HIP_VISIBLE_DEVICES=-1", "as requested"},
		{"CPU requested, accelerator required", with(on(requestFor(10), "none"), requires), l4s, "failed", "", `device "none" was requested`},
		{"engine without accelerator support", with(requestFor(10), func(r *placement.Request) { r.UsesAccelerator = false }), l4s, "cpu", "CUDA_VISIBLE_DEVICES=-1 GGML_VK_VISIBLE_DEVICES=-1", "uses no accelerator"},

		{"Vulkan counts by PCI address", on(requestFor(10), "0"), []placement.Device{withBus(device("intel", 0, 16, 16), "0000:41:00.0"), withBus(device("intel", 1, 16, 16), "0000:03:00.0")}, "intel 0", "GGML_VK_VISIBLE_DEVICES=1 ONEAPI_DEVICE_SELECTOR=level_zero:0", ""},
		{"Vulkan counts all vendors", with(on(requestFor(10), "1,0"), nvidia), []placement.Device{withBus(amd, "0000:03:00.0"), withBus(l4s[0], "0000:01:00.0"), withBus(l4s[1], "0000:41:00.0")}, "nvidia 1,0", "CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=1,0 GGML_VK_VISIBLE_DEVICES=2,0", ""},
		{"Vulkan order unknown with a broken device", requestFor(10), []placement.Device{withBus(withError(device("nvidia", 0, 24, 24), "GPU is lost"), "0000:01:00.0"), withBus(amd, "0000:41:00.0")}, "amd 0", "HIP_VISIBLE_DEVICES=0", ""},
		{"Vulkan order unknown without a driver", requestFor(10), []placement.Device{withBus(device("intel", -1, 24, 24), "0000:01:00.0"), withBus(amd, "0000:41:00.0")}, "amd 0", "HIP_VISIBLE_DEVICES=0", ""},
		{"two vendors: more memory", requestFor(10), append([]placement.Device{amd}, l4s...), "amd 0", "HIP_VISIBLE_DEVICES=0", ""},
		{"two vendors: one supported", with(requestFor(10), nvidia), append([]placement.Device{amd}, l4s...), "nvidia 1", "", ""},
		{"any vendor", with(requestFor(10), func(r *placement.Request) { r.Vendor = "any" }), append([]placement.Device{amd}, l4s...), "amd 0", "", ""},
		{"never split over two vendors", requestFor(80), []placement.Device{device("amd", 0, 64, 64), device("nvidia", 0, 64, 64)}, "failed", "", "amd 0: 64.0 GiB free of 64.0 GiB, 0 B in use\n  nvidia 0:"},
		{"two vendors, by index: one supported", with(on(requestFor(10), "0"), nvidia), append([]placement.Device{amd}, l4s...), "nvidia 0", "", ""},
		{"two vendors, by index: one working", on(requestFor(10), "0"), append([]placement.Device{withError(amd, "no driver")}, l4s...), "nvidia 0", "", ""},
		{"two vendors, by index: ambiguous", on(requestFor(10), "0"), append([]placement.Device{amd}, l4s...), "failed", "", "is ambiguous: this machine has amd and nvidia devices"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, env, message := summarize(placement.Place(tt.request, tt.devices))
			if got != tt.want {
				t.Errorf("Place() = %q with message\n%s\nwant %q", got, message, tt.want)
			}
			if tt.env != "" && env != tt.env || tt.want == "apple 0" && env != "" {
				t.Errorf("Place() returned environment %q, want %q", env, tt.env)
			}
			if !strings.Contains(message, tt.message) {
				t.Errorf("Place() returned message\n%s\nwant in it\n%s", message, tt.message)
			}
		})
	}
}

// summarize formats the result of Place like the table of TestPlace.
func summarize(d placement.Decision, err error) (result, env, message string) {
	if wait, ok := errors.AsType[*placement.WaitError](err); ok {
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
	var parts []string
	for _, n := range numbers {
		parts = append(parts, strconv.Itoa(n))
	}
	return strings.Join(parts, ",")
}

// TestDecision checks that the decision contains the devices with UUID and name, and the
// expected memory with overheads.
func TestDecision(t *testing.T) {
	t.Parallel()
	a, b := device("nvidia", 0, 20, 24), withName(device("nvidia", 1, 22, 24), "NVIDIA L4")
	b.UUID = "GPU-1"
	d, err := placement.Place(requestFor(30), []placement.Device{b, a})
	if err != nil {
		t.Fatal(err)
	}
	want := []operations.WorkerDevice{{Index: 0, Vendor: "nvidia"}, {Index: 1, Vendor: "nvidia", UUID: "GPU-1", Name: "NVIDIA L4"}}
	if !slices.Equal(d.Devices, want) || d.Estimate != 32*gib {
		t.Errorf("Place() = %+v, want devices %+v and an estimate of 32 GiB", d, want)
	}
	if d, err = placement.Place(requestFor(0), []placement.Device{a}); err != nil || d.Estimate != 0 {
		t.Errorf("Place() of an unknown estimate = %+v, %v, want an estimate of 0", d, err)
	}
	vllm := with(requestFor(30), func(r *placement.Request) { r.Fraction = 0.5 })
	if d, err = placement.Place(vllm, []placement.Device{device("nvidia", 0, 80, 80)}); err != nil || d.Estimate != 40*gib {
		t.Errorf("Place() with a reserved fraction of 0.5 = %+v, %v, want an estimate of 40 GiB", d, err)
	}
	if d, err = placement.Place(on(requestFor(30), "none"), nil); err != nil || d.Env == nil || d.Estimate != 0 {
		t.Errorf("Place() on the CPU = %+v, %v, want an environment and an estimate of 0", d, err)
	}
	if strings.Contains(d.Reason, "\n") {
		t.Errorf("Place() returned reason %q, want one line", d.Reason)
	}
}

// TestPlaceReclaimableMemory checks that the error has reason ReasonInsufficientMemory only
// if stopping idle workers would free enough memory.
func TestPlaceReclaimableMemory(t *testing.T) {
	t.Parallel()
	reclaimable := func(d placement.Device, n int64) placement.Device { d.Reclaimable = n * gib; return d }
	for _, tt := range []struct {
		name    string
		request placement.Request
		devices []placement.Device
		want    bool // whether the reason is ReasonInsufficientMemory
	}{
		{"no reclaimable memory", requestFor(20), []placement.Device{device("nvidia", 0, 3, 24)}, false},
		{"enough reclaimable memory", requestFor(20), []placement.Device{reclaimable(device("nvidia", 0, 3, 24), 20)}, true},
		{"too little reclaimable memory", requestFor(20), []placement.Device{reclaimable(device("nvidia", 0, 3, 24), 10)}, false},
		{"larger than the device", requestFor(500), []placement.Device{reclaimable(device("nvidia", 0, 3, 24), 1000)}, false},
		{"enough on another device", requestFor(20), []placement.Device{device("nvidia", 0, 3, 24), reclaimable(device("nvidia", 1, 0, 24), 24)}, true},
		{"enough on two devices", requestFor(40), []placement.Device{reclaimable(device("nvidia", 0, 3, 24), 20), reclaimable(device("nvidia", 1, 0, 24), 24)}, true},
		{"not on the requested device", on(requestFor(20), "0"), []placement.Device{device("nvidia", 0, 3, 24), reclaimable(device("nvidia", 1, 0, 24), 24)}, false},
		{"on the requested device", on(requestFor(20), "1"), []placement.Device{device("nvidia", 0, 3, 24), reclaimable(device("nvidia", 1, 0, 24), 24)}, true},
		{"too few devices", with(requestFor(1), func(r *placement.Request) { r.DeviceCounts = []int{2} }), []placement.Device{reclaimable(device("nvidia", 0, 0, 24), 24)}, false},
	} {
		_, err := placement.Place(tt.request, tt.devices)
		e, ok := errors.AsType[*operations.Error](err)
		if !ok || (e.Reason == operations.ReasonInsufficientMemory) != tt.want {
			t.Errorf("%s: Place() = %v, want an error with reason %s: %t", tt.name, err, operations.ReasonInsufficientMemory, tt.want)
		}
	}
}
