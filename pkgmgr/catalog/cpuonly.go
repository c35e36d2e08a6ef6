package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// NoGPUReason returns why a machine with accelerators gets the build of a version that
// uses none of them; empty if it gets another build. version may be empty, for any.
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

// CPUFallbackReason says why a machine with accelerators gets a build that does not use
// them, although the recipe has builds for its platform that would; empty if
// that is not so, or if nobody looked for accelerators. A driver that fails
// counts as an accelerator.
func (r *Recipe) CPUFallbackReason(c Choice, m Machine, rbeeVersion string) string {
	if !m.DevicesKnown || len(m.Devices) == 0 || r.Sources[c.Index].needsGPU() {
		return ""
	}
	var names, reasons, vendors []string
	for _, d := range m.Devices {
		vendors = append(vendors, gpuName(d.Vendor)+" GPUs")
	}
	elsewhere := false // builds are for other vendors
	for i := range r.Sources[:c.Index] {
		s := &r.Sources[i]
		if !s.needsGPU() || !r.Has(s, c.Version, rbeeVersion) || !s.FitsPlatform(m.Platform) {
			continue
		}
		if !slices.ContainsFunc(m.Devices, func(d gpu.Device) bool { return s.GPU == "any" || s.GPU == string(d.Vendor) }) {
			elsewhere = true
			continue
		}
		if ok, why := s.fitsMachine(m); !ok {
			names, reasons = append(names, s.named(why)), append(reasons, why)
		}
	}
	once := unique(reasons)
	switch {
	case len(once) > 1:
		return strings.Join(unique(names), "; ")
	case len(once) == 1:
		return once[0]
	case elsewhere:
		return "it has no build for " + strings.Join(unique(vendors), " or ")
	default:
		return ""
	}
}

// CPUWarning returns the warning for a worker that runs on the CPU for a reason;
// empty without one.
func CPUWarning(workerType, reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf("%s runs on the CPU: %s", workerType, reason)
}
