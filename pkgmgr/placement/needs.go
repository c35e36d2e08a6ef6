package placement

import "slices"

// checkDevices returns the devices with the unfit field set. It checks only devices that
// work and whose vendor the engine supports, because other devices are excluded anyway.
func (r Request) checkDevices(devices []Device) []Device {
	if r.Devices == nil {
		return devices
	}
	devices = slices.Clone(devices)
	for i := range devices {
		d := &devices[i]
		if d.works() && (r.Vendor == "" || r.Vendor == string(d.Vendor)) {
			d.unfit = r.Devices.Unmet(d.Device)
		}
	}
	return devices
}

// unfitDevices returns the devices that work and that the engine cannot run on.
func (r Request) unfitDevices(devices []Device) []Device {
	var unfit []Device
	for _, d := range devices {
		if d.works() && d.unfit != "" {
			unfit = append(unfit, d)
		}
	}
	return unfit
}

// unfitNote returns the part of a reason that lists the devices that the engine cannot
// run on, or "" if it can run on all of them.
func (r Request) unfitNote(devices []Device) string {
	unfit := r.unfitDevices(devices)
	if len(unfit) == 0 {
		return ""
	}
	return "; not used: " + deviceList(unfit, Device.status)
}
