package gpu

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const mib = 1 << 20

// checkEqual reports an error if got, the value of an expression, differs from want.
func checkEqual(t *testing.T, expression string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s =\n%s\nwant\n%s", expression, toJSON(got), toJSON(want))
	}
}

func TestParseNvidia(t *testing.T) {
	t.Parallel()
	devices, messages := parseNvidia(nvidiaFields(), testdata(t, "nvidia_two.csv"))
	checkEqual(t, "parseNvidia() messages", messages, "")
	checkEqual(t, "parseNvidia()", devices, []Device{
		{Index: 0, Vendor: NVIDIA, UUID: "GPU-5d1f2c9e-3b7a-4f0d-9c11-7a0e5c1b2d3f", Name: "NVIDIA H100 80GB HBM3",
			PCIBusID: "0000:41:00.0", MemoryTotal: 81559 * mib, MemoryUsed: new(uint64(1204 * mib)), MemoryFree: new(uint64(79874 * mib)),
			Driver: "570.86.15", ComputeCapability: "9.0", MIG: new(false), Utilization: new(37.0), Temperature: new(41.0), Power: new(182.53)},
		{Index: 1, Vendor: NVIDIA, UUID: "GPU-0a9b8c7d-6e5f-4a3b-8c1d-2e3f4a5b6c7d", Name: "NVIDIA GeForce RTX 4090",
			PCIBusID: "0000:c1:00.0", MemoryTotal: 24564 * mib, MemoryUsed: new(uint64(2 * mib)), MemoryFree: new(uint64(24101 * mib)),
			Driver: "570.86.15", ComputeCapability: "8.9", Utilization: new(0.0)},
	})

	devices, _ = parseNvidia(nvidiaFields(), testdata(t, "nvidia_gb10.csv"))
	checkEqual(t, "parseNvidia()", devices, []Device{{Vendor: NVIDIA, UUID: "GPU-11111111-2222-3333-4444-555555555555", Name: "NVIDIA GB10",
		PCIBusID: "000f:01:00.0", Unified: true, Driver: "580.95.05", ComputeCapability: "12.1", Utilization: new(0.0), Temperature: new(38.0), Power: new(4.41)}})

	devices, messages = parseNvidia(nvidiaFields(), testdata(t, "nvidia_lost.csv"))
	checkEqual(t, "parseNvidia() messages", messages, "Unable to determine the device handle for GPU1: 0000:34:00.0: Unknown Error")
	checkEqual(t, "busIDIn()", busIDIn(messages), "0000:34:00.0")
	checkEqual(t, "number of devices of parseNvidia()", len(devices), 2)
	checkEqual(t, "parseNvidia() devices[0].Error", devices[0].Error, "")
	checkEqual(t, "parseNvidia() devices[1].Error", devices[1].Error, `nvidia-smi reports "GPU is lost" for memory.total`)
}

// TestParseNvidiaMIG checks devices in MIG mode with and without readable memory sizes.
func TestParseNvidiaMIG(t *testing.T) {
	t.Parallel()
	devices, messages := parseNvidia(nvidiaFields(), testdata(t, "nvidia_mig.csv"))
	checkEqual(t, "parseNvidia() messages", messages, "")
	checkEqual(t, "number of devices of parseNvidia()", len(devices), 3)
	checkEqual(t, "MIG of parseNvidia() devices", []*bool{devices[0].MIG, devices[1].MIG, devices[2].MIG}, []*bool{new(true), new(true), new(false)})
	checkEqual(t, "parseNvidia() devices[0].MemoryFree", devices[0].MemoryFree, new(uint64(40326*mib)))
	checkEqual(t, "memory and error of parseNvidia() devices[1]", []any{devices[1].MemoryTotal, devices[1].MemoryFree, devices[1].Unified, devices[1].Error}, []any{uint64(0), (*uint64)(nil), false, ""})
	checkEqual(t, "parseNvidia() devices[2].Error", devices[2].Error, `nvidia-smi reports "GPU requires reset" for utilization.gpu`)
}

func TestParseNvidiaProcesses(t *testing.T) {
	t.Parallel()
	checkEqual(t, "parseNvidiaProcesses()", parseNvidiaProcesses(testdata(t, "nvidia_processes.csv")), []Process{
		{Vendor: NVIDIA, DeviceUUID: "GPU-5d1f2c9e-3b7a-4f0d-9c11-7a0e5c1b2d3f", PID: 4242, Name: "/opt/vllm, nightly/bin/python3", Memory: new(uint64(71234 * mib))},
		{Vendor: NVIDIA, DeviceUUID: "GPU-0a9b8c7d-6e5f-4a3b-8c1d-2e3f4a5b6c7d", PID: 77},
	})
	checkEqual(t, "parseNvidiaProcesses()", parseNvidiaProcesses([]byte("No devices were found\n")), []Process(nil))
}

// TestParseNvidiaPIDs checks that compute and graphics processes are listed once for each
// device and MIG instance.
func TestParseNvidiaPIDs(t *testing.T) {
	t.Parallel()
	mem := func(n uint64) *uint64 { n *= mib; return &n }
	devices := []Device{{UUID: "GPU-a", PCIBusID: "0000:41:00.0"}, {UUID: "GPU-c", PCIBusID: "0000:c2:00.0"}}
	for _, tt := range []struct {
		name string
		out  []byte
		want []Process
		ok   bool
	}{
		{"workstation", testdata(t, "nvidia_pids_570.txt"), []Process{
			{Vendor: NVIDIA, DeviceUUID: "GPU-a", PID: 1607, Name: "/usr/lib/xorg/Xorg", Memory: mem(245)},
			{Vendor: NVIDIA, DeviceUUID: "GPU-a", PID: 5347, Name: "/opt/games: new/portal --fps 60", Memory: mem(5012)},
			{Vendor: NVIDIA, DeviceUUID: "GPU-a", PID: 8080, Name: "python3", Memory: mem(8720)},
			{Vendor: NVIDIA, DeviceUUID: "GPU-c", PID: 77},
			{Vendor: NVIDIA, DeviceUUID: "GPU-c", PID: 77, Name: "tritonserver", Memory: mem(100)},
		}, true},
		{"older driver", testdata(t, "nvidia_pids_440.txt"), []Process{
			{Vendor: NVIDIA, PID: 815, Name: "/usr/lib/xorg/Xorg", Memory: mem(132)},
			{Vendor: NVIDIA, PID: 994, Name: "xfwm4", Memory: mem(2)},
		}, true},
		{"no processes", []byte("Attached GPUs : 1\nGPU 00000000:07:00.0\n    Processes : None\n"), nil, true},
		{"Windows", []byte("GPU 00000000:41:00.0\n  Process ID : 9\n  Name : dwm.exe\n  Used GPU Memory : Not available in WDDM driver model\n"),
			[]Process{{Vendor: NVIDIA, DeviceUUID: "GPU-a", PID: 9, Name: "dwm.exe"}}, true},
		{"invalid PID", []byte("GPU 00000000:41:00.0\n  Process ID : -\n  Name : x\n  Process ID : -4\n  Used GPU Memory : 1 MiB\n"), nil, true},
		{"no device", []byte("Process ID : 9\nName : x\n"), nil, false},
		{"error message", []byte("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n"), nil, false},
		{"no output", nil, nil, false},
	} {
		entries, ok := parseNvidiaPIDs(tt.out)
		if got := mergeNvidiaProcesses(entries, devices); ok != tt.ok || toJSON(got) != toJSON(tt.want) {
			t.Errorf("%s: parseNvidiaPIDs() = %t with processes\n%s\nwant %t with\n%s", tt.name, ok, toJSON(got), tt.ok, toJSON(tt.want))
		}
	}
}

func TestParseCUDA(t *testing.T) {
	t.Parallel()
	checkEqual(t, "parseCUDA()", parseCUDA(testdata(t, "nvidia_table_570.txt")), "12.8")
	checkEqual(t, "parseCUDA()", parseCUDA(testdata(t, "nvidia_table_610.txt")), "13.3")
	checkEqual(t, "parseCUDA()", parseCUDA([]byte("CUDA Version: N/A")), "")
}

func amdEntries(t *testing.T, file string) []amdEntry {
	t.Helper()
	entries, err := parseAMD(testdata(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestParseAMD(t *testing.T) {
	t.Parallel()
	devices := joinAMD(amdEntries(t, "amd_static_object.json"), amdEntries(t, "amd_list.json"), amdEntries(t, "amd_metric.json"))
	checkEqual(t, "joinAMD()", devices, []Device{{Vendor: AMD, UUID: "76ff740f-0000-1000-80a0-8c022586fed6", Name: "AMD Instinct MI210",
		PCIBusID: "0000:83:00.0", Driver: "6.14.14", Architecture: "gfx90a",
		MemoryTotal: 65520 * mib, MemoryUsed: new(uint64(4096 * mib)), MemoryFree: new(uint64(61424 * mib)),
		Utilization: new(47.0), Temperature: new(36.0), Power: new(139.0)}})

	devices = joinAMD(amdEntries(t, "amd_static_array.json"), nil, nil)
	sortDevices(devices)
	checkEqual(t, "joinAMD()", devices, []Device{
		{Index: 0, Vendor: AMD, MemoryTotal: 16368 * mib},
		{Index: 1, Vendor: AMD, Name: "Radeon RX 7900 XTX", PCIBusID: "0000:03:00.0", Driver: "6.10.5", Architecture: "gfx1100", MemoryTotal: 24560 * mib},
	})

	devices = joinAMD(amdEntries(t, "amd_static_array.json"), nil, amdEntries(t, "amd_metric_array.json"))
	sortDevices(devices)
	checkEqual(t, "joinAMD() devices[0]", devices[0], Device{Index: 0, Vendor: AMD, MemoryTotal: 16368 * mib, MemoryUsed: new(uint64(2531 * mib)), MemoryFree: new(uint64(13837 * mib)),
		Utilization: new(42.0), Temperature: new(52.0), Power: new(542.0)})

	checkEqual(t, "joinAMDProcesses()", joinAMDProcesses(amdEntries(t, "amd_process_object.json"), nil), []Process{{Vendor: AMD, PID: 2266127, Memory: new(uint64(2353860608))}})
	checkEqual(t, "joinAMDProcesses()", joinAMDProcesses(amdEntries(t, "amd_process.json"), amdEntries(t, "amd_list.json")), []Process{
		{Vendor: AMD, DeviceUUID: "76ff740f-0000-1000-80a0-8c022586fed6", PID: 41, Name: "python3", Memory: new(uint64(2 << 30))},
		{Vendor: AMD, DeviceUUID: "76ff740f-0000-1000-80a0-8c022586fed6", PID: 7, Name: "llama-server", Memory: new(uint64(7351832576))},
	})
}

func TestParseROCm(t *testing.T) {
	t.Parallel()
	devices, err := parseROCm(testdata(t, "rocm_mi250.json"))
	if err != nil {
		t.Fatal(err)
	}
	const name = "AMD INSTINCT MI250 (MCM) OAM AC MBA"
	checkEqual(t, "parseROCm()", devices, []Device{
		{Index: 0, Vendor: AMD, Name: name, PCIBusID: "0000:c1:00.0", Driver: "6.2.4", Architecture: "gfx90a",
			MemoryTotal: 68702699520, MemoryUsed: new(uint64(10960896)), MemoryFree: new(uint64(68691738624)),
			Utilization: new(0.0), Temperature: new(44.0), Power: new(92.0)},
		{Index: 1, Vendor: AMD, UUID: "0x9246aabbccddeeff", Name: name, PCIBusID: "0000:c4:00.0", Driver: "6.2.4", Architecture: "gfx90a",
			MemoryTotal: 68702699520, MemoryUsed: new(uint64(51527024640)), MemoryFree: new(uint64(17175674880)), Utilization: new(50.0)},
	})
	if _, err := parseROCm([]byte("ERROR: no GPUs")); err == nil {
		t.Error("parseROCm() without JSON = nil, want an error")
	}
}

func TestParseROCmProcesses(t *testing.T) {
	t.Parallel()
	processes, err := parseROCmProcesses(testdata(t, "rocm_pids.json"))
	if err != nil {
		t.Fatal(err)
	}
	checkEqual(t, "parseROCmProcesses()", processes, []Process{
		{Vendor: AMD, PID: 41, Name: "python, worker"},
		{Vendor: AMD, DeviceUUID: "0x9246aabbccddeeff", PID: 28389, Name: "llama-server", Memory: new(uint64(2353860608))},
	})
	processes, err = parseROCmProcesses([]byte(`{"card0":{"Unique ID":"a"},"card1":{"Unique ID":"b"},"system":{"PID7":"x, 1, 5, 0, 0","PIDx":"x, 1, 5, 0, 0","PID8":"short"}}`))
	if err != nil {
		t.Fatal(err)
	}
	checkEqual(t, "parseROCmProcesses()", processes, []Process{{Vendor: AMD, PID: 7, Name: "x", Memory: new(uint64(5))}})
}

func TestParseXPUStats(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		file  string
		total uint64
		want  *uint64
	}{
		{"xpu_stats.json", 14248 * mib, new(uint64(240320512))},                 // MiB
		{"xpu_stats.json", 0, new(uint64(240320512))},                           // unknown total: MiB
		{"xpu_stats_tiles.json", 64 << 30, new(uint64(8501719040 + 134410240))}, // bytes
		{"xpu_stats_tiles.json", 1 << 30, nil},                                  // larger than the total in both units
		{"xpu_list.json", 1 << 30, nil},
		{"nvidia_two.csv", 1 << 30, nil},
	} {
		if got := parseXPUStats(testdata(t, tt.file)).memoryUsed(tt.total); toJSON(got) != toJSON(tt.want) {
			t.Errorf("memoryUsed(%d) of %s = %s, want %s", tt.total, tt.file, toJSON(got), toJSON(tt.want))
		}
	}
}

func TestParseKFDNode(t *testing.T) {
	t.Parallel()
	for properties, want := range map[string]kfdNode{
		"cpu_cores_count 0\nsimd_count 440\nvendor_id 4098\ndevice_id 29772\nlocation_id 33536\ndomain 0\n": {bus: "0000:83:00.0"},
		"simd_count 440\nvendor_id 4098\nlocation_id 4874\ndomain 65536":                                    {bus: "10000:13:01.2"},
		"simd_count 440\nvendor_id 4098\nlocation_id 33536\ngfx_target_version 90010\n":                     {"0000:83:00.0", "gfx90a"},
		"simd_count 912\nvendor_id 4098\nlocation_id 33536\ngfx_target_version 90402\n":                     {"0000:83:00.0", "gfx942"},
		"simd_count 80\nvendor_id 4098\nlocation_id 33536\ngfx_target_version 110501\n":                     {"0000:83:00.0", "gfx1151"},
		"cpu_cores_count 32\nsimd_count 0\nvendor_id 0\nlocation_id 0":                                      {},
		"simd_count 132\nvendor_id 4318\nlocation_id 4864":                                                  {},
		"simd_count many": {},
		"":                {},
	} {
		if got := parseKFDNode(properties); got != want {
			t.Errorf("parseKFDNode(%q) = %+v, want %+v", properties, got, want)
		}
	}
}

func TestParseXPU(t *testing.T) {
	t.Parallel()
	list, err := parseXPU(testdata(t, "xpu_list.json"))
	if err != nil || len(list) != 1 || list[0].BDF != "0000:4d:00.0" {
		t.Errorf("parseXPU(list) = %+v, %v, want one device at 0000:4d:00.0", list, err)
	}
	detail, err := parseXPU(testdata(t, "xpu_detail.json"))
	if err != nil || len(detail) != 1 || detail[0].Memory != "14942253056" {
		t.Errorf("parseXPU(detail) = %+v, %v, want one device with its memory", detail, err)
	}
	if _, err := parseXPU([]byte(`{"error": "Level Zero Initialization Error"}`)); err == nil || err.Error() != "Level Zero Initialization Error" {
		t.Errorf("parseXPU(error) = %v, want the message of the tool", err)
	}
	processes, err := parseXPUProcesses(testdata(t, "xpu_ps.json"), list)
	if err != nil {
		t.Fatal(err)
	}
	checkEqual(t, "parseXPUProcesses()", processes, []Process{{Vendor: Intel, DeviceUUID: "00000000-0000-0000-6769-df256e271362", PID: 768707, Name: "python", Memory: new(uint64(5726404000))}})
}

func TestParseApple(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]Device{
		"apple_m1.json": {Vendor: Apple, Name: "Apple M1", Architecture: "apple7", Unified: true},
		"apple_m4.json": {Vendor: Apple, Name: "Apple M4", Architecture: "metal4", Unified: true},
	} {
		devices, err := parseApple(testdata(t, file))
		if err != nil {
			t.Fatal(err)
		}
		checkEqual(t, "parseApple()", devices, []Device{want})
	}
}

func TestJSONPart(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]string{
		`{"a": 1}`:                               `{"a": 1}`,
		"WARNING: low power\n\n  [{\"a\": 1}]\n": "[{\"a\": 1}]\n",
		"{\"a\":\n{\"b\": 1}}\nWARNING: one device is lost\n": "{\"a\":\n{\"b\": 1}}",
		"[WARNING] old\n{\"a\": 1}\nbye":                      `{"a": 1}`,
		"no JSON":                                             "",
	} {
		got, err := jsonPart([]byte(out))
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("jsonPart(%q) = %q, %v, want %q", out, got, err, want)
		}
	}
}

func TestBusID(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"00000000:C1:00.0": "0000:c1:00.0", "0000000F:01:00.0": "000f:01:00.0", "00010000:01:00.0": "10000:01:00.0",
		"41:00.0": "0000:41:00.0", "": "", "N/A": "", "0000:41:00": "", "0000:411:00.0": "", "a:b:c:d.e": "", "0000:41:00.0.0": "",
	} {
		if got := busID(in); got != want {
			t.Errorf("busID(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzParse checks that the parsers do not panic and return only plausible values.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) < 15 {
		f.Fatalf("Glob(testdata) = %v, %v, want at least 15 files", files, err)
	}
	for _, name := range files {
		f.Add(testdata(f, filepath.Base(name)))
	}
	f.Add([]byte("0, [, -1, 9e999"))
	f.Add([]byte(`{"gpu_data":[{"gpu":-1,"vram":{"size":{"value":1e300,"unit":"GB"}}}]}`))
	f.Fuzz(func(t *testing.T, out []byte) {
		devices, _ := parseNvidia(nvidiaFields(), out)
		rocm, _ := parseROCm(out)
		apple, _ := parseApple(out)
		amd, _ := parseAMD(out)
		xpu, _ := parseXPU(out)
		devices = append(append(append(devices, rocm...), apple...), joinAMD(amd, amd, amd)...)
		for _, d := range devices {
			if d.Vendor == "" || d.PCIBusID != busID(d.PCIBusID) || d.MemoryTotal > 1<<62 {
				t.Errorf("the parsers returned device %s, want a vendor, a normalized PCI address and at most 2^62 bytes", toJSON(d))
			}
		}
		sortDevices(devices)
		processes := append(parseNvidiaProcesses(out), joinAMDProcesses(amd, amd)...)
		entries, _ := parseNvidiaPIDs(out)
		processes = append(processes, mergeNvidiaProcesses(entries, devices)...)
		intel, _ := parseXPUProcesses(out, xpu)
		older, _ := parseROCmProcesses(out)
		for _, p := range append(append(processes, intel...), older...) {
			if p.PID <= 0 || p.Vendor == "" {
				t.Errorf("the parsers returned process %s, want a PID and a vendor", toJSON(p))
			}
		}
		parseCUDA(out)
		if used := parseXPUStats(out).memoryUsed(1 << 40); used != nil && *used > 1<<40 {
			t.Errorf("memoryUsed(1 TiB) = %d bytes, want at most the total", *used)
		}
		if bus := parseKFDNode(string(out)).bus; bus != busID(bus) {
			t.Errorf("parseKFDNode() has PCI address %q, want the normalized %q", bus, busID(bus))
		}
	})
}
