package plan

import (
	"slices"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// transferBytes returns how many bytes of the artifacts in steps must be sent to a
// machine, and how many are unpacked in its cache already. Artifacts of unknown size
// count as 0. A nil s has an empty cache.
func transferBytes(steps []wire.InstallStep, s *wire.State) (needed, cached int64) {
	for i := range steps {
		for _, a := range steps[i].Artifacts() {
			if IsCached(steps[i].Kind, a, s) {
				cached += a.Size
			} else {
				needed += a.Size
			}
		}
	}
	return needed, cached
}

// IsCached reports whether a machine has an artifact unpacked in its cache. A nil s has
// an empty cache.
func IsCached(kind wire.StepKind, a *wire.Artifact, s *wire.State) bool {
	return s != nil && kind == wire.StepPython && slices.Contains(s.Wheels, wire.WheelKey(a.SHA256))
}

// DiskNeed returns how many bytes of disk space an install takes: the requirement of the
// recipe, or twice the size of the artifacts if that is more, for the download and the
// unpacked files. Artifacts in the machine's cache do not count.
func DiskNeed(w DesiredWorker, s *wire.State) uint64 {
	needed, cached := transferBytes(w.Steps, s)
	return uint64(max(w.Needs.Disk-2*cached, 2*needed, 0))
}
