package gpu

import (
	"os"
	"strconv"
	"strings"
)

// sharedMemory corrects the memory of AMD devices inside processors (APUs). Their
// tools and the mem_info_vram files report the carve-out that the firmware reserves,
// often 512 MiB, while the driver also lends them main memory through the GTT: what
// such a device can use is the sum of both. Devices that have no card in sysfs, or
// whose card has memory of its own, stay unchanged.
func (d *Detector) sharedMemory(devices []Device, cards []card) []Device {
	for i := range devices {
		g := &devices[i]
		for _, c := range cards {
			if g.Error == "" && g.PCIBusID != "" && c.bus == g.PCIBusID {
				c.shareMemory(g, d.memoryAvailable)
			}
		}
	}
	return devices
}

// shareMemory sets the memory of g to that of the APU c: total and used are those of
// carve-out and GTT together. Free is limited by what the machine has available,
// because the GTT is a limit and not a reservation. available returns bytes; 0 means
// unknown.
func (c card) shareMemory(g *Device, available func() uint64) {
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
	own, lent := orZero(less(orZero(vram), vramUsed)), orZero(less(*gtt, gttUsed))
	if n := available(); n > 0 {
		lent = min(lent, n)
	}
	g.MemoryFree = new(own + lent)
}

// integrated reports whether the card is part of a processor. Sizes do not tell:
// every card has a GTT, by default of half the main memory, and the carve-out of an
// APU can be 96 GiB. PCI device ids do: AMD numbers APUs from 0x1100 to 0x1fff and
// from 0x9800 to 0x9fff, and cards from 0x6600 to 0x7fff; see pciidlist in the
// kernel's drivers/gpu/drm/amd/amdgpu/amdgpu_drv.c. An id in none of these ranges is
// taken for an APU if it has less memory of its own, vram bytes, than any card that
// an engine could use.
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

// memoryAvailable returns how many bytes of main memory programs can still get
// without swapping; 0 if unknown.
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
