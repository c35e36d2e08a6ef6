package gpu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const rocmSMI = "rocm-smi"

// rocmDevices returns the devices from rocm-smi, the predecessor of amd-smi.
func (d *Detector) rocmDevices(ctx context.Context) ([]Device, error) {
	r, err := d.runTool(ctx, rocmSMI, "--showproductname", "--showuniqueid", "--showbus", "--showmeminfo", "vram",
		"--showuse", "--showtemp", "--showpower", "--showdriverversion", "--json")
	if err != nil {
		return nil, err
	}
	devices, err := parseROCm(r.Stdout)
	if err != nil {
		return nil, &toolError{tool: rocmSMI, message: fmt.Sprintf("rocm-smi: %v: %s", err, r.failureText(rocmSMI))}
	}
	return devices, nil
}

// rocmSections parses the objects in rocm-smi's JSON.
func rocmSections(out []byte) (sections map[string]section[rocmCard], err error) {
	doc, err := jsonPart(out)
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(doc, &sections)
	return sections, err
}

// parseROCm parses rocm-smi's JSON: an object "card<N>" for each device, and the object
// "system". All values are strings, and the capitalization of keys depends on the version.
// Example: https://github.com/sebhildebrandt/systeminformation/pull/960
func parseROCm(out []byte) ([]Device, error) {
	sections, err := rocmSections(out)
	if err != nil {
		return nil, err
	}
	driver := sections["system"].value.first("driver version")
	var devices []Device
	for name, s := range sections {
		digits, isCard := strings.CutPrefix(name, "card")
		index, err := strconv.Atoi(digits)
		if !isCard || err != nil || index < 0 {
			continue
		}
		g := s.value.device(index)
		g.Driver = driver
		devices = append(devices, g)
	}
	sortDevices(devices)
	return devices, nil
}

type rocmCard map[string]text

// first returns the value of the first key that has one, or "".
func (c rocmCard) first(keys ...string) string {
	for _, key := range keys {
		for k, v := range c {
			if strings.EqualFold(k, key) && knownText(string(v)) != "" {
				return knownText(string(v))
			}
		}
	}
	return ""
}

func (c rocmCard) device(index int) Device {
	memory := func(key string) *uint64 { return toBytes(number(c.first(key)), 1) }
	g := Device{
		Index: index, Vendor: AMD,
		UUID:         c.first("unique id"),
		Name:         c.first("card series", "device name", "card model"),
		PCIBusID:     busID(c.first("pci bus")),
		Architecture: architecture(c.first("gfx version")),
		MemoryTotal:  orZero(memory("vram total memory (b)")),
		MemoryUsed:   memory("vram total used memory (b)"),
		Utilization:  number(c.first("gpu use (%)")),
		Temperature:  number(c.first("temperature (sensor edge) (c)", "temperature (sensor junction) (c)")),
		Power:        number(c.first("average graphics package power (w)", "current socket graphics package power (w)")),
	}
	g.MemoryFree = difference(g.MemoryTotal, g.MemoryUsed)
	return g
}

// rocmProcesses returns the processes from rocm-smi. The tool reports the number of devices
// that a process uses but does not identify them, so DeviceUUID is known only on a machine
// with one device.
func (d *Detector) rocmProcesses(ctx context.Context) ([]Process, error) {
	r, err := d.runTool(ctx, rocmSMI, "--showpids", "--showuniqueid", "--json")
	if err != nil {
		return nil, err
	}
	processes, err := parseROCmProcesses(r.Stdout)
	if errors.Is(err, errNoJSON) && strings.Contains(r.failureText(rocmSMI), "No JSON data") {
		return nil, nil // no processes
	}
	if err != nil {
		return nil, &toolError{tool: rocmSMI, message: fmt.Sprintf("rocm-smi --showpids: %v: %s", err, r.failureText(rocmSMI))}
	}
	return processes, nil
}

// parseROCmProcesses parses the object "system" in rocm-smi's JSON, in which the value of
// "PID<N>" is "name, devices, VRAM in bytes, SDMA, CU occupancy"; see showPids in
// https://github.com/ROCm/rocm_smi_lib/blob/master/python_smi_tools/rocm_smi.py
func parseROCmProcesses(out []byte) ([]Process, error) {
	sections, err := rocmSections(out)
	if err != nil {
		return nil, err
	}
	cards, uuid := 0, ""
	for name, s := range sections {
		if strings.HasPrefix(name, "card") {
			cards, uuid = cards+1, s.value.first("unique id")
		}
	}
	var processes []Process
	for key, value := range sections["system"].value {
		digits, isPID := strings.CutPrefix(key, "PID")
		pid, err := strconv.Atoi(digits)
		fields := strings.Split(string(value), ",")
		last := len(fields) - 4 // the name can contain commas
		if !isPID || err != nil || pid <= 0 || last < 1 {
			continue // "No KFD PIDs currently running"
		}
		p := Process{
			Vendor: AMD, PID: pid,
			Name:   knownText(strings.Join(fields[:last], ",")),
			Memory: toBytes(number(fields[last+1]), 1),
		}
		if cards == 1 && strings.TrimSpace(fields[last]) == "1" {
			p.DeviceUUID = uuid
		}
		processes = append(processes, p)
	}
	sortProcesses(processes)
	return processes, nil
}
