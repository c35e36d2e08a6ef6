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

// amd lists the AMD devices: by amd-smi, else by rocm-smi, else by the kernel
// driver's files. cards are those that sysfs shows.
func (d *Detector) amd(ctx context.Context, cards []card) []Device {
	devices, err := d.amdDevices(ctx)
	if err != nil {
		var older error
		devices, older = d.rocmDevices(ctx)
		if missing(err) || older == nil {
			err = older
		}
	}
	switch {
	case len(devices) > 0:
		return d.sharedMemory(devices, cards)
	case len(cards) == 0:
		return nil // a tool without a card is no device
	case err != nil && !missing(err):
		return broken(AMD, cards, err.Error())
	}
	return d.sharedMemory(amdKernelDevices(cards), cards)
}

// amdKernelDevices reads amdgpu's files; see
// https://docs.kernel.org/gpu/amdgpu/driver-misc.html
func amdKernelDevices(cards []card) []Device {
	var devices []Device
	for i, c := range cards {
		if c.driver != "amdgpu" {
			devices = append(devices, broken(AMD, cards[i:i+1], "the amdgpu driver does not run this device")...)
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
		g.MemoryFree = less(g.MemoryTotal, g.MemoryUsed)
		devices = append(devices, g)
	}
	return devices
}

// The parts of amd-smi's JSON that are used. Older releases print an array of
// devices, newer ones an object with that array under "gpu_data"; see
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
			Total quantity `json:"mem_usage"` // where there is no memory_usage
		}] `json:"process_info"`
	} `json:"process_list"`
}

// amdDevices asks amd-smi three things at once. What is static must be known;
// the rest may be missing.
func (d *Detector) amdDevices(ctx context.Context) ([]Device, error) {
	var static, list, metric []amdEntry
	var failed error
	var all sync.WaitGroup
	all.Go(func() {
		static, failed = d.askAMD(ctx, "static", "--asic", "--bus", "--driver", "--vram", "--json")
	})
	all.Go(func() { list, _ = d.askAMD(ctx, "list", "--json") })
	all.Go(func() {
		metric, _ = d.askAMD(ctx, "metric", "--usage", "--power", "--temperature", "--mem-usage", "--json")
	})
	all.Wait()
	if failed != nil {
		return nil, failed
	}
	return joinAMD(static, list, metric), nil
}

func (d *Detector) askAMD(ctx context.Context, args ...string) ([]amdEntry, error) {
	r, err := d.ask(ctx, amdSMI, args...)
	entries, bad := parseAMD(r.Stdout)
	switch {
	case bad == nil && len(entries) > 0:
		return entries, nil // also if it ended with a warning's exit code
	case err != nil:
		return nil, err
	case bad != nil:
		return nil, &toolError{tool: amdSMI, words: fmt.Sprintf("amd-smi %s: %v: %s", args[0], bad, oneLine(string(r.Stdout)))}
	}
	return entries, nil
}

// parseAMD reads the JSON of any of amd-smi's commands, in both shapes.
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

// joinAMD makes devices of what the commands said about each index.
func joinAMD(static, list, metric []amdEntry) []Device {
	devices := map[int]Device{}
	for _, e := range static {
		devices[e.GPU] = Device{
			Index: e.GPU, Vendor: AMD,
			Name:         known(string(e.ASIC.value.MarketName)),
			Architecture: architecture(string(e.ASIC.value.Graphics)),
			PCIBusID:     busID(string(e.Bus.value.BDF)),
			Driver:       known(string(e.Driver.value.Version)),
			MemoryTotal:  orZero(e.VRAM.value.Size.bytes()),
		}
	}
	for _, e := range list {
		if g, ok := devices[e.GPU]; ok {
			g.UUID = known(string(e.UUID))
			if bus := busID(string(e.BDF)); bus != "" {
				g.PCIBusID = bus
			}
			devices[e.GPU] = g
		}
	}
	for _, e := range metric {
		if g, ok := devices[e.GPU]; ok {
			devices[e.GPU] = e.measured(g)
		}
	}
	return slices.Collect(maps.Values(devices))
}

// measured adds what `amd-smi metric` says. Instincts have no edge sensor.
func (e amdEntry) measured(g Device) Device {
	memory := e.Memory.value
	if g.MemoryTotal == 0 {
		g.MemoryTotal = orZero(memory.Total.bytes())
	}
	g.MemoryUsed, g.MemoryFree = memory.Used.bytes(), memory.Free.bytes()
	if g.MemoryFree == nil {
		g.MemoryFree = less(g.MemoryTotal, g.MemoryUsed)
	}
	g.Utilization = e.Usage.value.Graphics.value
	g.Power = e.Power.value.Socket.value
	g.Temperature = e.Temperature.value.Edge.value
	if g.Temperature == nil {
		g.Temperature = e.Temperature.value.Hotspot.value
	}
	return g
}

// amdProcesses lists what amd-smi sees, else what rocm-smi does.
func (d *Detector) amdProcesses(ctx context.Context) ([]Process, error) {
	if len(of(d.pciCards(), AMD)) == 0 {
		return nil, nil
	}
	var entries, list []amdEntry
	var failed error
	var all sync.WaitGroup
	all.Go(func() { entries, failed = d.askAMD(ctx, "process", "--json") })
	all.Go(func() { list, _ = d.askAMD(ctx, "list", "--json") })
	all.Wait()
	if failed == nil {
		return joinAMDProcesses(entries, list), nil
	}
	processes, older := d.rocmProcesses(ctx)
	switch {
	case older == nil:
		return processes, nil
	case !missing(failed):
		return nil, failed
	case !missing(older):
		return nil, older
	}
	return nil, nil // no tool, nobody to ask
}

func joinAMDProcesses(entries, list []amdEntry) []Process {
	uuids := map[int]string{}
	for _, e := range list {
		uuids[e.GPU] = known(string(e.UUID))
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
				Vendor: AMD, DeviceUUID: uuids[e.GPU], PID: pid, Name: known(string(info.Name)), Memory: memory,
			})
		}
	}
	return processes
}
