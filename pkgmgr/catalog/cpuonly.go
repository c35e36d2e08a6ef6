package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// NoGPUReason returns why [Recipe.Choose] selects a source with gpu: none for a machine with
// accelerators: the complete reason of the choice. It returns "" if Choose returns an error or
// selects another source. An empty version means any version. Unlike
// [Recipe.CPUFallbackReason], NoGPUReason makes the choice itself and also lists sources for
// other vendors.
func (r *Recipe) NoGPUReason(version string, m Machine) string {
	if len(m.Devices) == 0 {
		return ""
	}
	choice, err := r.Choose(version, m, "")
	if err != nil || choice.Source.GPU != wire.NoGPU {
		return ""
	}
	return choice.Reason
}

// CPUFallbackReason returns why c, a choice for machine m, does not require an accelerator
// although m has accelerators and the recipe has GPU sources for its platform. It returns "" if
// c requires an accelerator, or if the accelerators were not probed. GPUs whose driver fails
// count as accelerators. Unlike [Recipe.NoGPUReason], CPUFallbackReason lists only the unmet
// requirements of sources for the vendors of the machine.
func (r *Recipe) CPUFallbackReason(c Choice, m Machine, rbeeVersion string) string {
	if !m.DevicesKnown || len(m.Devices) == 0 || r.Sources[c.Index].needsGPU() {
		return ""
	}
	var namedReasons, reasons, vendors []string
	for _, d := range m.Devices {
		vendors = append(vendors, vendorName(d.Vendor)+" GPUs")
	}
	otherVendors := false // the recipe has builds for GPUs of other vendors
	for i := range r.Sources[:c.Index] {
		s := &r.Sources[i]
		if !s.needsGPU() || !r.Has(s, c.Version, rbeeVersion) || !s.FitsPlatform(m.Platform) {
			continue
		}
		if !slices.ContainsFunc(m.Devices, func(d gpu.Device) bool { return s.GPU == "any" || s.GPU == string(d.Vendor) }) {
			otherVendors = true
			continue
		}
		if ok, reason := s.checkMachine(m); !ok {
			namedReasons, reasons = append(namedReasons, s.prefixName(reason)), append(reasons, reason)
		}
	}
	distinct := unique(reasons)
	switch {
	case len(distinct) > 1:
		return strings.Join(unique(namedReasons), "; ")
	case len(distinct) == 1:
		return distinct[0]
	case otherVendors:
		return "it has no build for " + strings.Join(unique(vendors), " or ")
	default:
		return ""
	}
}

// CPUWarning returns the warning that a worker runs on the CPU, or "" if reason is empty.
func CPUWarning(workerType, reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf("%s runs on the CPU: %s", workerType, reason)
}
