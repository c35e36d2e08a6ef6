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

// GlibcFloor records the version of glibc that the packages of a source were resolved for.
type GlibcFloor struct {
	// Oldest is the first glibc that resolution tried. It is the oldest glibc of the hives
	// that may install the source, or the recipe's minimum if some hives were unknown.
	Oldest string `json:"oldest"`

	// Glibc is the oldest glibc that supports the resolved packages. It is newer than
	// Oldest if some packages have no file for an older glibc. NeededBy lists these packages.
	Glibc    string   `json:"glibc"`
	NeededBy []string `json:"needed_by,omitempty"`
}

// GlibcError reports a machine whose glibc is too old for the packages of a version.
type GlibcError struct {
	Type, Version string
	Packages      []string // packages that need the newer glibc, such as "llguidance"; may be empty
	Needs, Has    string   // versions of glibc
}

func (e *GlibcError) Error() string {
	subject, verb := strings.Join(e.Packages, ", "), "need"
	switch {
	case len(e.Packages) == 0:
		subject, verb = fmt.Sprintf("%s %s", e.Type, e.Version), "needs"
	case len(e.Packages) == 1:
		verb = "needs"
	case len(e.Packages) > maxListedPackages:
		subject = fmt.Sprintf("%s and %d more", strings.Join(e.Packages[:maxListedPackages], ", "), len(e.Packages)-maxListedPackages)
	}
	return fmt.Sprintf("%s %s glibc %s, this machine has %s", subject, verb, e.Needs, e.Has)
}

// ErrorCode returns [operations.ReasonIncompatibleMachine].
func (e *GlibcError) ErrorCode() string { return string(operations.ReasonIncompatibleMachine) }

// ErrorSubject returns the worker type.
func (e *GlibcError) ErrorSubject() operations.Subject {
	return operations.SubjectWorker.WithName(e.Type)
}

// maxListedPackages is the maximum number of packages that a message lists.
const maxListedPackages = 3

// GlibcSteps lists the minor versions of glibc 2 that uv can resolve for; see its flag
// --python-platform.
var GlibcSteps = []int{17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40}

// glibcStep returns the newest step that is not newer than a minor version of glibc. If all
// are newer, it returns the oldest step.
func glibcStep(minor int) int {
	step := GlibcSteps[0]
	for _, s := range GlibcSteps {
		if s <= minor {
			step = s
		}
	}
	return step
}

// GlibcVersion returns the version of glibc 2 with a minor version: "2.minor".
func GlibcVersion(minor int) string { return "2." + strconv.Itoa(minor) }

// GlibcMinor returns the minor version of a glibc 2. It reports false if glibc is not a
// version of glibc 2.
func GlibcMinor(glibc string) (int, bool) {
	major, rest, ok := strings.Cut(glibc, ".")
	minor, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(minor)
	return n, ok && major == "2" && err == nil && n >= 0
}

// InitialGlibc returns the minor version of the glibc for which resolution of the packages of a
// source starts. minimum is the recipe's minimum. machines lists the known glibc versions of
// the machines that may install the source, and complete reports whether the list contains all
// of these machines. locked is the floor of an earlier resolution, or nil.
//
//	complete       the oldest machine
//	not complete   the locked floor or else the minimum, or a known machine if older
//
// With a locked floor, a run that reads only some hives gets the same result as a run that
// reads all hives.
func InitialGlibc(minimum string, machines []string, complete bool, locked *GlibcFloor) int {
	oldest, known := 0, false
	for _, glibc := range machines {
		if n, ok := GlibcMinor(glibc); ok && (!known || n < oldest) {
			oldest, known = n, true
		}
	}
	start := minorOrDefault(minimum)
	switch {
	case complete && known:
		start = oldest
	case locked != nil:
		if n, ok := GlibcMinor(locked.Oldest); ok {
			start = n
		}
		fallthrough
	default:
		if known {
			start = min(start, oldest)
		}
	}
	if n, ok := GlibcMinor(minimum); ok {
		start = max(start, n)
	}
	return glibcStep(start)
}

// Excludes reports whether a machine with the given glibc cannot run the resolved packages. It
// returns false if glibc is not a version of glibc 2.
func (f *GlibcFloor) Excludes(glibc string) bool {
	minor, ok := GlibcMinor(glibc)
	need, known := GlibcMinor(f.Glibc)
	return ok && known && minor < need
}

// HasTried reports whether resolution has already been tried for the given glibc. Another
// attempt would result in the same floor.
func (f *GlibcFloor) HasTried(glibc string) bool {
	minor, ok := GlibcMinor(glibc)
	oldest, known := GlibcMinor(f.Oldest)
	return ok && known && oldest <= glibcStep(minor)
}

// EffectiveFloor returns the floor that a locked source was resolved for. Earlier versions of
// rbee did not record the floor and resolved for the recipe's minimum. For their locks,
// EffectiveFloor derives the floor from the names of the wheels.
func (s *Source) EffectiveFloor(minimum string) *GlibcFloor {
	if s.Floor != nil {
		return s.Floor
	}
	need := minorOrDefault(minimum)
	for _, step := range s.Steps {
		if step.Python != nil {
			need = max(need, wheelsGlibc(step.Python.Wheels))
		}
	}
	return &GlibcFloor{Oldest: GlibcVersion(minorOrDefault(minimum)), Glibc: GlibcVersion(need)}
}

// wheelsGlibc returns the minor version of the oldest glibc that all wheels support according
// to their names, or 0 if they do not require glibc.
func wheelsGlibc(wheels []wire.Artifact) (need int) {
	for _, a := range wheels {
		w, ok := wheel.Parse(a.Name)
		if !ok {
			continue
		}
		oldest := 0 // of the wheel's platforms
		for _, tag := range w.Platforms {
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

// MaxFloor returns the floor with the newer glibc. Both may be nil.
func MaxFloor(a, b *GlibcFloor) *GlibcFloor {
	if a == nil || b != nil && version.Compare(b.Glibc, a.Glibc) > 0 {
		return b
	}
	return a
}
