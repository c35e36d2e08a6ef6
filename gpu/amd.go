package gpu

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
)

const amdSMI = "amd-smi"

// amd returns the AMD devices from amd-smi, or else from rocm-smi, or else from the files of
// the kernel driver. cards are the AMD cards in sysfs.
func (d *Detector) amd(ctx context.Context, cards []card) []Device {
	devices, err := d.amdDevices(ctx)
	if err != nil {
		var rocmErr error
		devices, rocmErr = d.rocmDevices(ctx)
		if isNotInstalled(err) || rocmErr == nil {
			err = rocmErr
		}
	}
	switch {
	case len(devices) > 0:
		return d.withAPUMemory(devices, cards)
	case len(cards) == 0:
		return nil // ignore errors of the tools on a machine without a card
	case err != nil && !isNotInstalled(err):
		return brokenDevices(AMD, cards, err.Error())
	}
	return d.withAPUMemory(amdKernelDevices(cards), cards)
}

// amdKernelDevices returns the devices from the files of the amdgpu driver; see
// https://docs.kernel.org/gpu/amdgpu/driver-misc.html
func amdKernelDevices(cards []card) []Device {
	var devices []Device
	for i, c := range cards {
		if c.driver != "amdgpu" {
			devices = append(devices, brokenDevices(AMD, cards[i:i+1], "the device does not use the amdgpu driver")...)
			continue
		}
		g := Device{
			Index: i, Vendor: AMD, PCIBusID: c.bus, UUID: c.line("unique_id"),
			Name:        c.line("product_name"),
			MemoryTotal: orZero(c.bytes("mem_info_vram_total")),
			MemoryUsed:  c.bytes("mem_info_vram_used"),
			Utilization: number(c.line("gpu_busy_percent")),
		}
		if g.Name == "" {
			g.Name = "AMD GPU " + c.device
		}
		g.MemoryFree = difference(g.MemoryTotal, g.MemoryUsed)
		devices = append(devices, g)
	}
	return devices
}

// amdEntry is a device in the JSON output of amd-smi. Older releases print an array of
// devices, newer releases an object with the array in "gpu_data"; see
// https://rocm.docs.amd.com/projects/amdsmi/en/latest/how-to/amdsmi-cli-tool.html
type amdEntry struct {
	GPU  int  `json:"gpu"`
	UUID text `json:"uuid"` // of `amd-smi list`
	BDF  text `json:"bdf"`

	ASIC section[struct { // of `amd-smi static`
		MarketName text `json:"market_name"`
		Graphics   text `json:"target_graphics_version"`
	}] `json:"asic"`
	Bus section[struct {
		BDF text `json:"bdf"`
	}] `json:"bus"`
	Driver section[struct {
		Version text `json:"version"`
	}] `json:"driver"`
	VRAM section[struct {
		Size quantity `json:"size"`
	}] `json:"vram"`

	Usage section[struct { // of `amd-smi metric`
		Graphics quantity `json:"gfx_activity"`
	}] `json:"usage"`
	Power section[struct {
		Socket quantity `json:"socket_power"`
	}] `json:"power"`
	Temperature section[struct {
		Edge    quantity `json:"edge"`
		Hotspot quantity `json:"hotspot"`
	}] `json:"temperature"`
	Memory section[struct {
		Total quantity `json:"total_vram"`
		Used  quantity `json:"used_vram"`
		Free  quantity `json:"free_vram"`
	}] `json:"mem_usage"`

	Processes []struct { // of `amd-smi process`
		Info section[struct {
			PID    text `json:"pid"`
			Name   text `json:"name"`
			Memory section[struct {
				VRAM quantity `json:"vram_mem"`
			}] `json:"memory_usage"`
			Total quantity `json:"mem_usage"` // if memory_usage is missing
		}] `json:"process_info"`
	} `json:"process_list"`
}

// amdDevices returns the devices from three commands of amd-smi, which it runs in parallel.
// It ignores errors of the commands list and metric.
func (d *Detector) amdDevices(ctx context.Context) ([]Device, error) {
	var static, list, metric []amdEntry
	var staticErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		static, staticErr = d.runAMDSMI(ctx, "static", "--asic", "--bus", "--driver", "--vram", "--json")
	})
	wg.Go(func() { list, _ = d.runAMDSMI(ctx, "list", "--json") })
	wg.Go(func() {
		metric, _ = d.runAMDSMI(ctx, "metric", "--usage", "--power", "--temperature", "--mem-usage", "--json")
	})
	wg.Wait()
	if staticErr != nil {
		return nil, staticErr
	}
	return joinAMD(static, list, metric), nil
}

func (d *Detector) runAMDSMI(ctx context.Context, args ...string) ([]amdEntry, error) {
	r, err := d.runTool(ctx, amdSMI, args...)
	entries, parseErr := parseAMD(r.Stdout)
	switch {
	case parseErr == nil && len(entries) > 0:
		return entries, nil // even if the exit code is not 0: it may be a warning
	case err != nil:
		return nil, err
	case parseErr != nil:
		return nil, &toolError{tool: amdSMI, message: fmt.Sprintf("amd-smi %s: %v: %s", args[0], parseErr, oneLine(string(r.Stdout)))}
	}
	return entries, nil
}

// parseAMD parses the JSON output of an amd-smi command, either an array or an object; see
// [amdEntry].
func parseAMD(out []byte) ([]amdEntry, error) {
	doc, err := jsonPart(out)
	if err != nil {
		return nil, err
	}
	if doc[0] == '[' {
		var entries []amdEntry
		return entries, json.Unmarshal(doc, &entries)
	}
	var wrapped struct {
		Data []amdEntry `json:"gpu_data"`
	}
	return wrapped.Data, json.Unmarshal(doc, &wrapped)
}

// joinAMD merges the entries of the commands by device index.
func joinAMD(static, list, metric []amdEntry) []Device {
	devices := map[int]Device{}
	for _, e := range static {
		devices[e.GPU] = Device{
			Index: e.GPU, Vendor: AMD,
			Name:         knownText(string(e.ASIC.value.MarketName)),
			Architecture: architecture(string(e.ASIC.value.Graphics)),
			PCIBusID:     busID(string(e.Bus.value.BDF)),
			Driver:       knownText(string(e.Driver.value.Version)),
			MemoryTotal:  orZero(e.VRAM.value.Size.bytes()),
		}
	}
	for _, e := range list {
		if g, ok := devices[e.GPU]; ok {
			g.UUID = knownText(string(e.UUID))
			if bus := busID(string(e.BDF)); bus != "" {
				g.PCIBusID = bus
			}
			devices[e.GPU] = g
		}
	}
	for _, e := range metric {
		if g, ok := devices[e.GPU]; ok {
			devices[e.GPU] = e.withMetrics(g)
		}
	}
	return slices.Collect(maps.Values(devices))
}

// withMetrics returns g with the values of `amd-smi metric`. Instinct devices have no edge
// sensor.
func (e amdEntry) withMetrics(g Device) Device {
	memory := e.Memory.value
	if g.MemoryTotal == 0 {
		g.MemoryTotal = orZero(memory.Total.bytes())
	}
	g.MemoryUsed, g.MemoryFree = memory.Used.bytes(), memory.Free.bytes()
	if g.MemoryFree == nil {
		g.MemoryFree = difference(g.MemoryTotal, g.MemoryUsed)
	}
	g.Utilization = e.Usage.value.Graphics.value
	g.Power = e.Power.value.Socket.value
	g.Temperature = e.Temperature.value.Edge.value
	if g.Temperature == nil {
		g.Temperature = e.Temperature.value.Hotspot.value
	}
	return g
}

// amdProcesses returns the processes from amd-smi, or else from rocm-smi.
func (d *Detector) amdProcesses(ctx context.Context) ([]Process, error) {
	if len(cardsOf(d.pciCards(), AMD)) == 0 {
		return nil, nil
	}
	var entries, list []amdEntry
	var amdErr error
	var wg sync.WaitGroup
	wg.Go(func() { entries, amdErr = d.runAMDSMI(ctx, "process", "--json") })
	wg.Go(func() { list, _ = d.runAMDSMI(ctx, "list", "--json") })
	wg.Wait()
	if amdErr == nil {
		return joinAMDProcesses(entries, list), nil
	}
	processes, rocmErr := d.rocmProcesses(ctx)
	switch {
	case rocmErr == nil:
		return processes, nil
	case !isNotInstalled(amdErr):
		return nil, amdErr
	case !isNotInstalled(rocmErr):
		return nil, rocmErr
	}
	return nil, nil // neither tool is installed
}

func joinAMDProcesses(entries, list []amdEntry) []Process {
	uuids := map[int]string{}
	for _, e := range list {
		uuids[e.GPU] = knownText(string(e.UUID))
	}
	var processes []Process
	for _, e := range entries {
		for _, p := range e.Processes {
			info := p.Info.value
			pid, err := strconv.Atoi(string(info.PID))
			if err != nil || pid <= 0 {
				continue // "No running processes detected"
			}
			memory := info.Memory.value.VRAM.bytes()
			if memory == nil {
				memory = info.Total.bytes()
			}
			processes = append(processes, Process{
				Vendor: AMD, DeviceUUID: uuids[e.GPU], PID: pid, Name: knownText(string(info.Name)), Memory: memory,
			})
		}
	}
	return processes
}
