package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// NoGPUReason returns the reason why Choose selects a CPU build of a version for a machine
// with accelerators, or "" if it selects another build. An empty version means any version.
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

// CPUFallbackReason returns the reason why choice c is a build that does not use the
// machine's accelerators, although the recipe has GPU builds for its platform. It returns
// "" if the build uses them or accelerators were not probed. Accelerators include GPUs whose
// driver fails.
func (r *Recipe) CPUFallbackReason(c Choice, m Machine, rbeeVersion string) string {
	if !m.DevicesKnown || len(m.Devices) == 0 || r.Sources[c.Index].needsGPU() {
		return ""
	}
	var names, reasons, vendors []string
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
		if ok, reason := s.fitsMachine(m); !ok {
			names, reasons = append(names, s.withName(reason)), append(reasons, reason)
		}
	}
	distinct := unique(reasons)
	switch {
	case len(distinct) > 1:
		return strings.Join(unique(names), "; ")
	case len(distinct) == 1:
		return distinct[0]
	case otherVendors:
		return "it has no build for " + strings.Join(unique(vendors), " or ")
	default:
		return ""
	}
}

// CPUWarning returns the warning for a worker that runs on the CPU for a reason, or "" if
// the reason is empty.
func CPUWarning(workerType, reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf("%s runs on the CPU: %s", workerType, reason)
}
