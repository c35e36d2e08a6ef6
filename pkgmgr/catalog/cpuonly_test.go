package catalog

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

func TestCPUFallbackReason(t *testing.T) {
	t.Parallel()
	recipe, err := ParseRecipe("x.yaml", []byte(`type: x
versions: { package: x }
sources:
  - { name: cuda-13, version: ">=2", os: linux, gpu: nvidia, driver: "580", file: x.zip, entry: x }
  - { name: cuda-12, os: linux, gpu: nvidia, driver: "580", file: x.zip, entry: x }
  - { name: rocm, os: linux, arch: amd64, gpu: amd, driver: "7", file: x.zip, entry: x }
  - { name: cpu, os: linux, file: x.zip, entry: x }
  - { name: metal, os: darwin, file: x.zip, entry: x }
`))
	if err != nil {
		t.Fatal(err)
	}
	linux := wire.Platform{OS: "linux", Arch: "amd64"}
	nvidia := func(driver, deviceError string) gpu.Device {
		return gpu.Device{Vendor: "nvidia", Name: "RTX 4090", Driver: driver, Error: deviceError}
	}
	for name, tt := range map[string]struct {
		platform wire.Platform
		devices  []gpu.Device
		want     string
	}{
		"old driver":      {linux, []gpu.Device{nvidia("535.54", "")}, "driver 535.54 is older than 580"},
		"broken driver":   {linux, []gpu.Device{nvidia("", "no devices")}, "the driver of the NVIDIA GPU fails: no devices"},
		"usable":          {linux, []gpu.Device{nvidia("580.1", "")}, ""},
		"no GPU":          {linux, nil, ""},
		"other vendor":    {linux, []gpu.Device{{Vendor: "intel"}}, "it has no build for Intel GPUs"},
		"other arch":      {wire.Platform{OS: "linux", Arch: "arm64"}, []gpu.Device{{Vendor: "amd", Driver: "6"}}, "it has no build for AMD GPUs"},
		"several reasons": {linux, []gpu.Device{nvidia("535.54", ""), {Vendor: "amd", Driver: "6.1"}}, "cuda-13: driver 535.54 is older than 580; cuda-12: driver 535.54 is older than 580; rocm: driver 6.1 is older than 7"},
		"no GPU build":    {wire.Platform{OS: "darwin", Arch: "arm64"}, []gpu.Device{{Vendor: "apple"}}, ""},
	} {
		m := Machine{Platform: tt.platform, Devices: tt.devices, DevicesKnown: true}
		choice, err := recipe.Choose("2", m, "")
		if err != nil {
			t.Errorf("%s: Choose() = %v, want a source", name, err)
			continue
		}
		if got := recipe.CPUFallbackReason(choice, m, ""); got != tt.want {
			t.Errorf("%s: CPUFallbackReason() = %q, want %q", name, got, tt.want)
		}
		m.DevicesKnown = false
		if got := recipe.CPUFallbackReason(choice, m, ""); got != "" {
			t.Errorf("%s: CPUFallbackReason() without known devices = %q, want none", name, got)
		}
	}
	if got := CPUWarning("x", "driver 535.54 is older than 580"); !strings.HasPrefix(got, "x runs on the CPU: driver") || CPUWarning("x", "") != "" {
		t.Errorf("CPUWarning() = %q with a reason and %q without one, want a warning and none", got, CPUWarning("x", ""))
	}
}
