package catalog

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// installHints maps each program and library that an engine may require to its purpose or
// to the packages that contain it.
var installHints = map[string]string{
	"cc":   "engines compile kernels with a C compiler when they start (install gcc or clang)",
	"c++":  "engines compile kernels with a C++ compiler when they start (install g++ or clang)",
	"nvcc": "kernels are compiled with the CUDA toolkit (install it, or set CUDA_HOME on the hive)",

	"libOpenCL.so.1":    "Debian: ocl-icd-libopencl1, Fedora: ocl-icd",
	"libcrypto.so.3":    "Debian: libssl3, Fedora: openssl-libs",
	"libgomp.so.1":      "Debian: libgomp1, Fedora: libgomp",
	"libmpi_cxx.so.40":  "Debian: libopenmpi3, part of Open MPI 4",
	"libssl.so.3":       "Debian: libssl3, Fedora: openssl-libs",
	"libvulkan.so.1":    "Debian: libvulkan1, Fedora: vulkan-loader",
	"libze_loader.so.1": "Debian: libze1, Fedora: oneapi-level-zero",
	"ROCm":              "https://rocm.docs.amd.com",
}

// parseConditions parses the requirements of a source into s.
func (c *recipeParser) parseConditions(e *sourceEntry, s *Source) {
	s.GPU = c.parseOneOf(e.GPU, "gpu", knownSourceGPU)
	s.Driver = c.parseNumber(e.Driver, "driver")
	s.Compute, s.ComputeMax = c.parseNumber(e.Compute, "compute"), c.parseNumber(e.ComputeMax, "compute_max")
	for _, v := range e.Native.V {
		s.Native = append(s.Native, c.parseNumber(v, "compute capability"))
	}
	s.PTXDriver = c.parseNumber(e.PTXDriver, "ptx_driver")
	s.ROCm = c.parseNumber(e.ROCm, "rocm")
	s.Architectures = c.parseArchitectures(e)
	s.Libraries = c.parseAllOf(e.Libraries, "library", wire.ProbedLibraries)
	if e.Driver.Set || e.Compute.Set {
		if !e.GPU.Set || s.GPU == wire.NoGPU {
			c.report(e.Pos, "for example gpu: nvidia", "source has driver or compute without gpu")
		}
	}
	for _, k := range []struct {
		at  strict.Pos
		key string
	}{{e.ComputeMax.Pos, "compute_max"}, {e.Native.Pos, "native"}, {e.PTXDriver.Pos, "ptx_driver"}, {e.ROCm.Pos, "rocm"}} {
		if k.at.Line > 0 && (!e.GPU.Set || s.GPU == wire.NoGPU) {
			c.report(k.at, "for example gpu: nvidia", "source has %s without gpu", k.key)
		}
	}
	if e.ROCm.Set && e.GPU.Set && s.GPU != "amd" {
		c.report(e.ROCm.Pos, "use gpu: amd", "cannot combine rocm with gpu: %s", s.GPU)
	}
	if s.ComputeMax != "" && s.Compute != "" && version.Compare(s.ComputeMax, s.Compute) < 0 {
		c.report(e.ComputeMax.Pos, "", "compute_max %s is lower than compute %s", s.ComputeMax, s.Compute)
	}
	switch {
	case e.PTXDriver.Set && len(s.Native) == 0:
		c.report(e.PTXDriver.Pos, "for example native: [\"8.6\", \"8.9\"]", "source has ptx_driver without native")
	case len(s.Native) > 0 && !e.PTXDriver.Set:
		c.report(e.Native.Pos, "for example ptx_driver: \"570\"", "source has native without ptx_driver")
	case s.PTXDriver != "" && s.Driver != "" && version.Compare(s.PTXDriver, s.Driver) < 0:
		c.report(e.PTXDriver.Pos, "", "ptx_driver %s is older than driver %s", s.PTXDriver, s.Driver)
	}
}

// parseArchitectures parses the AMD architectures that a source contains machine code for.
func (c *recipeParser) parseArchitectures(e *sourceEntry) []string {
	if e.Architectures.Pos.Line > 0 && e.GPU.V != "amd" {
		c.report(e.Architectures.Pos, "use gpu: amd", "source has architectures without gpu: amd")
	}
	var list []string
	for _, v := range e.Architectures.V {
		if !architectureName.MatchString(v.V) {
			c.report(v.Pos, "want an AMD architecture such as gfx942 or gfx1100", "invalid architecture %q", v.V)
			continue
		}
		list = append(list, v.V)
	}
	return list
}

var architectureName = regexp.MustCompile(`^gfx[1-9][0-9a-f]{2,3}$`)

// knownSourceGPU lists the values of a source's gpu key.
var knownSourceGPU = append(slices.Clip(knownGPU), wire.NoGPU)

// needsGPU reports whether the source requires an accelerator.
func (s *Source) needsGPU() bool { return s.GPU != "" && s.GPU != wire.NoGPU }

// deviceRequirements returns the requirements of the source for an accelerator, or nil if it
// has none.
func (s *Source) deviceRequirements() *wire.DeviceRequirements {
	if s.GPU == "" {
		return nil
	}
	return &wire.DeviceRequirements{
		Vendor: s.GPU, Driver: s.Driver, Compute: s.Compute, ComputeMax: s.ComputeMax, Native: s.Native, PTXDriver: s.PTXDriver,
		Architectures: s.Architectures,
	}
}

// describeMissingLibraries returns a message about the libraries that the source requires and
// the machine does not have. It returns "" if none is missing or libraries were not probed.
func (s *Source) describeMissingLibraries(m Machine) string {
	if m.Libraries == nil {
		return ""
	}
	var missing []string
	if s.ROCm != "" && m.ROCm != s.ROCm && !strings.HasPrefix(m.ROCm, s.ROCm+".") {
		hint := "install it: " + installHints["ROCm"]
		if m.ROCm != "" {
			hint = "installed: " + m.ROCm
		}
		missing = append(missing, fmt.Sprintf("ROCm %s is missing (%s)", s.ROCm, hint))
	}
	for _, l := range s.Libraries {
		if !slices.Contains(m.Libraries, l) {
			missing = append(missing, fmt.Sprintf("%s is missing (%s)", l, installHints[l]))
		}
	}
	return strings.Join(missing, ", ")
}

// checkDevices reports whether at least one accelerator meets the requirements and has at
// least memory bytes. The reason names the usable and the unusable accelerators or, if
// none is usable, describes the problem of each one.
func checkDevices(n *wire.DeviceRequirements, memory int64, devices []gpu.Device) (ok bool, reason string) {
	var usable []gpu.Device
	var unused, problems []string
	for _, d := range devices {
		if n.Vendor != "any" && string(d.Vendor) != n.Vendor {
			continue
		}
		name := deviceName(d)
		unmet := n.Unmet(d)
		switch {
		case unmet == "" && memory > 0 && d.MemoryTotal > 0 && d.MemoryTotal < uint64(memory):
			unmet = bytesize.Format(d.MemoryTotal) + " of memory"
			problems = append(problems, fmt.Sprintf("the largest GPU has %s, want at least %s", bytesize.Format(maxMemory(n.Vendor, devices)), bytesize.Format(uint64(memory))))
		case unmet == "":
			usable = append(usable, d)
			continue
		case d.Error != "":
			problems = append(problems, fmt.Sprintf("the driver of the %s GPU fails: %s", vendorName(d.Vendor), d.Error))
		case strings.HasPrefix(unmet, "compute capability"), strings.HasPrefix(unmet, "architecture"):
			problems = append(problems, name+" has "+unmet)
		default:
			problems = append(problems, unmet)
		}
		unused = append(unused, fmt.Sprintf("%s (%s)", name, unmet))
	}
	if len(usable) == 0 {
		kind := "GPU"
		if n.Vendor != "any" {
			kind = vendorName(n.Vendor) + " GPU"
		}
		return false, cmp.Or(strings.Join(unique(problems), ", "), "no "+kind+" found")
	}
	reason = deviceNames(usable)
	if len(unused) > 0 {
		reason += "; not used: " + strings.Join(groupEqual(unused), ", ")
	}
	return true, reason
}

// deviceNames returns the names of accelerators, and the version of the driver if all have the
// same one: "2 × RTX 4090, driver 580.65".
func deviceNames(devices []gpu.Device) string {
	driver := devices[0].Driver
	var names []string
	for _, d := range devices {
		names = append(names, deviceName(d))
		if d.Driver != driver {
			driver = ""
		}
	}
	text := strings.Join(groupEqual(names), ", ")
	if driver != "" {
		text += ", driver " + driver
	}
	return text
}

// deviceName returns the name of an accelerator, or its vendor if it has no name.
func deviceName(d gpu.Device) string { return cmp.Or(d.Name, vendorName(d.Vendor)+" GPU") }

// groupEqual replaces n equal strings with one, with the prefix "n × ".
func groupEqual(all []string) []string {
	n := map[string]int{}
	for _, s := range all {
		n[s]++
	}
	groups := unique(all)
	for i, s := range groups {
		if n[s] > 1 {
			groups[i] = fmt.Sprintf("%d × %s", n[s], s)
		}
	}
	return groups
}
