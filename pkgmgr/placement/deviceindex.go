package placement

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// byIndex takes the devices that were asked for by index, or says why not.
func (l Load) byIndex(devices []Device) (Decision, error) {
	wanted, err := operations.ParseDevices(l.Device)
	if err != nil {
		return Decision{}, err
	}
	vendor, err := l.vendorOf(devices)
	if err != nil {
		return Decision{}, err
	}
	chosen := make([]Device, 0, len(wanted))
	for _, index := range wanted {
		i := slices.IndexFunc(devices, func(d Device) bool { return string(d.Vendor) == vendor && d.Index == index })
		if i < 0 {
			return Decision{}, l.unknown(index, vendor, devices)
		}
		if d := devices[i]; !d.usable() {
			return Decision{}, failed(operations.ReasonDeviceUnusable, "%s cannot be used: %s", d.title(), cmp.Or(d.Error, d.unfit))
		}
		chosen = append(chosen, devices[i])
	}
	draining := slices.ContainsFunc(chosen, func(d Device) bool { return len(d.Draining) > 0 })
	for _, d := range chosen {
		if draining {
			d = d.drained() // refused at once if even that is not enough
		}
		if l.lack(d, len(chosen)) > 0 {
			l.Split = []int{len(chosen)}
			return Decision{}, l.refuse([][]Device{chosen}, nil)
		}
	}
	if draining {
		return Decision{}, waitFor(chosen)
	}
	return l.decide(chosen, devices, "as asked"), nil
}

// vendorOf is the vendor that indices are meant for: the engine's, else the only
// one here, else the only one of which a device can be used.
func (l Load) vendorOf(devices []Device) (string, error) {
	here := vendors(devices)
	switch {
	case l.Vendor != "":
		return l.Vendor, nil
	case len(here) == 0:
		return "", nil
	case len(here) == 1:
		return here[0], nil
	}
	var usable []string
	for _, v := range here {
		if slices.ContainsFunc(devices, func(d Device) bool { return string(d.Vendor) == v && d.usable() }) {
			usable = append(usable, v)
		}
	}
	if len(usable) == 1 {
		return usable[0], nil
	}
	return "", failed(operations.ReasonDeviceAmbiguous, "device %q is ambiguous: this machine has devices of %s, each counted from 0, and %s works with any of them%s",
		l.Device, strings.Join(here, " and "), l.Worker, lines(devices, Device.health))
}

// unknown is the error for an index that no device of the vendor has.
func (l Load) unknown(index int, vendor string, devices []Device) error {
	e := failed(operations.ReasonDeviceNotFound, "there is no device %d: this machine has no accelerator", index)
	if len(devices) > 0 {
		if vendor != "" {
			vendor += " "
		}
		e = failed(operations.ReasonDeviceNotFound, "there is no %sdevice %d here; there are%s", vendor, index, lines(devices, Device.health))
	}
	e.Code, e.Subject = operations.CodeNotFound, operations.SubjectDevice.Named(strconv.Itoa(index))
	return e
}
