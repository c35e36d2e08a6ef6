package machine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
)

// fakeDetector answers for the vendors' tools, by the longest matching start of the
// command line, and notes what was asked.
func fakeDetector(answers map[string]string, asked chan<- string) *gpu.Detector {
	return &gpu.Detector{
		Sys: "/nonexistent",
		Run: func(ctx context.Context, name string, args ...string) (gpu.Result, error) {
			line, best := strings.Join(append([]string{name}, args...), " "), ""
			asked <- line
			for start := range answers {
				if strings.HasPrefix(line, start) && len(start) > len(best) {
					best = start
				}
			}
			if best == "" {
				return gpu.Result{}, exec.ErrNotFound
			}
			return gpu.Result{Stdout: []byte(answers[best])}, ctx.Err()
		},
	}
}

const oneGPU = "0, GPU-a, NVIDIA L4, 00000000:41:00.0, 23034, 1204, 21500, 570.86.15, 8.9, [N/A], 37, 41, 30.5\n"

// This machine, whatever it is: what every machine has must be there and make sense.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := Machine{Home: filepath.Join(dir, "not/yet"), ModelsPath: dir, Libc: "glibc 2.36"}
	r, err := m.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.OS != runtime.GOOS || r.Arch != runtime.GOARCH || r.Kernel == "" || r.Libc != "glibc 2.36" || r.CPU.Threads < 1 {
		t.Errorf("%+v", r)
	}
	if host, err := os.Hostname(); err != nil || r.Hostname != host {
		t.Errorf("hostname %q, want %q, %v", r.Hostname, host, err)
	}
	if r.MemoryTotal < 64<<20 || r.MemoryAvailable == 0 || r.MemoryAvailable > r.MemoryTotal {
		t.Errorf("memory %d of %d", r.MemoryAvailable, r.MemoryTotal)
	}
	if r.DiskTotal == 0 || r.DiskFree > r.DiskTotal || r.ModelsFree == 0 || r.ModelsPath != dir {
		t.Errorf("disk %d of %d, for models %d in %s", r.DiskFree, r.DiskTotal, r.ModelsFree, r.ModelsPath)
	}
	if r.Devices == nil {
		t.Error("devices are null in JSON")
	}
	devices, err := m.Devices(t.Context())
	if err != nil || len(devices) != len(r.Devices) {
		t.Errorf("%d devices and %d, %v", len(devices), len(r.Devices), err)
	}
	if out, err := exec.CommandContext(t.Context(), "uname", "-r").Output(); err == nil && strings.TrimSpace(string(out)) != r.Kernel {
		t.Errorf("kernel %q, uname says %q", r.Kernel, out)
	}
}

func TestDevicesAndProcesses(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 100)
	d := fakeDetector(map[string]string{
		"nvidia-smi --query-gpu":          oneGPU,
		"nvidia-smi --query-compute-apps": "GPU-a, 1073741824, python3, 1000\n",
		"nvidia-smi":                      "Driver Version: 570.86.15   CUDA Version: 12.8",
	}, asked)
	m := Machine{Detector: d}
	calls := func() (lines []string) {
		for len(asked) > 0 {
			lines = append(lines, <-asked)
		}
		return lines
	}
	r, err := m.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.CUDA != "12.8" || len(r.Devices) != 1 || r.Devices[0].Vendor != "nvidia" || r.Devices[0].UUID != "GPU-a" ||
		r.Devices[0].MemoryFree == nil || *r.Devices[0].MemoryFree != 21500<<20 {
		t.Errorf("%+v", r)
	}
	if lines := calls(); slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "PIDS") || strings.Contains(l, "apps") }) {
		t.Errorf("who holds memory is asked for, and nobody sees it: %q", lines)
	}
	if _, err := m.Devices(t.Context()); err != nil {
		t.Error(err)
	}
	if lines := calls(); slices.Contains(lines, "nvidia-smi") {
		t.Errorf("the CUDA version is asked for, and nobody sees it: %q", lines)
	}
	processes, err := m.Processes(t.Context())
	if err != nil || len(processes) != 1 || processes[0].DeviceUUID != "GPU-a" || processes[0].Name != "python3" || *processes[0].Memory != 1000<<20 {
		t.Errorf("%+v, %v", processes, err)
	}
}

// Every field of a device comes over.
func TestDeviceFields(t *testing.T) {
	t.Parallel()
	in := gpu.Device{
		Index: 3, Vendor: gpu.AMD, UUID: "u", Name: "n", PCIBusID: "p", MemoryTotal: 10, MemoryUsed: new(uint64(4)), MemoryFree: new(uint64(6)),
		Driver: "d", ComputeCapability: "c", Architecture: "a", MIG: new(true), Utilization: new(1.0), Temperature: new(2.0), Power: new(3.0), Error: "e",
	}
	got := fillUnifiedMemory([]gpu.Device{in}, 1000, 500)[0]
	want := gpu.Device{
		Index: 3, Vendor: "amd", UUID: "u", Name: "n", PCIBusID: "p", MemoryTotal: 10, MemoryUsed: in.MemoryUsed, MemoryFree: in.MemoryFree,
		Driver: "d", ComputeCapability: "c", Architecture: "a", MIG: in.MIG, Utilization: in.Utilization, Temperature: in.Temperature, Power: in.Power, Error: "e",
	}
	if got != want {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func TestUnifiedMemory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		in          gpu.Device
		total, free uint64 // free 0: not known
	}{
		{"Apple", gpu.Device{MemoryTotal: 1000, Unified: true}, 1000, 500},
		{"the tool says nothing", gpu.Device{Unified: true}, 1000, 500},
		{"the tool says what is free", gpu.Device{MemoryTotal: 1000, MemoryFree: new(uint64(7)), Unified: true}, 1000, 7},
		{"less than the machine has", gpu.Device{MemoryTotal: 300, Unified: true}, 300, 300},
		{"broken", gpu.Device{Unified: true, Error: "no"}, 0, 0},
		{"memory of its own", gpu.Device{MemoryTotal: 1000}, 1000, 0},
	} {
		d := fillUnifiedMemory([]gpu.Device{tt.in}, 1000, 500)[0]
		var free uint64
		if d.MemoryFree != nil {
			free = *d.MemoryFree
		}
		if d.MemoryTotal != tt.total || free != tt.free {
			t.Errorf("%s: %d free of %d, want %d of %d", tt.name, free, d.MemoryTotal, tt.free, tt.total)
		}
	}
}

func TestCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := Machine{Home: "/", Detector: fakeDetector(nil, make(chan string, 100))}
	if _, err := m.Capabilities(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Capabilities: %v", err)
	}
	if _, err := m.Devices(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Devices: %v", err)
	}
	if _, err := m.Processes(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Processes: %v", err)
	}
}

func TestDisk(t *testing.T) {
	t.Parallel()
	if total, free := diskSpace(t.Context(), ""); total != 0 || free != 0 {
		t.Errorf("no path: %d of %d", free, total)
	}
	dir := t.TempDir()
	total, _ := diskSpace(t.Context(), dir)
	below, _ := diskSpace(t.Context(), filepath.Join(dir, "a/b/c"))
	if total == 0 || below != total {
		t.Errorf("%d, below it %d", total, below)
	}
	if got := nearestExisting("a/b"); got != "." && got != "a" && got != "a/b" {
		t.Errorf("a relative path is on %s", got)
	}
}
