package plan

import (
	"slices"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// transferBytes returns how many bytes of the artifacts in steps must be transferred to a
// machine, and how many bytes are already unpacked in its cache. Artifacts of unknown size
// count as 0. If s is nil, the cache counts as empty.
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

// IsCached reports whether a machine has an artifact unpacked in its cache. It returns
// false if s is nil.
func IsCached(kind wire.StepKind, a *wire.Artifact, s *wire.State) bool {
	return s != nil && kind == wire.StepPython && slices.Contains(s.Wheels, wire.WheelKey(a.SHA256))
}

// DiskNeed returns how many bytes of disk space an install needs: the requirement of the
// recipe or, if that is more, twice the size of the artifacts, because the download and
// the unpacked files are stored at the same time. Artifacts in the machine's cache do not
// count.
func DiskNeed(w DesiredWorker, s *wire.State) uint64 {
	needed, cached := transferBytes(w.Steps, s)
	return uint64(max(w.Needs.Disk-2*cached, 2*needed, 0))
}
