package placement_test

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/placement"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestPlaceChecksBuild checks that a worker gets only devices that the installed build
// runs on, and that the reason lists the other devices.
func TestPlaceChecksBuild(t *testing.T) {
	t.Parallel()
	card := func(index int, name, compute string, free uint64) placement.Device {
		d := withName(device("nvidia", index, free, 24), name)
		d.ComputeCapability, d.Driver = compute, "580.65"
		return withBus(d, "0000:0"+string(rune('1'+index))+":00.0")
	}
	cuda13 := func(r *placement.Request) {
		r.Devices = &wire.DeviceRequirements{Vendor: "nvidia", Compute: "7.5", Driver: "580"}
	}
	noGPU := func(r *placement.Request) { r.Devices = &wire.DeviceRequirements{Vendor: wire.NoGPU} }
	mixed := []placement.Device{card(0, "RTX 4090", "8.9", 20), card(1, "GTX 1080 Ti", "6.1", 24)}
	old := []placement.Device{card(0, "GTX 1080 Ti", "6.1", 24)}
	amd := withBus(device("amd", 0, 60, 64), "0000:09:00.0")
	const unfit = "nvidia 1 (GTX 1080 Ti): compute capability 6.1"
	for _, tt := range []struct {
		name    string
		request placement.Request
		devices []placement.Device
		want    string   // "vendor indices", "cpu" or the error's code
		env     string   // GGML_VK_VISIBLE_DEVICES
		parts   []string // of the reason or the error
	}{
		{"no conditions", requestFor(10), mixed, "nvidia 1", "1", []string{"most memory free of 2 devices"}},
		{"usable card", with(requestFor(10), cuda13), mixed, "nvidia 0", "0", []string{"most memory free of 1 device; not used: " + unfit}},
		{"too large for the usable card", with(requestFor(30), cuda13), mixed, "failed", "", []string{"does not fit", "nvidia 1 (GTX 1080 Ti): not used: compute capability 6.1"}},
		{"unfit card requested", on(with(requestFor(10), cuda13), "1"), mixed, "failed", "", []string{"nvidia 1 (GTX 1080 Ti) cannot be used: compute capability 6.1"}},
		{"no usable card", with(requestFor(10), cuda13), old, "failed", "", []string{"does not support the accelerators of this machine", `device "none"`, "compute capability 6.1"}},
		{"CPU requested", on(with(requestFor(10), cuda13), "none"), old, "cpu", "-1", nil},
		{"another vendor", with(requestFor(10), cuda13), append(mixed, amd), "nvidia 0", "0", nil},
		{"only another vendor", with(requestFor(10), cuda13), []placement.Device{amd}, "cpu", "-1", []string{"no usable nvidia accelerator"}},
		{"CPU build", with(requestFor(10), noGPU), mixed, "cpu", "-1", []string{"uses no accelerator"}},
		{"CPU build, card requested", on(with(requestFor(10), noGPU), "0"), mixed, "failed", "", []string{"nvidia 0 (RTX 4090) cannot be used: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, err := placement.Place(tt.request, tt.devices)
			got, reason := "cpu", d.Reason
			switch {
			case err != nil:
				got, reason = string(operations.CodeOf(err)), err.Error()
			case len(d.Devices) > 0:
				got = d.Devices[0].Vendor + " " + string(rune('0'+d.Devices[0].Index))
			}
			if got != tt.want || d.Env["GGML_VK_VISIBLE_DEVICES"] != tt.env {
				t.Errorf("Place() = %s with %v: %s, want %s with GGML_VK_VISIBLE_DEVICES=%s", got, d.Env, reason, tt.want, tt.env)
			}
			for _, want := range tt.parts {
				if !strings.Contains(reason, want) {
					t.Errorf("Place() returned reason %q, want %q in it", reason, want)
				}
			}
		})
	}
}
