package gpu

import (
	"os"
	"strconv"
	"strings"
)

// withAPUMemory corrects the memory sizes of AMD devices that are part of a processor (APUs).
// The tools and the mem_info_vram files report only the carve-out that the firmware reserves,
// often 512 MiB. The driver also maps main memory through the graphics translation table
// (GTT), and the device can use the sum of both. withAPUMemory does not change devices
// without a card in sysfs and devices with dedicated memory.
func (d *Detector) withAPUMemory(devices []Device, cards []card) []Device {
	for i := range devices {
		g := &devices[i]
		for _, c := range cards {
			if g.Error == "" && g.PCIBusID != "" && c.bus == g.PCIBusID {
				c.setAPUMemory(g, d.memoryAvailable)
			}
		}
	}
	return devices
}

// setAPUMemory sets the memory of g to the sum of carve-out and GTT if the card c is an APU.
// The GTT is a limit and not a reservation, so its free memory is limited by the available
// main memory. available returns the available main memory in bytes, or 0 if unknown.
func (c card) setAPUMemory(g *Device, available func() uint64) {
	vram, gtt := c.bytes("mem_info_vram_total"), c.bytes("mem_info_gtt_total")
	if gtt == nil || *gtt == 0 || !c.integrated(orZero(vram)) {
		return
	}
	vramUsed, gttUsed := c.bytes("mem_info_vram_used"), c.bytes("mem_info_gtt_used")
	g.Unified = true
	g.MemoryTotal = orZero(vram) + *gtt
	g.MemoryUsed, g.MemoryFree = nil, nil
	if vramUsed == nil || gttUsed == nil {
		return
	}
	g.MemoryUsed = new(*vramUsed + *gttUsed)
	vramFree, gttFree := orZero(difference(orZero(vram), vramUsed)), orZero(difference(*gtt, gttUsed))
	if n := available(); n > 0 {
		gttFree = min(gttFree, n)
	}
	g.MemoryFree = new(vramFree + gttFree)
}

// integrated reports whether the card is part of a processor. Memory sizes do not distinguish
// them: every card has a GTT, by default half the size of the main memory, and the carve-out
// of an APU can be 96 GiB. AMD uses the PCI device IDs 0x1100 to 0x1fff and 0x9800 to 0x9fff
// for APUs, and 0x6600 to 0x7fff for cards; see pciidlist in the kernel's
// drivers/gpu/drm/amd/amdgpu/amdgpu_drv.c. integrated considers a device with another ID an
// APU if its dedicated memory, vram, is less than 2 GiB, which is too small for an engine.
func (c card) integrated(vram uint64) bool {
	id, err := strconv.ParseUint(c.device, 0, 16)
	switch {
	case err != nil:
		return false
	case 0x1100 <= id && id <= 0x1fff, 0x9800 <= id && id <= 0x9fff:
		return true
	case 0x6600 <= id && id <= 0x7fff:
		return false
	default:
		return vram < 2<<30
	}
}

// memoryAvailable returns the main memory that is available without swapping, in bytes; 0 if
// unknown.
func (d *Detector) memoryAvailable() uint64 {
	data, err := os.ReadFile(d.proc() + "/meminfo")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), "MemAvailable:")
	rest = strings.TrimSpace(rest)
	if end := strings.IndexByte(rest, ' '); end > 0 {
		rest = rest[:end]
	}
	kib, err := strconv.ParseUint(rest, 10, 54)
	if err != nil {
		return 0
	}
	return kib << 10
}
