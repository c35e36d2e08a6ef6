package gpu

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// card is a display controller or accelerator on the PCI bus, as sysfs has it.
// https://docs.kernel.org/PCI/sysfs-pci.html
type card struct {
	vendor Vendor
	bus    string // "0000:41:00.0"
	device string // the PCI device id, "0x2330"
	driver string // the kernel driver bound to it, or ""
	dir    string // its folder under /sys
}

// pciCards lists the cards of the three vendors, sorted by address. It is
// empty where there is no PCI bus to be seen.
func (d *Detector) pciCards() []card {
	root := filepath.Join(d.sys(), "bus/pci/devices")
	entries, _ := os.ReadDir(root) // sorted by name
	var cards []card
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		vendor, ok := pciVendor(readLine(dir, "vendor"))
		if !ok || !isAccelerator(readLine(dir, "class")) {
			continue
		}
		c := card{vendor: vendor, bus: busID(e.Name()), device: readLine(dir, "device"), dir: dir}
		if link, err := os.Readlink(filepath.Join(dir, "driver")); err == nil {
			c.driver = filepath.Base(link)
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

// readLine is a small file's text without the white space around it, or "".
func readLine(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// readBytes is a file that holds a number of bytes; nil if there is none.
func readBytes(dir, name string) *uint64 {
	n, err := strconv.ParseUint(readLine(dir, name), 0, 63)
	if err != nil {
		return nil
	}
	return &n
}
