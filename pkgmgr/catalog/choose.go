package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Machine describes the properties of a machine that determine the choice of a source.
type Machine struct {
	wire.Platform

	// Devices are its accelerators. DevicesKnown reports whether they were probed.
	Devices      []gpu.Device
	DevicesKnown bool

	// Libraries and ROCm have the same meaning as in [wire.State]. If Libraries is nil,
	// neither was probed.
	Libraries []string
	ROCm      string
}

// MachineOf returns the Machine that a state describes.
func MachineOf(s *wire.State) Machine {
	return Machine{Platform: s.Platform, Devices: s.Devices, DevicesKnown: s.DevicesKnown, Libraries: s.Libraries, ROCm: s.ROCm}
}

// Choice is a source that fits a machine.
type Choice struct {
	// Version is the exact version.
	Version string

	// Source is the chosen source. Its file paths are absolute and its placeholders are
	// replaced, except placeholders for values from a release or a package index.
	Source Source

	// Reason names the usable accelerators and the reasons why earlier sources of the recipe
	// do not fit the machine; may be empty.
	Reason string

	Index int // of the source in the recipe
}

// ErrNoSources is the error that a [*NoSourcesError] wraps.
var ErrNoSources = errors.New("recipe has no sources")

// NoSourcesError reports that rbee cannot install a worker type because its recipe has no
// sources. Note is the recipe's note.
type NoSourcesError struct{ Type, Note string }

func (e *NoSourcesError) Error() string {
	return fmt.Sprintf("cannot install worker %s: %s", e.Type, e.Note)
}

// ErrorCode returns [operations.ReasonUnsupported].
func (e *NoSourcesError) ErrorCode() string { return string(operations.ReasonUnsupported) }

// ErrorSubject returns the worker type.
func (e *NoSourcesError) ErrorSubject() operations.Subject {
	return operations.SubjectWorker.WithName(e.Type)
}

// Unwrap returns [ErrNoSources].
func (e *NoSourcesError) Unwrap() error { return ErrNoSources }

// UnknownTypeError reports a worker type without a recipe.
type UnknownTypeError struct {
	Type    string
	Nearest string // a known type with a similar spelling; may be empty
}

func (e *UnknownTypeError) Error() string {
	if e.Nearest == "" {
		return fmt.Sprintf("unknown worker type '%s'", e.Type)
	}
	return fmt.Sprintf("unknown worker type '%s', did you mean '%s'?", e.Type, e.Nearest)
}

// ErrorCode returns [operations.ReasonUnknownRecipe].
func (e *UnknownTypeError) ErrorCode() string { return string(operations.ReasonUnknownRecipe) }

// ErrorSubject returns the worker type.
func (e *UnknownTypeError) ErrorSubject() operations.Subject {
	return operations.SubjectWorker.WithName(e.Type)
}

// UnknownVersionError reports a version that a recipe does not have.
type UnknownVersionError struct {
	Type, Version string
	Known         []string // in the order of the recipe
}

func (e *UnknownVersionError) Error() string {
	return fmt.Sprintf("worker %s has no version %q; known: %s", e.Type, e.Version, strings.Join(e.Known, ", "))
}

// ErrorCode returns [operations.ReasonUnknownVersion].
func (e *UnknownVersionError) ErrorCode() string { return string(operations.ReasonUnknownVersion) }

// ErrorSubject returns the worker type.
func (e *UnknownVersionError) ErrorSubject() operations.Subject {
	return operations.SubjectWorker.WithName(e.Type)
}

// UnsupportedPlatformError reports that a recipe has no source of a version for the machine's
// platform.
type UnsupportedPlatformError struct {
	Type, Version string
	Platform      wire.Platform
	Known         []string // supported platforms such as "linux/amd64 (glibc)", in the order of the recipe
}

func (e *UnsupportedPlatformError) Error() string {
	p := e.Platform
	return fmt.Sprintf("worker %s does not support %s; supported platforms: %s", strings.TrimSpace(e.Type+" "+e.Version), p.Name(), strings.Join(e.Known, ", "))
}

// ErrorCode returns [operations.ReasonIncompatibleMachine].
func (e *UnsupportedPlatformError) ErrorCode() string {
	return string(operations.ReasonIncompatibleMachine)
}

// ErrorSubject returns the worker type.
func (e *UnsupportedPlatformError) ErrorSubject() operations.Subject {
	return operations.SubjectWorker.WithName(e.Type)
}

// UnsupportedMachineError reports that a recipe has sources for the machine's platform, but
// the machine does not meet the requirements of any of them.
type UnsupportedMachineError struct {
	Type, Version string
	Reasons       []string // one for each source, in the order of the recipe
}

func (e *UnsupportedMachineError) Error() string {
	return fmt.Sprintf("worker %s cannot run on this machine: %s", strings.TrimSpace(e.Type+" "+e.Version), strings.Join(e.Reasons, "; "))
}

// ErrorCode returns [operations.ReasonIncompatibleMachine].
func (e *UnsupportedMachineError) ErrorCode() string {
	return string(operations.ReasonIncompatibleMachine)
}

// ErrorSubject returns the worker type.
func (e *UnsupportedMachineError) ErrorSubject() operations.Subject {
	return operations.SubjectWorker.WithName(e.Type)
}

// ErrDevicesUnknown reports that the choice of a source depends on the machine's
// accelerators, which were not probed.
var ErrDevicesUnknown = errors.New("the accelerators of the machine are unknown")

// Version returns the version of a source that a version constraint of a config resolves to.
// The recipe must not have Versions. The version of a server that is built into rbee is
// rbeeVersion. The error is a [*NoSourcesError] or an [*UnknownVersionError].
func (r *Recipe) Version(constraint, rbeeVersion string) (string, error) {
	if len(r.Sources) == 0 {
		return "", &NoSourcesError{Type: r.Type, Note: r.Note}
	}
	versions := make([]string, len(r.Sources))
	for i := range r.Sources {
		versions[i] = r.Sources[i].version(rbeeVersion)
	}
	if constraint == version.Latest || constraint == "" {
		return cmp.Or(r.Latest, versions[0]), nil
	}
	if version.IsExact(constraint) && slices.Contains(versions, constraint) {
		return constraint, nil
	}
	if v := version.Newest(constraint, versions); v != "" {
		return v, nil
	}
	return "", &UnknownVersionError{Type: r.Type, Version: constraint, Known: unique(versions)}
}

// version returns the exact version of a source in a recipe without Versions.
func (s *Source) version(rbeeVersion string) string {
	if len(s.Steps) > 0 && s.Steps[0].Kind == wire.StepBuiltin {
		return rbeeVersion
	}
	return s.Version
}

// Choose returns the first source that provides an exact version and fits a machine. If the
// recipe has Versions, an empty version means any version. The error is a
// [*NoSourcesError], [*UnknownVersionError], [*UnsupportedPlatformError],
// [*UnsupportedMachineError] or [ErrDevicesUnknown], or reports a path that cannot be
// resolved.
func (r *Recipe) Choose(version string, m Machine, rbeeVersion string) (Choice, error) {
	if len(r.Sources) == 0 {
		return Choice{}, &NoSourcesError{Type: r.Type, Note: r.Note}
	}
	var versions, platforms, reasons []string
	for i := range r.Sources {
		s := &r.Sources[i]
		versions = append(versions, s.version(rbeeVersion))
		if !r.Has(s, version, rbeeVersion) {
			continue
		}
		platforms = append(platforms, wire.Platform{OS: s.OS, Arch: s.Arch, Libc: s.Libc}.Name())
		if !s.FitsPlatform(m.Platform) {
			continue
		}
		if s.needsGPU() && !m.DevicesKnown {
			return Choice{}, ErrDevicesUnknown
		}
		ok, reason := s.checkMachine(m)
		if !ok {
			reasons = append(reasons, s.prefixName(reason))
			continue
		}
		source, err := s.Fill(version, m.Platform, filepath.Dir(r.File))
		if len(reasons) > 0 {
			reason = strings.TrimPrefix(reason+"; not "+strings.Join(reasons, ", not "), "; ")
		}
		return Choice{Version: version, Source: source, Reason: reason, Index: i}, err
	}
	switch {
	case len(reasons) > 0:
		return Choice{}, &UnsupportedMachineError{Type: r.Type, Version: version, Reasons: reasons}
	case len(platforms) > 0:
		return Choice{}, &UnsupportedPlatformError{Type: r.Type, Version: version, Platform: m.Platform, Known: unique(platforms)}
	default:
		return Choice{}, &UnknownVersionError{Type: r.Type, Version: version, Known: unique(versions)}
	}
}

// Has reports whether source s provides an exact version. If the recipe has Versions, an
// empty version means any version.
func (r *Recipe) Has(s *Source, exact, rbeeVersion string) bool {
	if r.Versions == nil {
		return s.version(rbeeVersion) == exact
	}
	if s.Version == "" || exact == "" {
		return true
	}
	versionRange, err := version.ParseRange(s.Version)
	return err == nil && versionRange.Has(exact)
}

// DependsOnDevices reports whether the choice of a source depends on the machine's
// accelerators.
func (r *Recipe) DependsOnDevices() bool {
	return slices.ContainsFunc(r.Sources, func(s Source) bool { return s.needsGPU() })
}

// unique returns the elements of all without duplicates, in the same order.
func unique(all []string) []string {
	var result []string
	for _, s := range all {
		if !slices.Contains(result, s) {
			result = append(result, s)
		}
	}
	return result
}

// FitsPlatform reports whether the source supports a platform.
func (s *Source) FitsPlatform(p wire.Platform) bool {
	matches := func(want, got string) bool { return want == "" || want == got }
	return matches(s.OS, p.OS) && matches(s.Arch, p.Arch) && matches(s.Libc, p.Libc)
}

// prefixName returns reason with the name of the source as a prefix.
func (s *Source) prefixName(reason string) string {
	if s.Name == "" {
		return reason
	}
	return s.Name + ": " + reason
}

// checkMachine reports whether the machine meets the requirements of the source. If so, reason
// names the accelerators that the source can use; otherwise it describes the unmet requirements.
func (s *Source) checkMachine(m Machine) (ok bool, reason string) {
	if problem := describeOldGlibc(s.Glibc, m.Platform); problem != "" {
		return false, problem
	}
	if s.needsGPU() {
		if ok, reason = checkDevices(s.deviceRequirements(), 0, m.Devices); !ok {
			return false, reason
		}
	}
	if missing := s.describeMissingLibraries(m); missing != "" {
		return false, missing
	}
	return true, reason
}

// describeOldGlibc returns a message if the machine's glibc is older than oldest. Otherwise it
// returns "".
func describeOldGlibc(oldest string, p wire.Platform) string {
	if oldest == "" || p.Libc != "glibc" || p.LibcVersion == "" || version.Compare(p.LibcVersion, oldest) >= 0 {
		return ""
	}
	return fmt.Sprintf("glibc %s is older than %s", p.LibcVersion, oldest)
}

// maxMemory returns the memory of the largest accelerator of a vendor (or "any") in bytes.
func maxMemory(vendor string, devices []gpu.Device) (largest uint64) {
	for _, d := range devices {
		if vendor == "any" || string(d.Vendor) == vendor {
			largest = max(largest, d.MemoryTotal)
		}
	}
	return largest
}

// vendorName returns the spelling of a vendor's name in messages.
func vendorName[V ~string](vendor V) string {
	switch vendor {
	case "nvidia":
		return "NVIDIA"
	case "amd":
		return "AMD"
	case "":
		return ""
	default:
		return strings.ToUpper(string(vendor[:1])) + string(vendor[1:])
	}
}

// Fill returns a copy of the source in which the placeholders {version}, {os} and {arch} are
// replaced and file paths are absolute. Relative paths are relative to dir.
func (s *Source) Fill(version string, p wire.Platform, dir string) (Source, error) {
	replacer := strings.NewReplacer("{version}", version, "{os}", p.OS, "{arch}", p.Arch)
	out := *s
	out.Version, out.Entry = version, replacer.Replace(s.Entry)
	out.Steps = slices.Clone(s.Steps)
	for i := range out.Steps {
		step := &out.Steps[i]
		step.Origin.URL, step.Origin.Asset = replacer.Replace(step.Origin.URL), replacer.Replace(step.Origin.Asset)
		if p := step.Python; p != nil {
			python := *p
			for _, list := range []*[]string{&python.Packages, &python.Overrides, &python.Constraints} {
				*list = slices.Clone(*list)
				for i := range *list {
					(*list)[i] = replacer.Replace((*list)[i])
				}
			}
			python.Indexes = slices.Clone(p.Indexes)
			for i := range python.Indexes {
				python.Indexes[i].URL = replacer.Replace(python.Indexes[i].URL)
			}
			step.Python = &python
		}
		if step.Origin.File == "" {
			continue
		}
		file, err := resolvePath(replacer.Replace(step.Origin.File), dir)
		if err != nil {
			return out, err
		}
		step.Origin.File = file
	}
	return out, nil
}

// resolvePath returns the absolute path of a file. A relative path is relative to dir, or to
// the home directory of the user if it starts with ~/.
func resolvePath(file, dir string) (string, error) {
	file = filepath.FromSlash(file)
	if rest, ok := strings.CutPrefix(file, "~"+string(filepath.Separator)); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("cannot resolve path %s: %w", file, err)
		}
		file = filepath.Join(home, rest)
	} else if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("cannot resolve path %s: %w", file, err)
	}
	return absolute, nil
}

// SourcesFor returns a function that returns the source of a version for a machine. If the
// choice depends on accelerators that were not probed, the function returns all sources for
// the machine's platform. If the machine does not meet the requirements of any source for its
// platform, the function returns no sources and no error.
func (r *Recipe) SourcesFor(m Machine) func(version string) ([]Source, error) {
	return func(version string) ([]Source, error) {
		choice, err := r.Choose(version, m, "")
		var unsupported *UnsupportedMachineError
		switch {
		case errors.As(err, &unsupported):
			return nil, nil
		case err == nil:
			return []Source{choice.Source}, nil
		case !errors.Is(err, ErrDevicesUnknown):
			return nil, err
		}
		var all []Source
		for i := range r.Sources {
			if s := &r.Sources[i]; r.Has(s, version, "") && s.FitsPlatform(m.Platform) {
				source, err := s.Fill(version, m.Platform, filepath.Dir(r.File))
				if err != nil {
					return nil, err
				}
				all = append(all, source)
			}
		}
		return all, nil
	}
}
