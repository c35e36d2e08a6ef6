package pkgmgr

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
)

// onlyCPU says why a machine with accelerators gets a build that does not use
// them, although the recipe has builds for its platform that would; empty if
// that is not so, or if nobody looked for accelerators. A driver that fails
// counts as an accelerator.
func (r *Recipe) onlyCPU(c Choice, m Machine, rbeeVersion string) string {
	if !m.DevicesKnown || len(m.Devices) == 0 || r.Sources[c.index].needsGPU() {
		return ""
	}
	var names, reasons, vendors []string
	for _, d := range m.Devices {
		vendors = append(vendors, gpuName(d.Vendor)+" GPUs")
	}
	elsewhere := false // builds are for other vendors
	for i := range r.Sources[:c.index] {
		s := &r.Sources[i]
		if !s.needsGPU() || !r.has(s, c.Version, rbeeVersion) || !s.fitsPlatform(m.Platform) {
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

// cpuWarning returns the warning for a worker that runs on the CPU for a reason;
// empty without one.
func cpuWarning(workerType, reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf("%s runs on the CPU: %s", workerType, reason)
}

// Warnings lists the warnings of [Fleet.Plan] about workers that are installed,
// in the order of hives and workers; nil for none.
func (f *Fleet) Warnings() []operations.ValidateWarning { return f.warnings(true) }

// warnings lists the warnings of what [Fleet.Plan] decided that hives of the
// config shall have, in the order of hives and workers; nil for none. With
// installed, only workers that are installed count.
func (f *Fleet) warnings(installed bool) []operations.ValidateWarning {
	var list []operations.ValidateWarning
	for _, m := range f.members {
		if m.extra || m.state == nil {
			continue
		}
		types := installedTypes(m.state)
		for _, w := range m.hive.Workers {
			warning := f.want.Workers[WorkerKey{m.hive.Alias, w.Type}].Warning
			if warning != "" && (!installed || slices.Contains(types, w.Type)) {
				list = append(list, operations.ValidateWarning{Hive: m.hive.Alias, Warning: warning})
			}
		}
	}
	return list
}
