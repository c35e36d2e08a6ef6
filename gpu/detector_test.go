package gpu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func toJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// machine is a fake machine with tools and PCI cards.
type machine struct {
	answers map[string]answer // output of tools, by the longest matching prefix of the command line
	cards   []fakeCard
	goos    string
}

type answer struct {
	out  string
	code int
}

type fakeCard struct {
	bus, vendor, class, driver string
	files                      map[string]string
}

func (m machine) detector(t *testing.T) *Detector {
	t.Helper()
	sys := t.TempDir()
	for _, c := range m.cards {
		dir := filepath.Join(sys, "bus/pci/devices", c.bus)
		files := map[string]string{"vendor": c.vendor + "\n", "class": c.class + "\n", "device": "0x1234\n"}
		for name, text := range c.files {
			files[name] = text
		}
		for name, text := range files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if c.driver != "" {
			if err := os.Symlink("../../drivers/"+c.driver, filepath.Join(dir, "driver")); err != nil {
				t.Fatal(err)
			}
			bound := filepath.Join(sys, "bus/pci/drivers", c.driver)
			if err := errors.Join(os.MkdirAll(bound, 0o755), os.Symlink(dir, filepath.Join(bound, c.bus))); err != nil {
				t.Fatal(err)
			}
		}
	}
	goos := m.goos
	if goos == "" {
		goos = "linux"
	}
	return &Detector{Sys: sys, Run: m.run, goos: goos}
}

func (m machine) run(ctx context.Context, name string, args ...string) (Result, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	best := ""
	for prefix := range m.answers {
		if strings.HasPrefix(line, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	if best == "" {
		return Result{}, fmt.Errorf("%s: %w", name, exec.ErrNotFound)
	}
	a := m.answers[best]
	return Result{Stdout: []byte(a.out), ExitCode: a.code}, ctx.Err()
}

// detectCase is a fake machine and its devices.
type detectCase struct {
	name string
	machine
	want []string // "vendor index bus name: error"
}

func detectCases(t *testing.T) []detectCase {
	t.Helper()
	file := func(name string) answer { return answer{out: string(testdata(t, name))} }
	down := file("nvidia_driver_down.txt")
	down.code = 9
	nvidiaCard := fakeCard{bus: "0000:41:00.0", vendor: "0x10de", class: "0x030200"}
	const downMessage = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. " +
		"Make sure that the latest NVIDIA driver is installed and running."
	rtx3090 := "0, GPU-1, NVIDIA GeForce RTX 3090, 00000000:0B:00.0, 24576, 300, 24000, 550.90.07, 8.6, [N/A], 3, 44, 30.1\n"
	return []detectCase{
		{"no cards", machine{}, nil},
		{"other cards", machine{cards: []fakeCard{
			{bus: "0000:00:02.0", vendor: "0x8086", class: "0x030000", driver: "i915"}, // integrated
			{bus: "0000:09:00.0", vendor: "0x1a03", class: "0x030000"},                 // of the board
			{bus: "0000:0a:00.0", vendor: "0x10de", class: "0x040300"},                 // sound
		}}, nil},
		{"NVIDIA", machine{answers: map[string]answer{"nvidia-smi --query-gpu": file("nvidia_two.csv")}, cards: []fakeCard{nvidiaCard}},
			[]string{"nvidia 0 0000:41:00.0 NVIDIA H100 80GB HBM3: ", "nvidia 1 0000:c1:00.0 NVIDIA GeForce RTX 4090: "}},
		{"lost NVIDIA device", machine{answers: map[string]answer{"nvidia-smi": {out: file("nvidia_lost.csv").out, code: 15}}},
			[]string{
				"nvidia 0 0000:17:00.0 NVIDIA L4: ",
				`nvidia 2 0000:65:00.0 NVIDIA L4: nvidia-smi reports "GPU is lost" for memory.total`,
				"nvidia -1 0000:34:00.0 : Unable to determine the device handle for GPU1: 0000:34:00.0: Unknown Error",
			}},
		{"NVIDIA driver down", machine{answers: map[string]answer{"nvidia-smi": down}},
			[]string{"nvidia -1  : " + downMessage}},
		{"NVIDIA driver down, card in sysfs", machine{answers: map[string]answer{"nvidia-smi": down}, cards: []fakeCard{nvidiaCard}},
			[]string{"nvidia -1 0000:41:00.0 : " + downMessage + " (no driver is bound to the device)"}},
		{"NVIDIA tool without output", machine{answers: map[string]answer{"nvidia-smi": {code: 255}}},
			[]string{"nvidia -1  : nvidia-smi failed with exit code 255 and no output"}},
		{"NVIDIA driver missing", machine{cards: []fakeCard{{bus: "0000:41:00.0", vendor: "0x10de", class: "0x030000", driver: "nouveau"}}},
			[]string{"nvidia -1 0000:41:00.0 : the NVIDIA driver is not installed: nvidia-smi not found (the device is bound to the driver nouveau)"}},
		{"NVIDIA tool without a card", machine{answers: map[string]answer{"nvidia-smi": {out: "No devices were found\n", code: 6}}}, nil},
		{"NVIDIA tool finds no card", machine{answers: map[string]answer{"nvidia-smi": {out: "No devices were found\n"}},
			cards: []fakeCard{{bus: "0000:41:00.0", vendor: "0x10de", class: "0x030000", driver: "nvidia"}}},
			[]string{"nvidia -1 0000:41:00.0 : No devices were found"}},
		{"NVIDIA warning about the infoROM", machine{answers: map[string]answer{"nvidia-smi": {out: rtx3090 + "WARNING: infoROM is corrupted at gpu 0000:0B:00.0\n", code: 14}}},
			[]string{"nvidia 0 0000:0b:00.0 NVIDIA GeForce RTX 3090: "}},
		{"NVIDIA warning without a device", machine{answers: map[string]answer{"nvidia-smi": {out: "Warning: persistence mode is disabled\n\nnote: 1 device\n" + rtx3090}}},
			[]string{"nvidia 0 0000:0b:00.0 NVIDIA GeForce RTX 3090: "}},
		{"NVIDIA warning about a working device", machine{answers: map[string]answer{"nvidia-smi": {out: "GPU 00000000:0B:00.0: ECC page retirement is pending\n" + rtx3090, code: 255}}},
			[]string{"nvidia 0 0000:0b:00.0 NVIDIA GeForce RTX 3090: "}},
		{"two lost NVIDIA devices", machine{answers: map[string]answer{"nvidia-smi": {code: 15, out: rtx3090 +
			"Unable to determine the device handle for GPU1: 0000:34:00.0: Unknown Error\nUnable to determine the device handle for GPU2: 0000:35:00.0: Unknown Error\nReboot the system\n"}}},
			[]string{
				"nvidia 0 0000:0b:00.0 NVIDIA GeForce RTX 3090: ",
				"nvidia -1  : Reboot the system",
				"nvidia -1 0000:34:00.0 : Unable to determine the device handle for GPU1: 0000:34:00.0: Unknown Error",
				"nvidia -1 0000:35:00.0 : Unable to determine the device handle for GPU2: 0000:35:00.0: Unknown Error",
			}},
		{"NVIDIA values with spaces", machine{answers: map[string]answer{"nvidia-smi": {out: "0, GPU-1, NVIDIA \"A\", 2nd, 00000000:0B:00.0, [Not Supported], [Unknown Error], [N/A], 550.90.07, [Not Supported], [N/A], [N/A], [N/A], [N/A]\n"}}},
			[]string{"nvidia 0 0000:0b:00.0 NVIDIA \"A\", 2nd: "}},
		{"AMD", machine{answers: map[string]answer{"amd-smi static": file("amd_static_object.json"), "amd-smi list": file("amd_list.json")}},
			[]string{"amd 0 0000:83:00.0 AMD Instinct MI210: "}},
		{"AMD, older tool", machine{answers: map[string]answer{"amd-smi": {out: "no libamd_smi", code: 1}, "rocm-smi": file("rocm_mi250.json")}},
			[]string{"amd 0 0000:c1:00.0 AMD INSTINCT MI250 (MCM) OAM AC MBA: ", "amd 1 0000:c4:00.0 AMD INSTINCT MI250 (MCM) OAM AC MBA: "}},
		{"AMD, sysfs only", machine{cards: []fakeCard{
			{bus: "0000:03:00.0", vendor: "0x1002", class: "0x120000", driver: "amdgpu", files: map[string]string{"product_name": "MI300X\n"}},
			{bus: "0000:04:00.0", vendor: "0x1002", class: "0x030000", driver: "vfio-pci"}}},
			[]string{"amd 0 0000:03:00.0 MI300X: ",
				"amd -1 0000:04:00.0 : the device does not use the amdgpu driver (the device is bound to the driver vfio-pci)"}},
		{"AMD tool fails", machine{answers: map[string]answer{"amd-smi": {out: "AMDSMI_STATUS_DRV\n", code: 34}},
			cards: []fakeCard{{bus: "0000:03:00.0", vendor: "0x1002", class: "0x120000", driver: "amdgpu"}}},
			[]string{"amd -1 0000:03:00.0 : AMDSMI_STATUS_DRV"}},
		{"AMD tool without a card", machine{answers: map[string]answer{"rocm-smi": {out: "ERROR", code: 1}}}, nil},
		{"Intel, sysfs only", machine{cards: []fakeCard{{bus: "0000:03:00.0", vendor: "0x8086", class: "0x030000", driver: "xe"}}},
			[]string{"intel 0 0000:03:00.0 Intel GPU 0x1234: "}},
		{"AMD tool with a warning", machine{answers: map[string]answer{"amd-smi static": {out: file("amd_static_object.json").out, code: 1}}},
			[]string{"amd 0  AMD Instinct MI210: "}},
		{"Intel", machine{answers: map[string]answer{"xpu-smi discovery": file("xpu_list.json"), "xpu-smi discovery -d 0": file("xpu_detail.json")},
			cards: []fakeCard{{bus: "0000:4d:00.0", vendor: "0x8086", class: "0x038000", driver: "i915"}}},
			[]string{"intel 0 0000:4d:00.0 Intel(R) Data Center GPU Flex 170: "}},
		{"Intel tool fails", machine{answers: map[string]answer{"xpu-smi": {out: `{"error": "Level Zero Initialization Error"}`, code: 1}},
			cards: []fakeCard{{bus: "0000:4d:00.0", vendor: "0x8086", class: "0x038000", driver: "i915"}}},
			[]string{`intel 0 0000:4d:00.0 Intel GPU 0x1234: {"error": "Level Zero Initialization Error"}`}},
		{"Apple", machine{goos: "darwin", answers: map[string]answer{"system_profiler": file("apple_m4.json"), "sysctl": {out: "25769803776\n"}}},
			[]string{"apple 0  Apple M4: "}},
		{"Mac with Intel processor", machine{goos: "darwin", answers: map[string]answer{"system_profiler": {out: `{"SPDisplaysDataType":[]}`}}}, nil},
		{"two vendors", machine{answers: map[string]answer{"nvidia-smi": file("nvidia_gb10.csv"), "amd-smi static": file("amd_static_array.json")}},
			[]string{"amd 0  : ", "amd 1 0000:03:00.0 Radeon RX 7900 XTX: ", "nvidia 0 000f:01:00.0 NVIDIA GB10: "}},
	}
}

func TestDetect(t *testing.T) {
	t.Parallel()
	for _, tt := range detectCases(t) {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			report, err := tt.detector(t).Detect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			usable := 0
			for _, d := range report.Devices {
				got = append(got, fmt.Sprintf("%s %d %s %s: %s", d.Vendor, d.Index, d.PCIBusID, d.Name, d.Error))
				if d.Error == "" {
					usable++
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("Detect() =\n     %s\nwant %s", strings.Join(got, "\n     "), strings.Join(tt.want, "\n     "))
			}
			if n := len(report.Usable()); n != usable {
				t.Errorf("Usable() returned %d devices, want %d", n, usable)
			}
		})
	}
}

func TestDetectMemory(t *testing.T) {
	t.Parallel()
	m := machine{cards: []fakeCard{
		{bus: "0000:03:00.0", vendor: "0x1002", class: "0x030000", driver: "amdgpu", files: map[string]string{
			"mem_info_vram_total": "17163091968\n", "mem_info_vram_used": "1000\n", "gpu_busy_percent": "12\n", "unique_id": "9246aa\n"}},
		{bus: "0000:04:00.0", vendor: "0x8086", class: "0x030000", driver: "xe", files: map[string]string{
			"tile0/physical_vram_size_bytes": "0x300000000\n", "tile1/physical_vram_size_bytes": "1\n"}},
		{bus: "0000:05:00.0", vendor: "0x8086", class: "0x030000", driver: "i915", files: map[string]string{
			"drm/card3/lmem_total_bytes": "16225243136\n"}},
	}}
	report, err := m.detector(t).Detect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkEqual(t, "Detect()", report, Report{Devices: []Device{
		{Index: 0, Vendor: AMD, PCIBusID: "0000:03:00.0", Name: "AMD GPU 0x1234", UUID: "9246aa", MemoryTotal: 17163091968,
			MemoryUsed: new(uint64(1000)), MemoryFree: new(uint64(17163090968)), Utilization: new(12.0)},
		{Index: 0, Vendor: Intel, PCIBusID: "0000:04:00.0", Name: "Intel GPU 0x1234", Driver: "xe", MemoryTotal: 0x300000001},
		{Index: 1, Vendor: Intel, PCIBusID: "0000:05:00.0", Name: "Intel GPU 0x1234", Driver: "i915", MemoryTotal: 16225243136},
	}})
	mac := machine{goos: "darwin", answers: map[string]answer{
		"system_profiler": {out: string(testdata(t, "apple_m4.json"))}, "sysctl -n hw.memsize": {out: "25769803776\n"}}}
	report, err = mac.detector(t).Detect(t.Context())
	if err != nil || len(report.Devices) != 1 || report.Devices[0].MemoryTotal != 24<<30 || !report.Devices[0].Unified {
		t.Errorf("Detect() on a Mac = %s, %v, want one unified device with 24 GiB", toJSON(report), err)
	}
}

// TestDetectIntelStats checks the metrics of xpu-smi, which sysfs does not have.
func TestDetectIntelStats(t *testing.T) {
	t.Parallel()
	m := machine{
		answers: map[string]answer{
			"xpu-smi discovery": {out: string(testdata(t, "xpu_list.json"))}, "xpu-smi discovery -d 0": {out: string(testdata(t, "xpu_detail.json"))},
			"xpu-smi stats -d 0 -j": {out: string(testdata(t, "xpu_stats.json"))},
		},
		cards: []fakeCard{{bus: "0000:4d:00.0", vendor: "0x8086", class: "0x038000", driver: "i915"}},
	}
	report, err := m.detector(t).Detect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkEqual(t, "Detect() devices", report.Devices, []Device{{Vendor: Intel, UUID: "00000000-0000-0000-6769-df256e271362", Name: "Intel(R) Data Center GPU Flex 170",
		PCIBusID: "0000:4d:00.0", Driver: "XE_1.0.4_23.4.15", MemoryTotal: 14942253056, MemoryUsed: new(uint64(240320512)),
		MemoryFree: new(uint64(14942253056 - 240320512)), Utilization: new(12.0), Temperature: new(53.0), Power: new(44.69)}})
}

// TestWithHIPIndices checks that AMD devices have the indices of HIP if all devices are
// compute nodes.
func TestWithHIPIndices(t *testing.T) {
	t.Parallel()
	d := machine{}.detector(t)
	for node, properties := range map[string]string{
		"0":  "simd_count 0\nvendor_id 0\n",
		"1":  "simd_count 440\nvendor_id 4098\nlocation_id 49408\ndomain 0\n", // c1:00.0
		"2":  "simd_count 440\nvendor_id 4098\nlocation_id 33536\ndomain 0\n", // 83:00.0
		"10": "simd_count 440\nvendor_id 4098\nlocation_id 17152\ndomain 0\n", // 43:00.0
	} {
		dir := filepath.Join(d.Sys, "class/kfd/kfd/topology/nodes", node)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "properties"), []byte(properties), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	device := func(index int, bus string) Device { return Device{Index: index, Vendor: AMD, PCIBusID: bus} }
	broken := Device{Index: -1, Vendor: AMD, PCIBusID: "0000:05:00.0", Error: "no driver"}
	for name, tt := range map[string]struct{ devices, want []Device }{
		"no device": {nil, nil},
		"other order": {[]Device{device(0, "0000:43:00.0"), device(1, "0000:83:00.0"), device(2, "0000:c1:00.0"), broken},
			[]Device{device(2, "0000:43:00.0"), device(1, "0000:83:00.0"), device(0, "0000:c1:00.0"), broken}},
		"unknown address":   {[]Device{device(0, "0000:c1:00.0"), device(1, "0000:07:00.0")}, []Device{device(0, "0000:c1:00.0"), device(1, "0000:07:00.0")}},
		"duplicate address": {[]Device{device(0, "0000:83:00.0"), device(1, "0000:83:00.0")}, []Device{device(0, "0000:83:00.0"), device(1, "0000:83:00.0")}},
		"no address":        {[]Device{device(0, "")}, []Device{device(0, "")}},
	} {
		before := toJSON(tt.devices)
		checkEqual(t, name+": withHIPIndices()", d.withHIPIndices(tt.devices), tt.want)
		checkEqual(t, name+": argument of withHIPIndices()", toJSON(tt.devices), before)
	}
	d.Run = machine{answers: map[string]answer{"amd-smi static": {out: string(testdata(t, "amd_static_object.json"))}, "amd-smi list": {out: string(testdata(t, "amd_list.json"))}}}.run
	report, err := d.Detect(t.Context())
	if err != nil || len(report.Devices) != 1 || report.Devices[0].Index != 1 {
		t.Errorf("Detect() = %s, %v, want one device with index 1", toJSON(report), err)
	}
}

// TestDetectOldNvidia checks that the query is repeated without the fields that nvidia-smi
// does not support.
func TestDetectOldNvidia(t *testing.T) {
	t.Parallel()
	var calls []string
	d := machine{}.detector(t)
	d.Run = func(ctx context.Context, name string, args ...string) (Result, error) {
		if name != nvidiaSMI {
			return Result{}, exec.ErrNotFound
		}
		if len(args) == 0 {
			return Result{}, nil // the default output, for the CUDA version
		}
		calls = append(calls, args[0]) // the queries run in one goroutine
		for _, field := range []string{"compute_cap", "mig.mode.current"} {
			if strings.Contains(args[0], field) {
				return Result{Stdout: []byte(`Field "` + field + `" is not a valid field to query.`), ExitCode: 2}, nil
			}
		}
		return Result{Stdout: []byte("0, GPU-1, Tesla K80, 00000000:05:00.0, 11441, 0, 11441, 450.51.06, 0, 33, 26.20\n")}, nil
	}
	report, err := d.Detect(t.Context())
	if err != nil || len(calls) != 3 {
		t.Fatalf("Detect() = %v after the queries %q, want 3 queries", err, calls)
	}
	checkEqual(t, "Detect() devices", report.Devices, []Device{{Vendor: NVIDIA, UUID: "GPU-1", Name: "Tesla K80", PCIBusID: "0000:05:00.0", MemoryTotal: 11441 * mib,
		MemoryUsed: new(uint64(0)), MemoryFree: new(uint64(11441 * mib)), Driver: "450.51.06", Utilization: new(0.0), Temperature: new(33.0), Power: new(26.2)}})
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	self, exited := os.Getpid(), 1<<30
	m := machine{
		cards: []fakeCard{{bus: "0000:83:00.0", vendor: "0x1002", class: "0x120000"}, {bus: "0000:4d:00.0", vendor: "0x8086", class: "0x038000"}},
		answers: map[string]answer{
			"nvidia-smi -q":                   {out: "Invalid combination of input arguments.", code: 6},
			"nvidia-smi --query-compute-apps": {out: fmt.Sprintf("GPU-b, %d, worker, 12\nGPU-a, %d, exited, [N/A]\n", self, exited)},
			"amd-smi process":                 {out: `[{"gpu":0,"process_list":[{"process_info":"No running processes detected"}]}]`},
			"xpu-smi ps":                      {out: "segmentation fault", code: 139},
		},
	}
	got, err := m.detector(t).Processes(t.Context())
	if err == nil || !strings.Contains(err.Error(), "segmentation fault") {
		t.Errorf("Processes() = %v, want the error of xpu-smi", err)
	}
	user := owner("/proc", self)
	if len(got) != 2 || got[0].User != "" || got[1].User != user {
		t.Fatalf("Processes() = %s, want an unknown user and %q", toJSON(got), user)
	}
	got[1].User = ""
	checkEqual(t, "Processes()", got, []Process{
		{Vendor: NVIDIA, DeviceUUID: "GPU-a", PID: exited, Name: "exited"},
		{Vendor: NVIDIA, DeviceUUID: "GPU-b", PID: self, Name: "worker", Memory: new(uint64(12 * mib))},
	})

	none, err := machine{answers: map[string]answer{"nvidia-smi": {out: "No devices were found", code: 6}}}.detector(t).Processes(t.Context())
	if err != nil || toJSON(none) != "[]" {
		t.Errorf("Processes() without devices = %s, %v, want []", toJSON(none), err)
	}
}

// TestProcessesNvidia checks that all processes are listed by one command, that the compute
// processes are queried if nvidia-smi does not support it, and that a tool that hangs is not
// run again.
func TestProcessesNvidia(t *testing.T) {
	t.Parallel()
	compute := answer{out: "GPU-5d1f2c9e-3b7a-4f0d-9c11-7a0e5c1b2d3f, 7, worker, 12\n"}
	all := answer{out: string(testdata(t, "nvidia_pids_570.txt"))}
	two := answer{out: string(testdata(t, "nvidia_two.csv"))} // at 41:00.0 and c1:00.0
	for _, tt := range []struct {
		name    string
		answers map[string]answer
		want    []int // on the device at 41:00.0
		others  int
		err     string
	}{
		{"all", map[string]answer{"nvidia-smi -q -d PIDS": all, "nvidia-smi --query-gpu": two, "nvidia-smi --query-compute": compute}, []int{1607, 5347, 8080}, 2, ""},
		{"devices unknown", map[string]answer{"nvidia-smi -q -d PIDS": all, "nvidia-smi --query-gpu": {code: 1}}, nil, 5, ""},
		{"unsupported query", map[string]answer{"nvidia-smi -q -d PIDS": {out: "Invalid combination of input arguments.", code: 6}, "nvidia-smi --query-compute": compute}, []int{7}, 0, ""},
		{"no output", map[string]answer{"nvidia-smi -q -d PIDS": {}, "nvidia-smi --query-compute": compute}, []int{7}, 0, ""},
		{"no processes", map[string]answer{"nvidia-smi -q -d PIDS": {out: "Attached GPUs : 1\n"}, "nvidia-smi --query-compute": compute}, nil, 0, ""},
		{"both fail", map[string]answer{"nvidia-smi": {out: "driver down", code: 9}}, nil, 0, "driver down"},
		{"no card", map[string]answer{"nvidia-smi": {out: "No devices were found", code: 6}}, nil, 0, ""},
		{"no tool", nil, nil, 0, ""},
	} {
		got, err := machine{answers: tt.answers}.detector(t).Processes(t.Context())
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: Processes() = %v, want error %q", tt.name, err, tt.err)
		}
		var pids []int
		for _, p := range got {
			if p.DeviceUUID == "GPU-5d1f2c9e-3b7a-4f0d-9c11-7a0e5c1b2d3f" {
				pids = append(pids, p.PID)
			}
		}
		if !slices.Equal(pids, tt.want) || len(got)-len(pids) != tt.others {
			t.Errorf("%s: Processes() = %s, want PIDs %v and %d others", tt.name, toJSON(got), tt.want, tt.others)
		}
	}
	var commands []string
	d := machine{}.detector(t)
	d.Run = func(_ context.Context, name string, args ...string) (Result, error) {
		if name != nvidiaSMI {
			return Result{}, exec.ErrNotFound
		}
		commands = append(commands, args[0]) // called by one goroutine
		return Result{}, &HangError{Tool: name}
	}
	if _, err := d.Processes(t.Context()); err == nil || len(commands) != 1 {
		t.Errorf("Processes() with a tool that hangs = %v after commands %q, want an error after one", err, commands)
	}
}

// TestDetectCUDA checks that Detect returns the CUDA version and that Devices does not run
// nvidia-smi for it.
func TestDetectCUDA(t *testing.T) {
	t.Parallel()
	answers := machine{answers: map[string]answer{
		"nvidia-smi": {out: string(testdata(t, "nvidia_table_570.txt"))}, "nvidia-smi --query-gpu": {out: string(testdata(t, "nvidia_two.csv"))}}}
	d := answers.detector(t)
	report, err := d.Detect(t.Context())
	if err != nil || report.CUDA != "12.8" || len(report.Devices) != 2 {
		t.Errorf("Detect() = %s, %v, want 2 devices and CUDA 12.8", toJSON(report), err)
	}
	d.Run = func(ctx context.Context, name string, args ...string) (Result, error) {
		if name == nvidiaSMI && len(args) == 0 {
			t.Error("Devices() runs nvidia-smi for the CUDA version, want only the device query")
		}
		return answers.run(ctx, name, args...)
	}
	devices, err := d.Devices(t.Context())
	if err != nil || toJSON(devices) != toJSON(report.Devices) {
		t.Errorf("Devices() = %s, %v, want %s", toJSON(devices), err, toJSON(report.Devices))
	}
}

// TestProcessesROCm checks that rocm-smi is used if amd-smi is missing or fails, and that only
// unexpected output of it is an error.
func TestProcessesROCm(t *testing.T) {
	t.Parallel()
	pids := answer{out: string(testdata(t, "rocm_pids.json"))}
	for _, tt := range []struct {
		name    string
		answers map[string]answer
		want    int
		err     string
	}{
		{"no tool", nil, 0, ""},
		{"rocm-smi", map[string]answer{"rocm-smi": pids}, 2, ""},
		{"no process", map[string]answer{"rocm-smi": {out: "WARNING: No JSON data to report\n"}}, 0, ""},
		{"amd-smi fails", map[string]answer{"amd-smi": {out: "no libamd_smi", code: 1}, "rocm-smi": pids}, 2, ""},
		{"both fail", map[string]answer{"amd-smi": {out: "no libamd_smi", code: 1}, "rocm-smi": {code: 1, out: "lost"}}, 0, "no libamd_smi"},
		{"rocm-smi fails", map[string]answer{"rocm-smi": {code: 1, out: "lost"}}, 0, "lost"},
		{"unexpected output of rocm-smi", map[string]answer{"rocm-smi": {out: "hello"}}, 0, "hello"},
	} {
		m := machine{cards: []fakeCard{{bus: "0000:83:00.0", vendor: "0x1002", class: "0x120000"}}, answers: tt.answers}
		got, err := m.detector(t).Processes(t.Context())
		if len(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: Processes() = %s, %v, want %d processes and error %q", tt.name, toJSON(got), err, tt.want, tt.err)
		}
	}
}

func TestDetectCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&Detector{}).Detect(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Detect(canceled) = %v, want context.Canceled", err)
	}
	if _, err := (&Detector{}).Devices(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Devices(canceled) = %v, want context.Canceled", err)
	}
	if _, err := (&Detector{}).Processes(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Processes(canceled) = %v, want context.Canceled", err)
	}
}

// TestJSON checks the keys, which other programs use, and that unknown values are omitted.
func TestJSON(t *testing.T) {
	t.Parallel()
	checkEqual(t, "JSON of a Report", toJSON(Report{Devices: []Device{{Index: -1, Vendor: NVIDIA, Error: "x"}}}),
		`{"devices":[{"index":-1,"vendor":"nvidia","error":"x"}]}`)
	report, err := machine{}.detector(t).Detect(t.Context())
	if err != nil || toJSON(report) != `{"devices":[]}` {
		t.Errorf("Detect() = %s, %v, want an empty list of devices", toJSON(report), err)
	}
	full := Device{UUID: "u", Name: "n", PCIBusID: "p", MemoryTotal: 1, MemoryUsed: new(uint64(0)), MemoryFree: new(uint64(1)), MemoryReserved: 2, Unified: true,
		Vendor: Apple, Driver: "d", ComputeCapability: "c", Architecture: "a", MIG: new(false), Utilization: new(0.0), Temperature: new(1.5), Power: new(2.0)}
	checkEqual(t, "JSON of a Device", toJSON(full), `{"index":0,"vendor":"apple","uuid":"u","name":"n","pci_bus_id":"p","memory_total":1,"memory_used":0,"memory_free":1,"memory_reserved":2,`+
		`"unified":true,"driver":"d","compute_capability":"c","architecture":"a","mig":false,"utilization":0,"temperature":1.5,"power":2}`)
}
