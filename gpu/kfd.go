package gpu

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// hipOrder numbers AMD's devices as HIP does, which is what HIP_VISIBLE_DEVICES
// counts: in the order of the kernel's compute nodes. The tools count by PCI
// address, and that can be another order. If not every device is found among the
// nodes exactly once, as in partitioned ones, all keep their tool's number.
func (d *Detector) hipOrder(devices []Device) []Device {
	nodes := d.kfdNodes()
	numbered := slices.Clone(devices)
	taken := map[int]bool{}
	for i, g := range numbered {
		if g.Error != "" {
			continue
		}
		n := slices.Index(nodes, g.PCIBusID)
		if n < 0 || g.PCIBusID == "" || taken[n] {
			return devices
		}
		taken[n] = true
		numbered[i].Index = n
	}
	return numbered
}

// kfdNodes are the PCI addresses of the compute nodes that are GPUs, by node. A
// node that this user may not use cannot be read, and HIP leaves it out as well.
// location_id is bus, device and function as in a PCI address; see struct
// kfd_node_properties in the kernel's drivers/gpu/drm/amd/amdkfd/kfd_topology.h.
func (d *Detector) kfdNodes() []string {
	root := filepath.Join(d.sys(), "class/kfd/kfd/topology/nodes")
	entries, _ := os.ReadDir(root)
	var numbers []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	var nodes []string
	for _, n := range numbers {
		if bus := parseKFDNode(readLine(filepath.Join(root, strconv.Itoa(n)), "properties")); bus != "" {
			nodes = append(nodes, bus)
		}
	}
	return nodes
}

// parseKFDNode is the PCI address of a node that is a GPU, else "".
func parseKFDNode(properties string) string {
	values := map[string]uint64{}
	for line := range strings.Lines(properties) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			values[key] = n
		}
	}
	if values["simd_count"] == 0 || values["vendor_id"] != 0x1002 {
		return "" // a CPU
	}
	location, domain := values["location_id"], values["domain"]
	digits := func(n uint64, width int) string {
		s := strconv.FormatUint(n, 16)
		return strings.Repeat("0", max(0, width-len(s))) + s
	}
	return busID(digits(domain, 4) + ":" + digits(location>>8&0xff, 2) + ":" + digits(location>>3&0x1f, 2) + "." + digits(location&7, 1))
}
