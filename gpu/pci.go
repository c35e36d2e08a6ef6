package gpu

import (
	"path"
	"strings"
)

// card is a display controller or accelerator on the PCI bus, as sysfs has it.
// https://docs.kernel.org/PCI/sysfs-pci.html
type card struct {
	vendor Vendor
	bus    string // "0000:41:00.0"
	device string // the PCI device id, "0x2330"
	driver string // the kernel driver bound to it, or ""
	fs     sysfs
	dir    string // its folder under /sys, relative to that
}

// pciCards lists the cards of the three vendors, sorted by address. It is
// empty where there is no PCI bus to be seen.
func (d *Detector) pciCards() []card {
	const root = "bus/pci/devices"
	fs := d.sysfs()
	var cards []card
	for _, name := range fs.list(root) {
		c := card{bus: busID(name), fs: fs, dir: path.Join(root, name)}
		var ok bool
		if c.vendor, ok = pciVendor(c.line("vendor")); !ok || !isAccelerator(c.line("class")) {
			continue
		}
		c.device = c.line("device")
		if link := fs.link(path.Join(c.dir, "driver")); link != "" {
			c.driver = path.Base(link)
		}
		cards = append(cards, c)
	}
	return cards
}

func pciVendor(id string) (Vendor, bool) {
	switch id {
	case "0x10de":
		return NVIDIA, true
	case "0x1002":
		return AMD, true
	case "0x8086":
		return Intel, true
	}
	return "", false
}

// isAccelerator is true for display controllers (base class 03, all the usual
// GPUs) and processing accelerators (12, AMD's newer Instincts).
func isAccelerator(class string) bool {
	return strings.HasPrefix(class, "0x03") || strings.HasPrefix(class, "0x12")
}

func of(cards []card, vendor Vendor) []card {
	var its []card
	for _, c := range cards {
		if c.vendor == vendor {
			its = append(its, c)
		}
	}
	return its
}

// broken makes a device of each card, all with the same reason why they cannot
// be used. Where sysfs shows no card, the reason alone is the device.
func broken(vendor Vendor, cards []card, why string) []Device {
	if len(cards) == 0 {
		return []Device{{Index: -1, Vendor: vendor, Error: why}}
	}
	var devices []Device
	for _, c := range cards {
		devices = append(devices, Device{Index: -1, Vendor: vendor, PCIBusID: c.bus, Error: why + c.boundTo()})
	}
	return devices
}

// boundTo tells of a driver that explains much, such as vfio-pci (the card was
// given to a virtual machine) or nouveau.
func (c card) boundTo() string {
	switch c.driver {
	case "":
		return " (no driver is bound to the device)"
	case "nvidia", "amdgpu", "i915", "xe":
		return ""
	}
	return " (the device is bound to the driver " + c.driver + ")"
}

// line returns the text of one of the card's files without the white space around
// it, or "".
func (c card) line(name string) string { return readLine(c.fs, path.Join(c.dir, name)) }

// bytes returns the number of bytes in one of the card's files; nil if there is none.
func (c card) bytes(name string) *uint64 { return readBytes(c.fs, path.Join(c.dir, name)) }
