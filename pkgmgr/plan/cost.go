package plan

import (
	"slices"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// transferBytes returns how many bytes of the artifacts of an install a machine needs,
// and how many it has unpacked in its cache already; as far as sizes are known. A nil s
// has none.
func transferBytes(steps []wire.InstallStep, s *wire.State) (needed, cached int64) {
	for i := range steps {
		for _, a := range steps[i].Artifacts() {
			if InCache(steps[i].Kind, a, s) {
				cached += a.Size
			} else {
				needed += a.Size
			}
		}
	}
	return needed, cached
}

// InCache reports whether a machine has an artifact unpacked in its cache.
func InCache(kind wire.StepKind, a *wire.Artifact, s *wire.State) bool {
	return s != nil && kind == wire.StepPython && slices.Contains(s.Wheels, wire.WheelKey(a.SHA256))
}

// DiskNeed is how many bytes an install takes: what the recipe says, or at least
// what is sent and as much again unpacked. What the machine has in its cache counts as
// neither.
func DiskNeed(w DesiredWorker, s *wire.State) uint64 {
	needed, cached := transferBytes(w.Steps, s)
	return uint64(max(w.Needs.Disk-2*cached, 2*needed, 0))
}
