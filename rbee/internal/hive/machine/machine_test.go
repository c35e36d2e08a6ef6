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

// fakeDetector returns a detector that does not run the vendor tools. It uses the output
// whose key is the longest prefix of the command line, and sends each command line to
// commands.
func fakeDetector(outputs map[string]string, commands chan<- string) *gpu.Detector {
	return &gpu.Detector{
		Sys: "/nonexistent",
		Run: func(ctx context.Context, name string, args ...string) (gpu.Result, error) {
			line, best := strings.Join(append([]string{name}, args...), " "), ""
			commands <- line
			for prefix := range outputs {
				if strings.HasPrefix(line, prefix) && len(prefix) > len(best) {
					best = prefix
				}
			}
			if best == "" {
				return gpu.Result{}, exec.ErrNotFound
			}
			return gpu.Result{Stdout: []byte(outputs[best])}, ctx.Err()
		},
	}
}

const oneGPU = "0, GPU-a, NVIDIA L4, 00000000:41:00.0, 23034, 1204, 21500, 570.86.15, 8.9, [N/A], 37, 41, 30.5\n"

// TestCapabilities checks the report of the machine that runs the tests.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := Machine{Home: filepath.Join(dir, "not/yet"), ModelsPath: dir, Libc: "glibc 2.36"}
	r, err := m.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.OS != runtime.GOOS || r.Arch != runtime.GOARCH || r.Kernel == "" || r.Libc != "glibc 2.36" || r.CPU.Threads < 1 {
		t.Errorf("Capabilities() = %+v, want %s/%s, a kernel, glibc 2.36 and at least one thread", r, runtime.GOOS, runtime.GOARCH)
	}
	if host, err := os.Hostname(); err != nil || r.Hostname != host {
		t.Errorf("Capabilities() has hostname %q, want %q (%v)", r.Hostname, host, err)
	}
	if r.MemoryTotal < 64<<20 || r.MemoryAvailable == 0 || r.MemoryAvailable > r.MemoryTotal {
		t.Errorf("Capabilities() has %d of %d bytes of memory available, want 0 < available <= total", r.MemoryAvailable, r.MemoryTotal)
	}
	if r.DiskTotal == 0 || r.DiskFree > r.DiskTotal || r.ModelsFree == 0 || r.ModelsPath != dir {
		t.Errorf("Capabilities() has %d of %d bytes free, %d for models in %s, want known values and %s", r.DiskFree, r.DiskTotal, r.ModelsFree, r.ModelsPath, dir)
	}
	if r.Devices == nil {
		t.Error("Capabilities() has nil Devices, want a list, which may be empty")
	}
	devices, err := m.Devices(t.Context())
	if err != nil || len(devices) != len(r.Devices) {
		t.Errorf("Devices() = %+v, %v, want the %d devices of Capabilities()", devices, err, len(r.Devices))
	}
	if out, err := exec.CommandContext(t.Context(), "uname", "-r").Output(); err == nil && strings.TrimSpace(string(out)) != r.Kernel {
		t.Errorf("Capabilities() has kernel %q, want %q, which uname prints", r.Kernel, out)
	}
}

func TestDevicesAndProcesses(t *testing.T) {
	t.Parallel()
	commands := make(chan string, 100)
	d := fakeDetector(map[string]string{
		"nvidia-smi --query-gpu":          oneGPU,
		"nvidia-smi --query-compute-apps": "GPU-a, 1073741824, python3, 1000\n",
		"nvidia-smi":                      "Driver Version: 570.86.15   CUDA Version: 12.8",
	}, commands)
	m := Machine{Detector: d}
	takeCommands := func() (lines []string) {
		for len(commands) > 0 {
			lines = append(lines, <-commands)
		}
		return lines
	}
	r, err := m.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.CUDA != "12.8" || len(r.Devices) != 1 || r.Devices[0].Vendor != "nvidia" || r.Devices[0].UUID != "GPU-a" ||
		r.Devices[0].MemoryFree == nil || *r.Devices[0].MemoryFree != 21500<<20 {
		t.Errorf("Capabilities() = %+v, want CUDA 12.8 and one NVIDIA device with 21500 MiB free", r)
	}
	if lines := takeCommands(); slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, "PIDS") || strings.Contains(l, "apps") }) {
		t.Errorf("Capabilities() ran %q, want no query of processes", lines)
	}
	if _, err := m.Devices(t.Context()); err != nil {
		t.Errorf("Devices() = %v, want no error", err)
	}
	if lines := takeCommands(); slices.Contains(lines, "nvidia-smi") {
		t.Errorf("Devices() ran %q, want no query of the CUDA version", lines)
	}
	processes, err := m.Processes(t.Context())
	if err != nil || len(processes) != 1 || processes[0].DeviceUUID != "GPU-a" || processes[0].Name != "python3" || *processes[0].Memory != 1000<<20 {
		t.Errorf("Processes() = %+v, %v, want python3 with 1000 MiB on GPU-a", processes, err)
	}
}

func TestFillUnifiedMemoryKeepsFields(t *testing.T) {
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
		t.Errorf("fillUnifiedMemory() = %+v, want %+v", got, want)
	}
}

func TestUnifiedMemory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name        string
		in          gpu.Device
		total, free uint64 // free 0 means unknown
	}{
		{"Apple", gpu.Device{MemoryTotal: 1000, Unified: true}, 1000, 500},
		{"no values", gpu.Device{Unified: true}, 1000, 500},
		{"free memory known", gpu.Device{MemoryTotal: 1000, MemoryFree: new(uint64(7)), Unified: true}, 1000, 7},
		{"less than the machine", gpu.Device{MemoryTotal: 300, Unified: true}, 300, 300},
		{"unusable", gpu.Device{Unified: true, Error: "no"}, 0, 0},
		{"dedicated memory", gpu.Device{MemoryTotal: 1000}, 1000, 0},
	} {
		d := fillUnifiedMemory([]gpu.Device{tt.in}, 1000, 500)[0]
		var free uint64
		if d.MemoryFree != nil {
			free = *d.MemoryFree
		}
		if d.MemoryTotal != tt.total || free != tt.free {
			t.Errorf("%s: fillUnifiedMemory() = %d of %d bytes free, want %d of %d", tt.name, free, d.MemoryTotal, tt.free, tt.total)
		}
	}
}

func TestCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := Machine{Home: "/", Detector: fakeDetector(nil, make(chan string, 100))}
	if _, err := m.Capabilities(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Capabilities() = %v, want context.Canceled", err)
	}
	if _, err := m.Devices(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Devices() = %v, want context.Canceled", err)
	}
	if _, err := m.Processes(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Processes() = %v, want context.Canceled", err)
	}
}

func TestDiskSpace(t *testing.T) {
	t.Parallel()
	if total, free := diskSpace(t.Context(), ""); total != 0 || free != 0 {
		t.Errorf("diskSpace(%q) = %d, %d, want 0, 0", "", total, free)
	}
	dir := t.TempDir()
	total, _ := diskSpace(t.Context(), dir)
	below, _ := diskSpace(t.Context(), filepath.Join(dir, "a/b/c"))
	if total == 0 || below != total {
		t.Errorf("diskSpace() = total %d of a directory and %d of a missing path below it, want the same", total, below)
	}
	if got := nearestExisting("a/b"); got != "." && got != "a" && got != "a/b" {
		t.Errorf("nearestExisting(%q) = %q, want the path or a parent", "a/b", got)
	}
}
