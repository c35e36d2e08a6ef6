package placement

import "slices"

// checked returns the devices with the reason why the engine cannot run on each,
// where there is one. Devices that do not work at all, or that are of a vendor that
// the engine does not work with, get none: what is wrong with them is known otherwise.
func (l Load) checked(devices []Device) []Device {
	if l.Devices == nil {
		return devices
	}
	devices = slices.Clone(devices)
	for i := range devices {
		d := &devices[i]
		if d.works() && (l.Vendor == "" || l.Vendor == string(d.Vendor)) {
			d.unfit = l.Devices.Unmet(d.Device)
		}
	}
	return devices
}

// unfitDevices are the devices that work and that the engine cannot run on.
func (l Load) unfitDevices(devices []Device) []Device {
	var unfit []Device
	for _, d := range devices {
		if d.works() && d.unfit != "" {
			unfit = append(unfit, d)
		}
	}
	return unfit
}

// unfit names the devices that the engine cannot run on, for the reason of a
// decision; empty if there is none.
func (l Load) unfit(devices []Device) string {
	unfit := l.unfitDevices(devices)
	if len(unfit) == 0 {
		return ""
	}
	return "; not used: " + listed(unfit, Device.health)
}
