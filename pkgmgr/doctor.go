package pkgmgr

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/text"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Lacks says what a machine lacks of what a worker needs, before anything is
// fetched for it; nothing if it has all. What was not read of the machine is not
// missed.
func Lacks(n Needs, s *State) []string {
	lacks := unmet(n, s)
	if s.Noexec != "" {
		lacks = append(lacks, noexecText(s))
	}
	return lacks
}

// noexecText says why no program, rbee's own among them, can be run on a machine.
func noexecText(s *State) string {
	return s.Noexec + " is mounted noexec, so that no program in it can be run; move rbee with RBEE_HOME"
}

// unmet is what a machine lacks for a worker, but for what it lacks for anything.
func unmet(n Needs, s *State) []string {
	var lacks []string
	lack := func(format string, args ...any) { lacks = append(lacks, fmt.Sprintf(format, args...)) }
	if len(n.OS) > 0 && !slices.Contains(n.OS, s.OS) {
		lack("it runs on %s, this is %s", strings.Join(n.OS, ", "), s.OS)
	}
	if len(n.Arch) > 0 && !slices.Contains(n.Arch, s.Arch) {
		lack("it runs on %s, this is %s", strings.Join(n.Arch, ", "), s.Arch)
	}
	if old := oldGlibc(n.Glibc, s.Platform); old != "" {
		lack("%s", old)
	}
	if n.GPU != "" && s.DevicesKnown {
		if ok, why := fitsDevices(&wire.DeviceNeeds{Vendor: n.GPU, Driver: n.Driver, Compute: n.Compute}, n.GPUMemory, s.Devices); !ok {
			lack("%s", why)
		}
	}
	if s.Commands != nil {
		for _, c := range n.Commands {
			if !slices.Contains(s.Commands, c) {
				lack("%s is not on its PATH%s", c, text.After(": ", installHints[c]))
			}
		}
	}
	return lacks
}

// diskNeed is how many bytes an install takes: what the recipe says, or at least
// what is sent and as much again unpacked. What the machine has in its cache counts as
// neither.
func diskNeed(w WorkerWant, s *State) uint64 {
	needed, cached := transferBytes(w.Steps, s)
	return uint64(max(w.Needs.Disk-2*cached, 2*needed, 0)) //nolint:gosec // not negative
}
