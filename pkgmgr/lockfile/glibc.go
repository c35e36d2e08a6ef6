package lockfile

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/wheel"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// GlibcFloor records for which glibc the packages of a source were resolved.
type GlibcFloor struct {
	// Oldest is where resolution began: the oldest glibc among the machines of the
	// config that may get the source, or the recipe's minimum where not all of them
	// were known.
	Oldest string `json:"oldest"`

	// Glibc is the oldest glibc that the resolved packages run with. It is newer than
	// Oldest where a package has no file for older ones: NeededBy names those.
	Glibc    string   `json:"glibc"`
	NeededBy []string `json:"needed_by,omitempty"`
}

// GlibcError reports a machine whose glibc is older than the packages of a version
// need.
type GlibcError struct {
	Type, Version string
	Packages      []string // those that need it, such as "llguidance"; may be empty
	Needs, Has    string   // versions of glibc
}

func (e *GlibcError) Error() string {
	who, verb := strings.Join(e.Packages, ", "), "need"
	switch {
	case len(e.Packages) == 0:
		who, verb = fmt.Sprintf("%s %s", e.Type, e.Version), "needs"
	case len(e.Packages) == 1:
		verb = "needs"
	case len(e.Packages) > maxNamed:
		who = fmt.Sprintf("%s and %d more", strings.Join(e.Packages[:maxNamed], ", "), len(e.Packages)-maxNamed)
	}
	return fmt.Sprintf("%s %s glibc %s, this machine has %s", who, verb, e.Needs, e.Has)
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *GlibcError) ErrorCode() string { return string(operations.ReasonUnfitMachine) }

// ErrorSubject returns the worker type, for [operations.SubjectOf].
func (e *GlibcError) ErrorSubject() operations.Subject { return operations.SubjectWorker.Named(e.Type) }

// maxNamed limits the packages that a message names.
const maxNamed = 3

// GlibcSteps are the minor versions of glibc 2 that uv resolves for; see its
// --python-platform.
var GlibcSteps = []int{17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40}

// glibcStep returns the newest step that is not newer than a minor version of glibc;
// the oldest step if all are.
func glibcStep(minor int) int {
	step := GlibcSteps[0]
	for _, s := range GlibcSteps {
		if s <= minor {
			step = s
		}
	}
	return step
}

// GlibcName is glibc 2 with a minor version.
func GlibcName(minor int) string { return "2." + strconv.Itoa(minor) }

// MinorOf is the minor version of a glibc 2; false if it cannot be read.
func MinorOf(glibc string) (int, bool) {
	major, rest, ok := strings.Cut(glibc, ".")
	minor, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(minor)
	return n, ok && major == "2" && err == nil && n >= 0
}

// FloorStart decides for which glibc the packages of a source are resolved first.
// minimum is the recipe's, machines are the known ones that may get the source, and
// complete tells that there are no others. locked is the floor of an earlier
// resolution, nil for none.
//
//	all machines known     the oldest of them
//	some not known         the locked one, or the minimum, or an older known machine
//
// So a run that reads a part of the hives decides the same as one that reads all,
// wherever an earlier run has decided.
func FloorStart(minimum string, machines []string, complete bool, locked *GlibcFloor) int {
	oldest, known := 0, false
	for _, glibc := range machines {
		if n, ok := MinorOf(glibc); ok && (!known || n < oldest) {
			oldest, known = n, true
		}
	}
	start := glibcMinor(minimum)
	switch {
	case complete && known:
		start = oldest
	case locked != nil:
		if n, ok := MinorOf(locked.Oldest); ok {
			start = n
		}
		fallthrough
	default:
		if known {
			start = min(start, oldest)
		}
	}
	if n, ok := MinorOf(minimum); ok {
		start = max(start, n)
	}
	return glibcStep(start)
}

// Below reports whether a machine with a glibc cannot run what was resolved. A glibc
// that cannot be read is not below anything.
func (f *GlibcFloor) Below(glibc string) bool {
	have, ok := MinorOf(glibc)
	need, known := MinorOf(f.Glibc)
	return ok && known && have < need
}

// TriedFor reports whether resolution has been tried for a glibc, so that trying again
// would give the same floor.
func (f *GlibcFloor) TriedFor(glibc string) bool {
	have, ok := MinorOf(glibc)
	oldest, known := MinorOf(f.Oldest)
	return ok && known && oldest <= glibcStep(have)
}

// FloorOf is the floor that a locked source was resolved for. Locks of before floors
// were recorded, or rewritten by an rbee of before that, were resolved for the recipe's
// minimum, and need what their wheels need.
func (s *Source) FloorOf(minimum string) *GlibcFloor {
	if s.Floor != nil {
		return s.Floor
	}
	need := glibcMinor(minimum)
	for _, step := range s.Steps {
		if step.Python != nil {
			need = max(need, wheelsGlibc(step.Python.Wheels))
		}
	}
	return &GlibcFloor{Oldest: GlibcName(glibcMinor(minimum)), Glibc: GlibcName(need)}
}

// wheelsGlibc is the minor version of the oldest glibc that all wheels run with, as
// their names say; 0 if none needs a certain one.
func wheelsGlibc(wheels []wire.Artifact) (need int) {
	for _, a := range wheels {
		w, ok := wheel.Parse(a.Name)
		if !ok {
			continue
		}
		oldest := 0 // of the platforms that the wheel is for
		for _, tag := range w.Platfrm {
			if m := wheel.Manylinux.FindStringSubmatch(tag); m != nil {
				if n, err := strconv.Atoi(m[1]); err == nil && (oldest == 0 || n < oldest) {
					oldest = n
				}
			}
		}
		need = max(need, oldest)
	}
	return need
}

// NewerFloor is the one of two floors that needs the newer glibc; nil counts as none.
func NewerFloor(a, b *GlibcFloor) *GlibcFloor {
	if a == nil || b != nil && version.Compare(b.Glibc, a.Glibc) > 0 {
		return b
	}
	return a
}
