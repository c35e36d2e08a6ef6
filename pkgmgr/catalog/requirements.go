package catalog

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/text"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// UnmetRequirements returns the messages of [UnmetNeeds] and, if the machine cannot run any
// worker, the message for this problem. Use it to decide whether a worker can be installed.
func UnmetRequirements(n Needs, s *wire.State) []string {
	unmet := UnmetNeeds(n, s)
	if s.Noexec != "" {
		unmet = append(unmet, NoexecMessage(s))
	}
	return unmet
}

// NoexecMessage returns the message for a machine whose rbee directory is mounted noexec.
func NoexecMessage(s *wire.State) string {
	return s.Noexec + " is mounted noexec: programs in it cannot run; set RBEE_HOME to another directory"
}

// UnmetNeeds returns a message for each of the needs that a machine does not meet. It assumes
// that the machine meets needs that were not probed, and does not check n.Disk. Unlike
// [UnmetRequirements], UnmetNeeds ignores problems that affect all workers.
func UnmetNeeds(n Needs, s *wire.State) []string {
	var unmet []string
	add := func(format string, args ...any) { unmet = append(unmet, fmt.Sprintf(format, args...)) }
	if len(n.OS) > 0 && !slices.Contains(n.OS, s.OS) {
		add("requires %s, the machine has %s", strings.Join(n.OS, ", "), s.OS)
	}
	if len(n.Arch) > 0 && !slices.Contains(n.Arch, s.Arch) {
		add("requires %s, the machine has %s", strings.Join(n.Arch, ", "), s.Arch)
	}
	if problem := describeOldGlibc(n.Glibc, s.Platform); problem != "" {
		add("%s", problem)
	}
	if n.GPU != "" && s.DevicesKnown {
		if ok, reason := checkDevices(&wire.DeviceRequirements{Vendor: n.GPU, Driver: n.Driver, Compute: n.Compute}, n.GPUMemory, s.Devices); !ok {
			add("%s", reason)
		}
	}
	if s.Commands != nil {
		for _, c := range n.Commands {
			if !slices.Contains(s.Commands, c) {
				add("%s is not in PATH%s", c, text.WithPrefix(": ", installHints[c]))
			}
		}
	}
	return unmet
}
