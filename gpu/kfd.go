package gpu

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// withHIPIndices returns AMD devices with the indices of HIP_VISIBLE_DEVICES, which follow the
// order of the kernel's compute nodes. The indices of the tools follow the order of the PCI
// addresses, which can differ. If a device does not match a node, for example because devices
// are partitioned, withHIPIndices does not change the indices.
func (d *Detector) withHIPIndices(devices []Device) []Device {
	nodes := d.kfdNodes()
	addresses := make([]string, len(nodes))
	for i, n := range nodes {
		addresses[i] = n.bus
	}
	result := slices.Clone(devices)
	used := map[int]bool{} // indices
	for i, g := range result {
		if g.Error != "" {
			continue
		}
		n := slices.Index(addresses, g.PCIBusID)
		if n < 0 || g.PCIBusID == "" || used[n] {
			return devices
		}
		used[n] = true
		result[i].Index = n
	}
	return result
}

// withArchitecture sets the architecture of devices from the kernel's compute nodes if the
// tool did not report it.
func (d *Detector) withArchitecture(devices []Device) []Device {
	for _, n := range d.kfdNodes() {
		for i := range devices {
			if g := &devices[i]; g.Error == "" && g.PCIBusID == n.bus {
				g.Architecture = cmp.Or(g.Architecture, n.architecture)
			}
		}
	}
	return devices
}

// kfdNode is a compute node of the kernel for a GPU.
type kfdNode struct {
	bus          string
	architecture string // such as "gfx942"; "" if unknown
}

// kfdNodes returns the compute nodes for GPUs, sorted by number. It omits nodes that the user
// cannot access, as HIP does.
func (d *Detector) kfdNodes() []kfdNode {
	const root = "class/kfd/kfd/topology/nodes"
	fs := d.sysfs()
	var numbers []int
	for _, name := range fs.list(root) {
		if n, err := strconv.Atoi(name); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	var nodes []kfdNode
	for _, n := range numbers {
		if node := parseKFDNode(readLine(fs, path.Join(root, strconv.Itoa(n), "properties"))); node.bus != "" {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// parseKFDNode parses the properties of a node. The result is empty if the node is not a GPU.
// location_id contains the bus, device and function of the PCI address; see struct
// kfd_node_properties in the kernel's drivers/gpu/drm/amd/amdkfd/kfd_topology.h.
func parseKFDNode(properties string) kfdNode {
	values := map[string]uint64{}
	for line := range strings.Lines(properties) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			values[key] = n
		}
	}
	if values["simd_count"] == 0 || values["vendor_id"] != 0x1002 {
		return kfdNode{} // a CPU or a GPU of another vendor
	}
	location, domain := values["location_id"], values["domain"]
	digits := func(n uint64, width int) string {
		s := strconv.FormatUint(n, 16)
		return strings.Repeat("0", max(0, width-len(s))) + s
	}
	node := kfdNode{bus: busID(digits(domain, 4) + ":" + digits(location>>8&0xff, 2) + ":" + digits(location>>3&0x1f, 2) + "." + digits(location&7, 1))}
	if v := values["gfx_target_version"]; v > 0 { // 90402 is gfx942, 90010 is gfx90a
		node.architecture = fmt.Sprintf("gfx%d%x%x", v/10000, v/100%100, v%100)
	}
	return node
}

// architecture returns the compiler's name of an architecture that a tool reports. rocm-smi
// prints the stepping in decimal ("gfx9010" for gfx90a), and some releases append features
// ("gfx90a:sramecc+:xnack-").
func architecture(s string) string {
	name, _, _ := strings.Cut(knownText(s), ":")
	if minor, isGFX9 := strings.CutPrefix(name, "gfx9"); isGFX9 && len(minor) == 3 {
		if stepping, err := strconv.ParseUint(minor[1:], 10, 8); err == nil {
			return "gfx9" + minor[:1] + strconv.FormatUint(stepping, 16)
		}
	}
	return name
}
