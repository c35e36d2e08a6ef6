package wire

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/gpu"
)

// TestDevicesJSON checks that Devices reads and writes the keys of earlier versions.
func TestDevicesJSON(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, in string
		want     gpu.Device
		out      string
	}{
		{"keys of earlier versions", `[{"vendor":"nvidia","name":"RTX","memory_bytes":7,"driver":"580","compute":"8.9"}]`,
			gpu.Device{Vendor: "nvidia", Name: "RTX", MemoryTotal: 7, Driver: "580", ComputeCapability: "8.9"},
			`[{"index":0,"vendor":"nvidia","name":"RTX","memory_total":7,"driver":"580","compute_capability":"8.9","memory_bytes":7,"compute":"8.9"}]`},
		{"AMD", `[{"index":1,"vendor":"amd","name":"MI300X","memory_total":9,"architecture":"gfx942","later":true}]`,
			gpu.Device{Index: 1, Vendor: "amd", Name: "MI300X", MemoryTotal: 9, Architecture: "gfx942"},
			`[{"index":1,"vendor":"amd","name":"MI300X","memory_total":9,"architecture":"gfx942","memory_bytes":9}]`},
	} {
		var s State
		if err := json.Unmarshal([]byte(`{"devices":`+tt.in+`}`), &s); err != nil || !reflect.DeepEqual(s.Devices, Devices{tt.want}) {
			t.Errorf("%s: Unmarshal() returned error %v, and devices that differ (-want +got):\n%s", tt.name, err, cmp.Diff(Devices{tt.want}, s.Devices))
		}
		if out, err := json.Marshal(s.Devices); err != nil || string(out) != tt.out {
			t.Errorf("%s: Marshal() = %s, %v, want %s", tt.name, out, err, tt.out)
		}
	}
}

func TestUnmet(t *testing.T) {
	t.Parallel()
	card := func(driver, compute string) gpu.Device {
		return gpu.Device{Vendor: "nvidia", Name: "card", Driver: driver, ComputeCapability: compute}
	}
	cuda12 := DeviceRequirements{Vendor: "nvidia", Driver: "525", Compute: "5.0", ComputeMax: "12.1", Native: []string{"8.6", "8.9", "12.0"}, PTXDriver: "570"}
	for _, tt := range []struct {
		name   string
		needs  DeviceRequirements
		device gpu.Device
		want   string
	}{
		{"any vendor", DeviceRequirements{Vendor: "any"}, gpu.Device{Vendor: "intel"}, ""},
		{"no requirement", DeviceRequirements{}, gpu.Device{Vendor: "intel"}, ""},
		{"listed architecture", DeviceRequirements{Vendor: "amd", Architectures: []string{"gfx90a", "gfx942"}}, gpu.Device{Vendor: "amd", Architecture: "gfx942"}, ""},
		{"unknown architecture", DeviceRequirements{Vendor: "amd", Architectures: []string{"gfx90a", "gfx942"}}, gpu.Device{Vendor: "amd"}, ""},
		{"other architecture", DeviceRequirements{Vendor: "amd", Architectures: []string{"gfx90a", "gfx942"}}, gpu.Device{Vendor: "amd", Architecture: "gfx1100"}, "architecture gfx1100, want gfx90a or gfx942"},
		{"no GPU", DeviceRequirements{Vendor: NoGPU}, gpu.Device{Vendor: "intel"}, "the build uses no accelerator"},
		{"other vendor", DeviceRequirements{Vendor: "nvidia"}, gpu.Device{Vendor: "amd"}, "the build is for nvidia"},
		{"broken device", DeviceRequirements{Vendor: "nvidia"}, gpu.Device{Vendor: "nvidia", Error: "GPU is lost"}, "GPU is lost"},
		{"sufficient driver", DeviceRequirements{Vendor: "nvidia", Driver: "580"}, card("580.65.06", ""), ""},
		{"old driver", DeviceRequirements{Vendor: "nvidia", Driver: "580.82"}, card("580.65.06", ""), "driver 580.65.06 is older than 580.82"},
		{"unknown driver", DeviceRequirements{Vendor: "nvidia", Driver: "580"}, card("", "9.0"), "the driver version is unknown"},
		{"no driver requirement", DeviceRequirements{Vendor: "nvidia", Compute: "7.5"}, card("", "12.0"), ""},
		{"unknown compute capability", DeviceRequirements{Vendor: "nvidia", Compute: "7.5"}, card("", ""), ""},
		{"low compute capability", DeviceRequirements{Vendor: "nvidia", Compute: "7.5"}, card("", "6.1"), "compute capability 6.1, want at least 7.5"},
		{"high compute capability", DeviceRequirements{Vendor: "nvidia", ComputeMax: "9.0"}, card("", "10.0"), "compute capability 10.0, want at most 9.0"},
		{"native code", cuda12, card("535.54", "8.9"), ""},
		{"native code of an older minor version", cuda12, card("535.54", "8.7"), ""}, // runs the machine code for 8.6
		{"native code, unknown compute capability", cuda12, card("535.54", ""), ""},
		{"driver below the minimum", cuda12, card("520", "8.9"), "driver 520 is older than 525"},
		{"PTX, old driver", cuda12, card("535.54", "8.0"), "driver 535.54 is older than 570, which compute capability 8.0 requires"},
		{"PTX, sufficient driver", cuda12, card("570.86", "8.0"), ""},
		{"PTX, older card", cuda12, card("570.86", "6.1"), ""},
		{"PTX, maximum", cuda12, card("580", "12.1"), ""},
		{"PTX, below the minimum", cuda12, card("580", "3.7"), "compute capability 3.7, want at least 5.0"},
	} {
		if got := tt.needs.Unmet(tt.device); got != tt.want {
			t.Errorf("%s: %+v.Unmet(%+v) = %q, want %q", tt.name, tt.needs, tt.device, got, tt.want)
		}
	}
}
