package wire

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
)

// ProbedLibraries are the sonames of the shared libraries that engines may need.
var ProbedLibraries = []string{
	"libOpenCL.so.1", "libcrypto.so.3", "libgomp.so.1", "libmpi_cxx.so.40", "libssl.so.3", "libvulkan.so.1", "libze_loader.so.1",
}

// Devices are the accelerators in a [State]. For compatibility with earlier versions of
// rbee, the JSON encoding of each device contains memory_total again as memory_bytes, and
// compute_capability again as compute.
type Devices []gpu.Device

// deviceJSON is a device with the additional keys of earlier versions.
type deviceJSON struct {
	gpu.Device

	MemoryBytes uint64 `json:"memory_bytes,omitempty"`
	Compute     string `json:"compute,omitempty"`
}

// MarshalJSON implements [json.Marshaler].
func (d Devices) MarshalJSON() ([]byte, error) {
	list := make([]deviceJSON, len(d))
	for i, dev := range d {
		list[i] = deviceJSON{Device: dev, MemoryBytes: dev.MemoryTotal, Compute: dev.ComputeCapability}
	}
	return json.Marshal(list)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (d *Devices) UnmarshalJSON(data []byte) error {
	var list []deviceJSON
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	*d = nil
	for _, e := range list {
		e.MemoryTotal = cmp.Or(e.MemoryTotal, e.MemoryBytes)
		e.ComputeCapability = cmp.Or(e.ComputeCapability, e.Compute)
		*d = append(*d, e.Device)
	}
	return nil
}

// NoGPU is the vendor in the [DeviceRequirements] of a build that does not use accelerators.
const NoGPU = "none"

// DeviceRequirements are the requirements of a build on an accelerator.
type DeviceRequirements struct {
	// Vendor is the vendor of the accelerator, "any" for any vendor, or [NoGPU].
	Vendor string `json:"vendor"`

	// Driver is the minimum driver version; empty for no minimum.
	Driver string `json:"driver,omitempty"`

	// Compute and ComputeMax are the lowest and highest supported compute
	// capabilities; empty for no limit.
	Compute    string `json:"compute,omitempty"`
	ComputeMax string `json:"compute_max,omitempty"`

	// Native are the compute capabilities that the build contains machine code for;
	// nil means all. On other devices the driver compiles PTX code, which requires at
	// least driver version PTXDriver.
	Native    []string `json:"native,omitempty"`
	PTXDriver string   `json:"ptx_driver,omitempty"`

	// Architectures are the AMD architectures that the build contains machine code
	// for, such as "gfx942"; nil means all.
	Architectures []string `json:"architectures,omitempty"`
}

// Unmet describes the first requirement that d does not meet, such as "driver 535 is older
// than 580"; it returns an empty string if d meets all requirements. It assumes that an
// unknown compute capability or architecture is sufficient.
func (n *DeviceRequirements) Unmet(d gpu.Device) string {
	driver := n.Driver
	if n.PTXDriver != "" && d.ComputeCapability != "" && !n.isNative(d.ComputeCapability) {
		driver = n.PTXDriver
	}
	switch {
	case n.Vendor == NoGPU:
		return "the build uses no accelerator"
	case n.Vendor != "" && n.Vendor != "any" && string(d.Vendor) != n.Vendor:
		return "the build is for " + n.Vendor
	case d.Error != "":
		return d.Error
	case n.Compute != "" && d.ComputeCapability != "" && compareNumbers(d.ComputeCapability, n.Compute) < 0:
		return fmt.Sprintf("compute capability %s, want at least %s", d.ComputeCapability, n.Compute)
	case n.ComputeMax != "" && d.ComputeCapability != "" && compareNumbers(d.ComputeCapability, n.ComputeMax) > 0:
		return fmt.Sprintf("compute capability %s, want at most %s", d.ComputeCapability, n.ComputeMax)
	case n.Architectures != nil && d.Architecture != "" && !slices.Contains(n.Architectures, d.Architecture):
		return fmt.Sprintf("architecture %s, want %s", d.Architecture, strings.Join(n.Architectures, " or "))
	case driver != "" && d.Driver == "":
		return "the driver version is unknown"
	case driver != "" && compareNumbers(d.Driver, driver) < 0 && driver != n.Driver:
		return fmt.Sprintf("driver %s is older than %s, which compute capability %s requires", d.Driver, driver, d.ComputeCapability)
	case driver != "" && compareNumbers(d.Driver, driver) < 0:
		return fmt.Sprintf("driver %s is older than %s", d.Driver, driver)
	}
	return ""
}

// isNative reports whether the build contains machine code that runs on a device with the
// given compute capability: code for the same major version and the same or a lower minor
// version.
func (n *DeviceRequirements) isNative(compute string) bool {
	if n.Native == nil {
		return true
	}
	major, _, _ := strings.Cut(compute, ".")
	for _, native := range n.Native {
		if m, _, _ := strings.Cut(native, "."); m == major && compareNumbers(native, compute) <= 0 {
			return true
		}
	}
	return false
}

// compareNumbers compares two dotted versions, such as "580.65.06". It uses only the leading
// digits of each part.
func compareNumbers(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		if c := cmp.Compare(leadingNumber(x), leadingNumber(y)); c != 0 {
			return c
		}
	}
	return 0
}

// leadingNumber returns the number at the start of s, or 0 if s does not start with a digit.
func leadingNumber(s string) int {
	end := 0
	for end < len(s) && '0' <= s[end] && s[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(s[:end])
	if err != nil {
		return 0
	}
	return n
}
