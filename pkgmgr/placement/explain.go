package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// reason returns the reason of a decision in one line. basis describes how the devices
// were chosen.
func (r Request) reason(chosen []Device, basis string) string {
	parts := []string{basis, "needs " + r.describeNeed(len(chosen), chosen)}
	for _, d := range chosen {
		if len(chosen) > 1 {
			parts = append(parts, d.title()+": "+d.describeMemory())
		} else {
			parts = append(parts, d.describeMemory())
		}
	}
	return deviceList(chosen, Device.title) + ": " + strings.Join(parts, "; ")
}

// noFitError returns the error for a worker that does not fit: a line for the needed
// memory, a line for each device, and a line for the missing memory. groups are the
// usable devices by vendor. The error also lists the devices in present that the engine
// cannot run on.
func (r Request) noFitError(groups [][]Device, present []Device) *operations.Error {
	devices := slices.Concat(groups...)
	var b strings.Builder
	fmt.Fprintf(&b, "%s does not fit on this machine", r.name())
	var missing string
	smallest := int64(-1)
	for _, n := range r.DeviceCounts {
		printed := false
		for _, g := range groups {
			if n < 1 || len(g) < n {
				continue
			}
			if !printed {
				printed = true
				fmt.Fprintf(&b, "\n  needed: %s", r.describeNeed(n, g))
			}
			d, shortfall := r.bottleneck(g, n)
			if smallest < 0 || shortfall < smallest {
				smallest, missing = shortfall, r.describeShortfall(d, n, shortfall)
			}
		}
	}
	for _, d := range slices.SortedFunc(slices.Values(devices), byVendor) {
		fmt.Fprintf(&b, "\n  %s: %s", d.title(), d.describeMemory())
	}
	for _, d := range slices.SortedFunc(slices.Values(r.unfitDevices(present)), byVendor) {
		fmt.Fprintf(&b, "\n  %s: not used: %s", d.title(), d.unfit)
	}
	if missing == "" {
		fmt.Fprintf(&b, "\n  missing: %s runs on %s devices, but only %s can be used", r.Worker, joinOr(r.DeviceCounts), count(len(devices), "device"))
	} else {
		fmt.Fprintf(&b, "\n  missing: %s", missing)
	}
	reason := operations.ReasonTooLarge
	if r.choose(afterReclaim(groups)) != nil {
		reason = operations.ReasonInsufficientMemory
	}
	e := errorf(reason, "%s", b.String())
	if e.Subject = operations.SubjectModel.WithName(r.Model); r.Model == "" {
		e.Subject = operations.SubjectWorker.WithName(r.Worker)
	}
	return e
}

// bottleneck returns the device with the largest shortfall among the n devices with the
// smallest shortfall, and its shortfall in bytes.
func (r Request) bottleneck(g []Device, n int) (Device, int64) {
	sorted := slices.SortedStableFunc(slices.Values(g), func(a, b Device) int {
		switch missingA, missingB := r.shortfall(a, n), r.shortfall(b, n); {
		case missingA < missingB:
			return -1
		case missingA > missingB:
			return 1
		default:
			return byIndex(a, b)
		}
	})
	last := sorted[n-1]
	return last, r.shortfall(last, n)
}

// describeShortfall formats the memory that is missing on d to use n devices.
func (r Request) describeShortfall(d Device, n int, shortfall int64) string {
	scope := "on one device"
	if n > 1 {
		scope = fmt.Sprintf("on each of %d devices", n)
	}
	if limit := r.reservation(d); limit > 0 && r.perDevice(n) > limit {
		return fmt.Sprintf("%s %s, but %s reserves only %s of the memory: %s on %s",
			bytesize.Format(r.perDevice(n)), scope, r.Worker, percent(r.Fraction), bytesize.Format(limit), d.title())
	}
	return fmt.Sprintf("%s; it would fit with %s free %s", bytesize.Format(shortfall)+" on "+d.title(), bytesize.Format(max(r.perDevice(n), r.reservation(d))), scope)
}

// describeNeed formats the calculation of the memory that is needed on each of n devices.
func (r Request) describeNeed(n int, devices []Device) string {
	var b strings.Builder
	breakdown := ""
	if r.Breakdown != "" {
		breakdown = " (" + r.Breakdown + ")"
	}
	switch {
	case r.Estimate == 0 && r.Overhead == 0:
		fmt.Fprintf(&b, "an unknown amount%s", breakdown)
	case r.Estimate == 0:
		fmt.Fprintf(&b, "an unknown amount%s + overhead %s", breakdown, bytesize.Format(r.Overhead))
	case n > 1:
		fmt.Fprintf(&b, "%s on each of %d devices = %s%s / %d + overhead %s", bytesize.Format(r.perDevice(n)), n, bytesize.Format(r.Estimate), breakdown, n, bytesize.Format(r.Overhead))
	default:
		fmt.Fprintf(&b, "%s = %s%s + overhead %s", bytesize.Format(r.perDevice(n)), bytesize.Format(r.Estimate), breakdown, bytesize.Format(r.Overhead))
	}
	if r.Fraction > 0 && len(devices) > 0 {
		fmt.Fprintf(&b, ", within the %s of each device that %s reserves", percent(r.Fraction), r.Worker)
		if limit := r.reservation(devices[0]); limit > 0 {
			fmt.Fprintf(&b, " (%s)", bytesize.Format(limit))
		}
	}
	return b.String()
}

// describeMemory formats the memory of a device: free, total, in use, reserved and
// available.
func (d Device) describeMemory() string {
	var b strings.Builder
	free, known := d.free()
	switch {
	case !known:
		b.WriteString("memory unknown, assumed to be sufficient")
	case d.isFreeUnknown():
		fmt.Fprintf(&b, "%s total, free memory unknown", bytesize.Format(free))
	case d.MemoryTotal == 0:
		fmt.Fprintf(&b, "%s free", bytesize.Format(free))
	default:
		fmt.Fprintf(&b, "%s free of %s, %s in use", bytesize.Format(free), bytesize.Format(d.total()), bytesize.Format(max(d.total()-free, 0)))
	}
	if d.MemoryReserved > 0 {
		fmt.Fprintf(&b, ", %s reserved for loading workers", bytesize.Format(d.MemoryReserved))
		if available, _ := d.available(); known {
			fmt.Fprintf(&b, ", %s available", bytesize.Format(available))
		}
	}
	if len(d.Draining) > 0 {
		fmt.Fprintf(&b, ", still used by stopping worker %s", strings.Join(d.Draining, ", "))
	}
	if d.hasMIG() {
		b.WriteString(", but MIG is enabled, so an engine gets one slice")
	}
	return b.String()
}

// status formats a device and the reason why it cannot be used, if any.
func (d Device) status() string {
	switch {
	case d.Error != "":
		return d.title() + ": " + d.Error
	case d.Index < 0:
		return d.title() + ": no device index reported"
	case d.unfit != "":
		return d.title() + ": " + d.unfit
	default:
		return d.title()
	}
}

// title formats a device as "nvidia 0 (NVIDIA L4)".
func (d Device) title() string {
	title := string(d.Vendor)
	switch {
	case d.Index >= 0:
		title += fmt.Sprintf(" %d", d.Index)
	case d.PCIBusID != "":
		title += " at " + d.PCIBusID
	}
	if d.Name != "" {
		title += " (" + d.Name + ")"
	}
	return title
}

// name formats the worker type and the model for messages.
func (r Request) name() string {
	if r.Model == "" {
		return r.Worker
	}
	return r.Worker + " with " + r.Model
}

// byVendor compares devices by vendor and index.
func byVendor(a, b Device) int {
	if c := cmp.Compare(a.Vendor, b.Vendor); c != 0 {
		return c
	}
	return byIndex(a, b)
}

// deviceLines formats each device on its own indented line, sorted by vendor and index.
func deviceLines(devices []Device, format func(Device) string) string {
	var b strings.Builder
	for _, d := range slices.SortedStableFunc(slices.Values(devices), byVendor) {
		b.WriteString("\n  " + format(d))
	}
	return b.String()
}

// deviceList formats the devices in one line, in the given order.
func deviceList(devices []Device, format func(Device) string) string {
	parts := make([]string, len(devices))
	for i, d := range devices {
		parts[i] = format(d)
	}
	return strings.Join(parts, ", ")
}

// percent formats 0.9 as "90%".
func percent(f float64) string { return fmt.Sprintf("%.0f%%", f*100) }

// count formats a number of things as "1 device" or "2 devices".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// joinOr formats numbers as "1, 2 or 4".
func joinOr(numbers []int) string {
	parts := strings.Split(joinIndices(numbers), ",")
	if len(parts) < 2 {
		return joinIndices(numbers)
	}
	return strings.Join(parts[:len(parts)-1], ", ") + " or " + parts[len(parts)-1]
}
