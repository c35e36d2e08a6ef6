package gpu

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const xpuSMI = "xpu-smi"

// intel returns the discrete Intel devices in sysfs, with details from xpu-smi if it is
// installed. Integrated GPUs are on PCI bus 0, discrete ones are not.
func (d *Detector) intel(ctx context.Context, cards []card) []Device {
	cards = slices.DeleteFunc(cards, func(c card) bool { return onRootBus(c.bus) })
	if len(cards) == 0 {
		return nil
	}
	devices := intelKernelDevices(cards)
	details, err := d.xpuDevices(ctx)
	for i, g := range devices {
		j := slices.IndexFunc(details, func(x xpuDevice) bool { return busID(string(x.BDF)) == g.PCIBusID })
		if j >= 0 {
			devices[i] = details[j].fill(g)
		} else if err != nil && !isNotInstalled(err) && g.Error == "" {
			devices[i].Error = err.Error()
		}
	}
	return devices
}

func onRootBus(bus string) bool {
	_, rest, _ := strings.Cut(bus, ":")
	return strings.HasPrefix(rest, "00:")
}

// intelKernelDevices returns the devices from the files of the drivers xe and i915. xe
// reports the memory of each tile.
func intelKernelDevices(cards []card) []Device {
	var devices []Device
	for i, c := range cards {
		if c.driver != "xe" && c.driver != "i915" {
			devices = append(devices, brokenDevices(Intel, cards[i:i+1], "the device uses neither the xe nor the i915 driver")...)
			continue
		}
		g := Device{Index: i, Vendor: Intel, PCIBusID: c.bus, Name: "Intel GPU " + c.device, Driver: c.driver}
		for _, pattern := range []string{"tile*/physical_vram_size_bytes", "drm/card*/lmem_total_bytes"} {
			for _, f := range glob(c.fs, c.dir, pattern) {
				g.MemoryTotal += orZero(readBytes(c.fs, f))
			}
			if g.MemoryTotal > 0 {
				break
			}
		}
		devices = append(devices, g)
	}
	return devices
}

// xpuDevice is an entry of device_list in the JSON of `xpu-smi discovery -j`, and the JSON of
// `xpu-smi discovery -d N -j`, which has more details; see
// https://intel.github.io/xpumanager/smi_user_guide.html
type xpuDevice struct {
	ID       int  `json:"device_id"`
	Name     text `json:"device_name"`
	BDF      text `json:"pci_bdf_address"`
	UUID     text `json:"uuid"`
	Driver   text `json:"driver_version"`
	Function text `json:"device_function_type"`
	Memory   text `json:"memory_physical_size_byte"`

	stats xpuStats
}

// xpuStats is the JSON of `xpu-smi stats -d N -j`. For a device with several tiles, some
// metrics may exist only for the tiles.
type xpuStats struct {
	Device []xpuMetric `json:"device_level"`
	Tiles  []struct {
		List []xpuMetric `json:"data_list"`
	} `json:"tile_level"`
}

type xpuMetric struct {
	Type  text `json:"metrics_type"`
	Value text `json:"value"`
}

// xpuDevices returns the devices that xpu-smi lists. It requests the details and metrics of
// all devices in parallel because the tool needs some time to measure.
func (d *Detector) xpuDevices(ctx context.Context) ([]xpuDevice, error) {
	r, err := d.runTool(ctx, xpuSMI, "discovery", "-j")
	if err != nil {
		return nil, err
	}
	devices, err := parseXPU(r.Stdout)
	if err != nil {
		return nil, &toolError{tool: xpuSMI, message: xpuSMI + ": " + err.Error()}
	}
	stats := make([]xpuStats, len(devices))
	var wg sync.WaitGroup
	for i, x := range devices {
		id := strconv.Itoa(x.ID)
		wg.Go(func() {
			r, err := d.runTool(ctx, xpuSMI, "discovery", "-d", id, "-j")
			if err != nil {
				return // keep the entry of the list
			}
			if detail, err := parseXPU(r.Stdout); err == nil && len(detail) == 1 {
				devices[i] = detail[0]
			}
		})
		wg.Go(func() {
			if r, err := d.runTool(ctx, xpuSMI, "stats", "-d", id, "-j"); err == nil {
				stats[i] = parseXPUStats(r.Stdout)
			}
		})
	}
	wg.Wait()
	for i := range devices {
		devices[i].stats = stats[i]
	}
	return devices, nil
}

// parseXPUStats parses the metrics. It returns no metrics for an unknown format, because the
// metrics depend on the version of the tool.
func parseXPUStats(out []byte) (s xpuStats) {
	doc, err := jsonPart(out)
	if err != nil || json.Unmarshal(doc, &s) != nil {
		return xpuStats{}
	}
	return s
}

func metric(list []xpuMetric, name string) *float64 {
	for _, m := range list {
		if string(m.Type) == name {
			return number(string(m.Value))
		}
	}
	return nil
}

// memoryUsed returns the used memory in bytes of a device with a total. xpu-smi reports MiB,
// but some versions report bytes. memoryUsed assumes bytes if a value in MiB would exceed the
// total. It returns nil if the value is unknown or exceeds the total in both units.
func (s xpuStats) memoryUsed(total uint64) *uint64 {
	const name = "XPUM_STATS_MEMORY_USED"
	used := metric(s.Device, name)
	if used == nil {
		for _, tile := range s.Tiles {
			if part := metric(tile.List, name); part != nil {
				used = new(*part + orZero(used))
			}
		}
	}
	if n := toBytes(used, 1<<20); n != nil && (total == 0 || *n <= total) {
		return n
	}
	if n := toBytes(used, 1); n != nil && total > 0 && *n <= total {
		return n
	}
	return nil
}

// parseXPU parses a list of devices or the details of one device. It omits virtual functions,
// which are parts of a physical device.
func parseXPU(out []byte) ([]xpuDevice, error) {
	doc, err := jsonPart(out)
	if err != nil {
		return nil, err
	}
	var output struct {
		xpuDevice
		List  []xpuDevice `json:"device_list"`
		Error text        `json:"error"`
	}
	if err := json.Unmarshal(doc, &output); err != nil {
		return nil, err
	}
	if output.Error != "" {
		return nil, &toolError{tool: xpuSMI, message: oneLine(string(output.Error))}
	}
	if output.List == nil && output.BDF != "" {
		return []xpuDevice{output.xpuDevice}, nil
	}
	return slices.DeleteFunc(output.List, func(x xpuDevice) bool { return strings.EqualFold(string(x.Function), "virtual") }), nil
}

// fill returns g, the device from sysfs, with the values of the tool.
func (x xpuDevice) fill(g Device) Device {
	g.Index = x.ID
	g.UUID = knownText(string(x.UUID))
	g.Name = cmp.Or(knownText(string(x.Name)), g.Name)
	g.Driver = cmp.Or(knownText(string(x.Driver)), g.Driver)
	g.MemoryTotal = cmp.Or(orZero(toBytes(number(string(x.Memory)), 1)), g.MemoryTotal)
	g.MemoryUsed = x.stats.memoryUsed(g.MemoryTotal)
	g.MemoryFree = difference(g.MemoryTotal, g.MemoryUsed)
	g.Utilization = metric(x.stats.Device, "XPUM_STATS_GPU_UTILIZATION")
	g.Temperature = metric(x.stats.Device, "XPUM_STATS_GPU_CORE_TEMPERATURE")
	g.Power = metric(x.stats.Device, "XPUM_STATS_POWER")
	return g
}

// intelProcesses returns the processes that `xpu-smi ps` lists, except xpu-smi itself. The
// tool reports memory in units of 1000 bytes.
func (d *Detector) intelProcesses(ctx context.Context) ([]Process, error) {
	cards := cardsOf(d.pciCards(), Intel)
	if !slices.ContainsFunc(cards, func(c card) bool { return !onRootBus(c.bus) }) {
		return nil, nil
	}
	r, err := d.runTool(ctx, xpuSMI, "ps", "-j")
	if isNotInstalled(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	discovery, err := d.runTool(ctx, xpuSMI, "discovery", "-j")
	if err != nil {
		return nil, err
	}
	devices, err := parseXPU(discovery.Stdout)
	if err != nil {
		return nil, err
	}
	return parseXPUProcesses(r.Stdout, devices)
}

func parseXPUProcesses(out []byte, devices []xpuDevice) ([]Process, error) {
	doc, err := jsonPart(out)
	if err != nil {
		return nil, &toolError{tool: xpuSMI, message: xpuSMI + " ps: " + err.Error()}
	}
	var output struct {
		List []struct {
			Device int  `json:"device_id"`
			PID    int  `json:"process_id"`
			Name   text `json:"process_name"`
			Memory text `json:"mem_size"`
		} `json:"device_util_by_proc_list"`
	}
	if err := json.Unmarshal(doc, &output); err != nil {
		return nil, &toolError{tool: xpuSMI, message: xpuSMI + " ps: " + err.Error()}
	}
	uuids := map[int]string{}
	for _, x := range devices {
		uuids[x.ID] = knownText(string(x.UUID))
	}
	var processes []Process
	for _, p := range output.List {
		if p.PID > 0 && p.Name != xpuSMI {
			processes = append(processes, Process{
				Vendor: Intel, DeviceUUID: uuids[p.Device], PID: p.PID, Name: knownText(string(p.Name)),
				Memory: toBytes(number(string(p.Memory)), 1000),
			})
		}
	}
	return processes, nil
}
