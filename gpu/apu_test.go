package gpu

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestAPUMemory checks that the memory of an APU is the sum of its carve-out and the GTT, for
// each tool that reports the device, and that a card has only its dedicated memory although
// it has a GTT, too.
func TestAPUMemory(t *testing.T) {
	t.Parallel()
	const bus = "0000:c5:00.0"
	amdSMI := map[string]answer{
		"amd-smi static": {out: `[{"gpu": 0, "asic": {"market_name": "Radeon 8060S"}, "bus": {"bdf": "` + bus + `"}, "vram": {"size": {"value": 512, "unit": "MB"}}}]`},
		"amd-smi metric": {out: `[{"gpu": 0, "mem_usage": {"total_vram": {"value": 512, "unit": "MB"}, "used_vram": {"value": 100, "unit": "MB"}}}]`},
	}
	rocmSMI := map[string]answer{
		"rocm-smi": {out: `{"card0": {"Card Series": "Radeon 8060S", "PCI Bus": "` + bus + `", "VRAM Total Memory (B)": "536870912", "VRAM Total Used Memory (B)": "104857600"}}`},
	}
	gib := func(n float64) *uint64 { return new(uint64(n * (1 << 30))) }
	for _, tt := range []struct {
		name      string
		answers   map[string]answer
		device    string   // PCI ID
		files     []uint64 // VRAM total and used, GTT total and used, in MiB
		available int      // main memory, in MiB; 0 means unknown
		unified   bool
		total     float64 // GiB
		used      *uint64
		free      *uint64
	}{
		{"small carve-out", nil, "0x1586", []uint64{512, 256, 122880, 1024}, 0, true, 120.5, gib(1.25), gib(119.25)},
		{"small carve-out, amd-smi", amdSMI, "0x1586", []uint64{512, 256, 122880, 1024}, 0, true, 120.5, gib(1.25), gib(119.25)},
		{"small carve-out, rocm-smi", rocmSMI, "0x1586", []uint64{512, 256, 122880, 1024}, 0, true, 120.5, gib(1.25), gib(119.25)},
		{"main memory in use", nil, "0x1586", []uint64{512, 256, 122880, 1024}, 20480, true, 120.5, gib(1.25), gib(20.25)},
		{"large carve-out", nil, "0x1586", []uint64{98304, 1024, 15872, 512}, 8192, true, 111.5, gib(1.5), gib(103)},
		{"older APU", nil, "0x15dd", []uint64{2048, 512, 7168, 0}, 0, true, 9, gib(0.5), gib(8.5)},
		{"used memory not reported", nil, "0x1586", []uint64{512, 256, 122880}, 0, true, 120.5, nil, nil},
		{"unknown ID, little dedicated memory", nil, "0x2001", []uint64{512, 256, 61440, 0}, 0, true, 60.5, gib(0.25), gib(60.25)},
		{"unknown ID, much dedicated memory", nil, "0x2001", []uint64{16384, 1024, 65536, 512}, 0, false, 16, gib(1), gib(15)},
		{"card", nil, "0x744c", []uint64{16384, 1024, 65536, 512}, 0, false, 16, gib(1), gib(15)},
		{"card with little memory", nil, "0x67ff", []uint64{2048, 512, 65536, 512}, 0, false, 2, gib(0.5), gib(1.5)},
		{"no GTT files", nil, "0x1586", []uint64{512, 256}, 0, false, 0.5, gib(0.25), gib(0.25)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{"device": tt.device + "\n"}
			for i, name := range []string{"mem_info_vram_total", "mem_info_vram_used", "mem_info_gtt_total", "mem_info_gtt_used"} {
				if i < len(tt.files) {
					files[name] = fmt.Sprintln(tt.files[i] << 20)
				}
			}
			d := machine{answers: tt.answers, cards: []fakeCard{
				{bus: bus, vendor: "0x1002", class: "0x038000", driver: "amdgpu", files: files},
			}}.detector(t)
			d.Proc = t.TempDir()
			if tt.available > 0 {
				text := fmt.Sprintf("MemTotal:       131072000 kB\nMemAvailable:   %d kB\nBuffers: 1 kB\n", tt.available<<10)
				if err := os.WriteFile(filepath.Join(d.Proc, "meminfo"), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			devices, err := d.Devices(t.Context())
			if err != nil || len(devices) != 1 {
				t.Fatalf("Devices() = %s, %v, want one device", toJSON(devices), err)
			}
			got := devices[0]
			want := got
			want.Unified, want.MemoryTotal, want.MemoryUsed, want.MemoryFree = tt.unified, *gib(tt.total), tt.used, tt.free
			checkEqual(t, "Devices()[0]", got, want)
		})
	}
}
