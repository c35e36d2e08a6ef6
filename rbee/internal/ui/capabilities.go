package ui

import (
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// capabilities writes the resources of a machine, its accelerators and the
// processes that use their memory.
func (p *page) capabilities(r *operations.HiveCapabilitiesReport) {
	t := facts(r.Alias)
	t.fact("machine", r.Hostname)
	t.fact("system", systemText(r))
	t.fact("cpu", cpuText(r.CPU))
	t.fact("memory", freeText(r.MemoryTotal, r.MemoryAvailable))
	t.fact("disk", freeText(r.DiskTotal, r.DiskFree))
	models := r.ModelsPath
	if models != "" && r.ModelsFree > 0 {
		models += " (" + bytesize.Format(r.ModelsFree) + " free)"
	}
	t.fact("models", models)
	t.fact("CUDA", r.CUDA)
	t.write(&p.text, p.style, "")
	p.linef("")
	if len(r.Devices) == 0 {
		p.linef("No GPU found: workers run on the CPU.")
		return
	}
	p.devices(r.Devices)
	if len(r.Processes) > 0 {
		p.linef("")
		p.deviceProcesses(r.Processes, r.Devices, "")
	}
}

func systemText(r *operations.HiveCapabilitiesReport) string {
	text := r.OS + "/" + r.Arch
	if r.Kernel != "" {
		text += ", kernel " + r.Kernel
	}
	if r.Libc != "" {
		text += ", " + r.Libc
	}
	return text
}

func cpuText(c operations.CPU) string {
	text := c.Model
	if c.Threads > 0 {
		text += ", " + format.Count(c.Threads, "thread")
	}
	return strings.TrimPrefix(text, ", ")
}

// freeText formats a total size and its free part; 0 is unknown.
func freeText(total, free uint64) string {
	switch {
	case total == 0 && free == 0:
		return ""
	case total == 0:
		return bytesize.Format(free) + " free"
	default:
		return bytesize.Format(total) + ", " + bytesize.Format(free) + " free"
	}
}

func (p *page) devices(devices []gpu.Device) {
	t := table{
		header: []string{"INDEX", "VENDOR", "NAME", "MEMORY", "UTIL", "TEMP", "POWER", "DRIVER", "CC", "NOTE"},
		right:  map[string]bool{"INDEX": true, "MEMORY": true, "UTIL": true, "TEMP": true, "POWER": true},
	}
	for _, d := range devices {
		index := "-"
		if d.Index >= 0 {
			index = fmt.Sprint(d.Index)
		}
		t.add(index, string(d.Vendor), d.Name, deviceMemory(d), number(d.Utilization, " %"), number(d.Temperature, " °C"), number(d.Power, " W"),
			d.Driver, d.ComputeCapability, deviceNote(d))
	}
	t.write(&p.text, p.style, "")
}

// deviceMemory formats the memory of an accelerator as used/total, or as the
// total if the used part is unknown.
func deviceMemory(d gpu.Device) string {
	used := d.MemoryUsed
	if used == nil && d.MemoryFree != nil && d.MemoryTotal >= *d.MemoryFree {
		n := d.MemoryTotal - *d.MemoryFree
		used = &n
	}
	switch {
	case d.MemoryTotal == 0:
		return ""
	case used == nil:
		return bytesize.Format(d.MemoryTotal)
	default:
		return bytesize.Format(*used) + "/" + bytesize.Format(d.MemoryTotal)
	}
}

func deviceNote(d gpu.Device) string {
	var notes []string
	if d.Error != "" {
		notes = append(notes, "cannot be used: "+d.Error)
	}
	if d.Unified {
		notes = append(notes, "memory shared with the CPU")
	}
	if d.MIG != nil && *d.MIG {
		notes = append(notes, "MIG enabled")
	}
	if d.Architecture != "" {
		notes = append(notes, d.Architecture)
	}
	return strings.Join(notes, "; ")
}

func number(v *float64, unit string) string {
	if v == nil {
		return ""
	}
	return fmt.Sprintf("%.0f%s", *v, unit)
}

// deviceProcesses writes a table of the processes that use memory of accelerators.
func (p *page) deviceProcesses(list []operations.DeviceProcess, devices []gpu.Device, indent string) {
	t := table{header: []string{"PID", "USER", "NAME", "MEMORY", "DEVICE", "WORKER"}, right: map[string]bool{"PID": true, "MEMORY": true}}
	for _, process := range list {
		memory := ""
		if process.Memory != nil {
			memory = bytesize.Format(*process.Memory)
		}
		t.add(fmt.Sprint(process.PID), process.User, process.Name, memory, deviceName(process.DeviceUUID, devices), process.WorkerID)
	}
	t.write(&p.text, p.style, indent)
}

// deviceName returns the vendor and index of the device with this UUID, such as
// "nvidia 0", or the UUID if the device is unknown.
func deviceName(uuid string, devices []gpu.Device) string {
	for _, d := range devices {
		if d.UUID == uuid && uuid != "" && d.Index >= 0 {
			return fmt.Sprintf("%s %d", d.Vendor, d.Index)
		}
	}
	return uuid
}
