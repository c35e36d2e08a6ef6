package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/text"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Unmet says what a machine lacks of what a worker needs, before anything is
// fetched for it; nothing if it has all. What was not read of the machine is not
// missed.
func Unmet(n Needs, s *wire.State) []string {
	lacks := UnmetNeeds(n, s)
	if s.Noexec != "" {
		lacks = append(lacks, NoexecMessage(s))
	}
	return lacks
}

// NoexecMessage says why no program, rbee's own among them, can be run on a machine.
func NoexecMessage(s *wire.State) string {
	return s.Noexec + " is mounted noexec, so that no program in it can be run; move rbee with RBEE_HOME"
}

// UnmetNeeds is what a machine lacks for a worker, but for what it lacks for anything.
func UnmetNeeds(n Needs, s *wire.State) []string {
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
