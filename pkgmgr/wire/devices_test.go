package wire

import "testing"

func TestDeviceNeedsUnmet(t *testing.T) {
	t.Parallel()
	card := func(driver, compute string) Device {
		return Device{Vendor: "nvidia", Name: "card", Driver: driver, Compute: compute}
	}
	cuda12 := DeviceNeeds{Vendor: "nvidia", Driver: "525", Compute: "5.0", ComputeMax: "12.1", Native: []string{"8.6", "8.9", "12.0"}, PTXDriver: "570"}
	for _, tt := range []struct {
		needs  DeviceNeeds
		device Device
		want   string
	}{
		{DeviceNeeds{Vendor: "any"}, Device{Vendor: "intel"}, ""},
		{DeviceNeeds{}, Device{Vendor: "intel"}, ""},
		{DeviceNeeds{Vendor: NoGPU}, Device{Vendor: "intel"}, "the build uses no accelerator"},
		{DeviceNeeds{Vendor: "nvidia"}, Device{Vendor: "amd"}, "the build is for nvidia"},
		{DeviceNeeds{Vendor: "nvidia"}, Device{Vendor: "nvidia", Error: "GPU is lost"}, "GPU is lost"},
		{DeviceNeeds{Vendor: "nvidia", Driver: "580"}, card("580.65.06", ""), ""},
		{DeviceNeeds{Vendor: "nvidia", Driver: "580.82"}, card("580.65.06", ""), "driver 580.65.06 is older than 580.82"},
		{DeviceNeeds{Vendor: "nvidia", Driver: "580"}, card("", "9.0"), "the driver's version is not known"},
		{DeviceNeeds{Vendor: "nvidia", Compute: "7.5"}, card("", "12.0"), ""},
		{DeviceNeeds{Vendor: "nvidia", Compute: "7.5"}, card("", ""), ""},
		{DeviceNeeds{Vendor: "nvidia", Compute: "7.5"}, card("", "6.1"), "compute capability 6.1, 7.5 is needed"},
		{DeviceNeeds{Vendor: "nvidia", ComputeMax: "9.0"}, card("", "10.0"), "compute capability 10.0, 9.0 is the highest that the build supports"},
		{cuda12, card("535.54", "8.9"), ""},
		{cuda12, card("535.54", "8.7"), ""}, // runs the code for 8.6
		{cuda12, card("535.54", ""), ""},    // not known
		{cuda12, card("520", "8.9"), "driver 520 is older than 525"},
		{cuda12, card("535.54", "8.0"), "driver 535.54 is older than 570, which compute capability 8.0 needs"},
		{cuda12, card("570.86", "8.0"), ""},
		{cuda12, card("570.86", "6.1"), ""},
		{cuda12, card("580", "12.1"), ""},
		{cuda12, card("580", "3.7"), "compute capability 3.7, 5.0 is needed"},
	} {
		if got := tt.needs.Unmet(tt.device); got != tt.want {
			t.Errorf("%+v.Unmet(%+v) = %q, want %q", tt.needs, tt.device, got, tt.want)
		}
	}
}
