package gpu

import (
	"path"
	"strings"
)

// card is a display controller or accelerator in the PCI devices of sysfs; see
// https://docs.kernel.org/PCI/sysfs-pci.html
type card struct {
	vendor Vendor
	bus    string // "0000:41:00.0"
	device string // the PCI device ID, "0x2330"
	driver string // the kernel driver bound to it, or ""
	fs     sysfs
	dir    string // its directory, relative to /sys
}

// pciCards returns the cards of NVIDIA, AMD and Intel, sorted by address. It returns none if
// the machine has no visible PCI bus.
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

// isAccelerator reports whether a PCI class is a display controller (base class 03, most
// GPUs) or a processing accelerator (base class 12, newer AMD Instinct devices).
func isAccelerator(class string) bool {
	return strings.HasPrefix(class, "0x03") || strings.HasPrefix(class, "0x12")
}

// cardsOf returns the cards of a vendor.
func cardsOf(cards []card, vendor Vendor) []card {
	var matching []card
	for _, c := range cards {
		if c.vendor == vendor {
			matching = append(matching, c)
		}
	}
	return matching
}

// brokenDevices returns a device with an error for each card. Without cards, it returns one
// device with the error.
func brokenDevices(vendor Vendor, cards []card, reason string) []Device {
	if len(cards) == 0 {
		return []Device{{Index: -1, Vendor: vendor, Error: reason}}
	}
	var devices []Device
	for _, c := range cards {
		devices = append(devices, Device{Index: -1, Vendor: vendor, PCIBusID: c.bus, Error: reason + c.driverNote()})
	}
	return devices
}

// driverNote returns a note about the driver of a card that is not the vendor's driver, such as
// vfio-pci (for a virtual machine) or nouveau.
func (c card) driverNote() string {
	switch c.driver {
	case "":
		return " (no driver is bound to the device)"
	case "nvidia", "amdgpu", "i915", "xe":
		return ""
	}
	return " (the device is bound to the driver " + c.driver + ")"
}

// line returns the contents of a file of the card without leading and trailing white space.
func (c card) line(name string) string { return readLine(c.fs, path.Join(c.dir, name)) }

// bytes parses a number of bytes in a file of the card. It returns nil if the file does not
// contain one.
func (c card) bytes(name string) *uint64 { return readBytes(c.fs, path.Join(c.dir, name)) }
