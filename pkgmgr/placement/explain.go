package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// reason says in one line why the load goes onto these devices.
func (l Load) reason(chosen []Device, why string) string {
	parts := []string{why, "needs " + l.need(len(chosen), chosen)}
	for _, d := range chosen {
		if len(chosen) > 1 {
			parts = append(parts, d.title()+": "+d.memory())
		} else {
			parts = append(parts, d.memory())
		}
	}
	return listed(chosen, Device.title) + ": " + strings.Join(parts, "; ")
}

// refuse says line by line why the load does not fit: what it needs, what each
// device has, and how much was missing. here are all devices, of which those that the
// engine cannot run on are named too.
func (l Load) refuse(groups [][]Device, here []Device) *operations.Error {
	devices := slices.Concat(groups...)
	var b strings.Builder
	fmt.Fprintf(&b, "%s does not fit", l.name())
	var nearest string
	least := int64(-1)
	for _, n := range l.Split {
		told := false
		for _, g := range groups {
			if n < 1 || len(g) < n {
				continue
			}
			if !told {
				told = true
				fmt.Fprintf(&b, "\n  needed: %s", l.need(n, g))
			}
			d, short := l.shortest(g, n)
			if least < 0 || short < least {
				least, nearest = short, l.missing(d, n, short)
			}
		}
	}
	for _, d := range slices.SortedFunc(slices.Values(devices), byVendor) {
		fmt.Fprintf(&b, "\n  %s: %s", d.title(), d.memory())
	}
	for _, d := range slices.SortedFunc(slices.Values(l.unfitDevices(here)), byVendor) {
		fmt.Fprintf(&b, "\n  %s: not used: %s", d.title(), d.unfit)
	}
	if nearest == "" {
		fmt.Fprintf(&b, "\n  missing: %s runs on %s devices, and here it could use %s", l.Worker, either(l.Split), count(len(devices), "device"))
	} else {
		fmt.Fprintf(&b, "\n  missing: %s", nearest)
	}
	reason := operations.ReasonTooLarge
	if l.choose(reclaimed(groups)) != nil {
		reason = operations.ReasonNoRoom
	}
	e := failed(reason, "%s", b.String())
	if e.Subject = operations.SubjectModel.Named(l.Model); l.Model == "" {
		e.Subject = operations.SubjectWorker.Named(l.Worker)
	}
	return e
}

// shortest is the device that lacks most among the n that lack least.
func (l Load) shortest(g []Device, n int) (Device, int64) {
	sorted := slices.SortedStableFunc(slices.Values(g), func(a, b Device) int {
		switch lackA, lackB := l.lack(a, n), l.lack(b, n); {
		case lackA < lackB:
			return -1
		case lackA > lackB:
			return 1
		default:
			return byIndex(a, b)
		}
	})
	last := sorted[n-1]
	return last, l.lack(last, n)
}

// missing says what would make the load fit onto n devices.
func (l Load) missing(d Device, n int, short int64) string {
	where := "on one device"
	if n > 1 {
		where = fmt.Sprintf("on each of %d devices", n)
	}
	if most := l.reserves(d); most > 0 && l.part(n) > most {
		return fmt.Sprintf("%s %s, of which %s takes at most %s of the memory: %s on %s",
			bytesize.Format(l.part(n)), where, l.Worker, percent(l.Fraction), bytesize.Format(most), d.title())
	}
	return fmt.Sprintf("%s; it would fit with %s free %s", bytesize.Format(short)+" on "+d.title(), bytesize.Format(max(l.part(n), l.reserves(d))), where)
}

// need is what n devices must have, as a sum.
func (l Load) need(n int, devices []Device) string {
	var b strings.Builder
	explain := ""
	if l.Explain != "" {
		explain = " (" + l.Explain + ")"
	}
	switch {
	case l.Estimate == 0 && l.Overhead == 0:
		fmt.Fprintf(&b, "an amount that is not known%s", explain)
	case l.Estimate == 0:
		fmt.Fprintf(&b, "an amount that is not known%s + overhead %s", explain, bytesize.Format(l.Overhead))
	case n > 1:
		fmt.Fprintf(&b, "%s on each of %d devices = %s%s / %d + overhead %s", bytesize.Format(l.part(n)), n, bytesize.Format(l.Estimate), explain, n, bytesize.Format(l.Overhead))
	default:
		fmt.Fprintf(&b, "%s = %s%s + overhead %s", bytesize.Format(l.part(n)), bytesize.Format(l.Estimate), explain, bytesize.Format(l.Overhead))
	}
	if l.Fraction > 0 && len(devices) > 0 {
		fmt.Fprintf(&b, ", within the %s of each device that %s reserves", percent(l.Fraction), l.Worker)
		if most := l.reserves(devices[0]); most > 0 {
			fmt.Fprintf(&b, " (%s)", bytesize.Format(most))
		}
	}
	return b.String()
}

// memory tells what a device has: free, held, promised, left.
func (d Device) memory() string {
	var b strings.Builder
	free, known := d.free()
	switch {
	case !known:
		b.WriteString("its memory is not known, so it is taken on trust")
	case d.guessed():
		fmt.Fprintf(&b, "%s in all, how much is free is not known", bytesize.Format(free))
	case d.MemoryTotal == 0:
		fmt.Fprintf(&b, "%s free", bytesize.Format(free))
	default:
		fmt.Fprintf(&b, "%s free of %s, %s held", bytesize.Format(free), bytesize.Format(d.total()), bytesize.Format(max(d.total()-free, 0)))
	}
	if d.MemoryReserved > 0 {
		fmt.Fprintf(&b, ", %s promised to workers that are loading", bytesize.Format(d.MemoryReserved))
		if room, _ := d.room(); known {
			fmt.Fprintf(&b, ", so %s left", bytesize.Format(room))
		}
	}
	if len(d.Draining) > 0 {
		fmt.Fprintf(&b, ", %s is ending there", strings.Join(d.Draining, ", "))
	}
	if d.sliced() {
		b.WriteString(", but MIG is on and an engine gets one slice")
	}
	return b.String()
}

// health tells whether a device can be used.
func (d Device) health() string {
	switch {
	case d.Error != "":
		return d.title() + ": " + d.Error
	case d.Index < 0:
		return d.title() + ": its tool gives it no index"
	case d.unfit != "":
		return d.title() + ": " + d.unfit
	default:
		return d.title()
	}
}

// title names a device: "nvidia 0 (NVIDIA L4)".
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

func (l Load) name() string {
	if l.Model == "" {
		return l.Worker
	}
	return l.Worker + " with " + l.Model
}

func byVendor(a, b Device) int {
	if c := cmp.Compare(a.Vendor, b.Vendor); c != 0 {
		return c
	}
	return byIndex(a, b)
}

// lines writes a line of each device below a message, by vendor and index.
func lines(devices []Device, say func(Device) string) string {
	var b strings.Builder
	for _, d := range slices.SortedStableFunc(slices.Values(devices), byVendor) {
		b.WriteString("\n  " + say(d))
	}
	return b.String()
}

// listed writes the devices in one line, in their own order.
func listed(devices []Device, say func(Device) string) string {
	words := make([]string, len(devices))
	for i, d := range devices {
		words[i] = say(d)
	}
	return strings.Join(words, ", ")
}

func percent(f float64) string { return fmt.Sprintf("%.0f%%", f*100) }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// either writes "1, 2 or 4".
func either(list []int) string {
	words := strings.Split(indices(list), ",")
	if len(words) < 2 {
		return indices(list)
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
