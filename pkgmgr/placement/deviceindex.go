package placement

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// placeByIndex returns the decision for the devices that r requests by index.
func (r Request) placeByIndex(devices []Device) (Decision, error) {
	requested, err := operations.ParseDevices(r.Device)
	if err != nil {
		return Decision{}, err
	}
	vendor, err := r.indexVendor(devices)
	if err != nil {
		return Decision{}, err
	}
	chosen := make([]Device, 0, len(requested))
	for _, index := range requested {
		i := slices.IndexFunc(devices, func(d Device) bool { return string(d.Vendor) == vendor && d.Index == index })
		if i < 0 {
			return Decision{}, r.unknownDevice(index, vendor, devices)
		}
		if d := devices[i]; !d.usable() {
			return Decision{}, errorf(operations.ReasonDeviceUnusable, "%s cannot be used: %s", d.title(), cmp.Or(d.Error, d.unfit))
		}
		chosen = append(chosen, devices[i])
	}
	draining := slices.ContainsFunc(chosen, func(d Device) bool { return len(d.Draining) > 0 })
	for _, d := range chosen {
		if draining {
			d = d.afterDrain() // do not wait if the worker will not fit anyway
		}
		if r.shortfall(d, len(chosen)) > 0 {
			r.DeviceCounts = []int{len(chosen)}
			return Decision{}, r.noFitError([][]Device{chosen}, nil)
		}
	}
	if draining {
		return Decision{}, newWait(chosen)
	}
	return r.decide(chosen, devices, "as requested"), nil
}

// indexVendor returns the vendor whose devices the indices refer to: the vendor of the
// engine, else the only vendor on the machine, else the only vendor with a usable device.
func (r Request) indexVendor(devices []Device) (string, error) {
	present := vendors(devices)
	switch {
	case r.Vendor != "":
		return r.Vendor, nil
	case len(present) == 0:
		return "", nil
	case len(present) == 1:
		return present[0], nil
	}
	var usable []string
	for _, v := range present {
		if slices.ContainsFunc(devices, func(d Device) bool { return string(d.Vendor) == v && d.usable() }) {
			usable = append(usable, v)
		}
	}
	if len(usable) == 1 {
		return usable[0], nil
	}
	return "", errorf(operations.ReasonDeviceAmbiguous, "device %q is ambiguous: this machine has %s devices, each numbered from 0, and %s supports all of them:%s",
		r.Device, strings.Join(present, " and "), r.Worker, deviceLines(devices, Device.status))
}

// unknownDevice returns the error for an index that no device of the vendor has.
func (r Request) unknownDevice(index int, vendor string, devices []Device) error {
	e := errorf(operations.ReasonDeviceNotFound, "unknown device %d: this machine has no accelerator", index)
	if len(devices) > 0 {
		if vendor != "" {
			vendor += " "
		}
		e = errorf(operations.ReasonDeviceNotFound, "unknown %sdevice %d; this machine has:%s", vendor, index, deviceLines(devices, Device.status))
	}
	e.Code, e.Subject = operations.CodeNotFound, operations.SubjectDevice.WithName(strconv.Itoa(index))
	return e
}
