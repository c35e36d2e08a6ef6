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

// Machine is what the choice of a source depends on.
type Machine struct {
	wire.Platform

	// Devices are its accelerators; DevicesKnown tells whether they were asked for.
	Devices      []gpu.Device
	DevicesKnown bool

	// Libraries and ROCm are as in [wire.State]: nil Libraries means that nobody
	// looked for either.
	Libraries []string
	ROCm      string
}

// MachineOf returns what a choice depends on of a machine's state.
func MachineOf(s *wire.State) Machine {
	return Machine{Platform: s.Platform, Devices: s.Devices, DevicesKnown: s.DevicesKnown, Libraries: s.Libraries, ROCm: s.ROCm}
}

// Choice is a source that fits a machine.
type Choice struct {
	// Version is the exact version.
	Version string

	// Source is the one that was chosen, with nothing left to replace but what
	// only a release or an index can tell; the files it names are absolute paths.
	Source Source

	// Reason says why it was this one, if a machine could have had another.
	Reason string

	Index int // of the source in the recipe
}

// ErrNoSources is what a [*NoSourcesError] is, for errors.Is.
var ErrNoSources = errors.New("the recipe has no sources")

// NoSourcesError says that a worker type is known, and that this rbee has no way
// to install it.
type NoSourcesError struct{ Type, Note string }

func (e *NoSourcesError) Error() string {
	return fmt.Sprintf("worker %s cannot be installed: %s", e.Type, e.Note)
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *NoSourcesError) ErrorCode() string { return string(operations.ReasonUnsupported) }

// ErrorSubject returns the worker type, for [operations.SubjectOf].
func (e *NoSourcesError) ErrorSubject() operations.Subject {
	return operations.SubjectWorker.Named(e.Type)
}

// Unwrap gives [ErrNoSources].
func (e *NoSourcesError) Unwrap() error { return ErrNoSources }

// UnknownTypeError reports a worker type that the catalog has no recipe for.
type UnknownTypeError struct {
	Type    string
	Nearest string // a known type that is spelled similarly; may be empty
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
	return operations.SubjectWorker.Named(e.Type)
}

// UnknownVersionError says that a recipe does not have a version.
type UnknownVersionError struct {
	Type, Version string
	Known         []string // in the order of the recipe
}

func (e *UnknownVersionError) Error() string {
	return fmt.Sprintf("worker %s has no version %q; known: %s", e.Type, e.Version, strings.Join(e.Known, ", "))
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *UnknownVersionError) ErrorCode() string { return string(operations.ReasonUnknownVersion) }

// ErrorSubject returns the worker type, for [operations.SubjectOf].
func (e *UnknownVersionError) ErrorSubject() operations.Subject {
	return operations.SubjectWorker.Named(e.Type)
}

// NoPlatformError says that a recipe has a version, but not for the machine.
type NoPlatformError struct {
	Type, Version string
	Platform      wire.Platform
	Known         []string // what there is, such as "linux/amd64 (glibc)", in the order of the recipe
}

func (e *NoPlatformError) Error() string {
	p := e.Platform
	return fmt.Sprintf("worker %s does not run on %s; it runs on %s", strings.TrimSpace(e.Type+" "+e.Version), p.Name(), strings.Join(e.Known, ", "))
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *NoPlatformError) ErrorCode() string { return string(operations.ReasonUnfitMachine) }

// ErrorSubject returns the worker type, for [operations.SubjectOf].
func (e *NoPlatformError) ErrorSubject() operations.Subject {
	return operations.SubjectWorker.Named(e.Type)
}

// UnfitError says that a recipe has sources for the machine's platform, and that
// the machine lacks what each of them needs.
type UnfitError struct {
	Type, Version string
	Reasons       []string // one a source, in the order of the recipe
}

func (e *UnfitError) Error() string {
	return fmt.Sprintf("worker %s does not run there: %s", strings.TrimSpace(e.Type+" "+e.Version), strings.Join(e.Reasons, "; "))
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *UnfitError) ErrorCode() string { return string(operations.ReasonUnfitMachine) }

// ErrorSubject returns the worker type, for [operations.SubjectOf].
func (e *UnfitError) ErrorSubject() operations.Subject { return operations.SubjectWorker.Named(e.Type) }

// ErrDevicesUnknown says that a source can only be chosen once the machine's
// accelerators are known.
var ErrDevicesUnknown = errors.New("the machine's accelerators were not asked for")

// Version is the version that a wish of a config comes to, where the sources name
// all versions there are. Servers inside rbee have its version, rbeeVersion. The
// error is a [*NoSourcesError] or an [*UnknownVersionError].
func (r *Recipe) Version(wish, rbeeVersion string) (string, error) {
	if len(r.Sources) == 0 {
		return "", &NoSourcesError{Type: r.Type, Note: r.Note}
	}
	versions := make([]string, len(r.Sources))
	for i := range r.Sources {
		versions[i] = r.Sources[i].version(rbeeVersion)
	}
	if wish == version.Latest || wish == "" {
		return cmp.Or(r.Latest, versions[0]), nil
	}
	if version.IsExact(wish) && slices.Contains(versions, wish) {
		return wish, nil
	}
	if v := version.Newest(wish, versions); v != "" {
		return v, nil
	}
	return "", &UnknownVersionError{Type: r.Type, Version: wish, Known: unique(versions)}
}

func (s *Source) version(rbeeVersion string) string {
	if len(s.Steps) > 0 && s.Steps[0].Kind == wire.StepBuiltin {
		return rbeeVersion
	}
	return s.Version
}

// Choose picks the first source for an exact version on a machine, or for any
// version if that is empty and the recipe has Versions. The error is a
// [*NoSourcesError], [*UnknownVersionError], [*NoPlatformError], [*UnfitError] or
// [ErrDevicesUnknown], or says that a path with ~ cannot be resolved.
func (r *Recipe) Choose(version string, m Machine, rbeeVersion string) (Choice, error) {
	if len(r.Sources) == 0 {
		return Choice{}, &NoSourcesError{Type: r.Type, Note: r.Note}
	}
	var versions, platforms, unfit []string
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
		ok, why := s.fitsMachine(m)
		if !ok {
			unfit = append(unfit, s.named(why))
			continue
		}
		filled, err := s.Fill(version, m.Platform, filepath.Dir(r.File))
		reason := why
		if len(unfit) > 0 {
			reason = strings.TrimPrefix(reason+"; not "+strings.Join(unfit, ", not "), "; ")
		}
		return Choice{Version: version, Source: filled, Reason: reason, Index: i}, err
	}
	switch {
	case len(unfit) > 0:
		return Choice{}, &UnfitError{Type: r.Type, Version: version, Reasons: unfit}
	case len(platforms) > 0:
		return Choice{}, &NoPlatformError{Type: r.Type, Version: version, Platform: m.Platform, Known: unique(platforms)}
	default:
		return Choice{}, &UnknownVersionError{Type: r.Type, Version: version, Known: unique(versions)}
	}
}

// Has reports whether a source is for a version.
func (r *Recipe) Has(s *Source, exact, rbeeVersion string) bool {
	if r.Versions == nil {
		return s.version(rbeeVersion) == exact
	}
	if s.Version == "" || exact == "" { // all, or not known yet
		return true
	}
	set, err := version.ParseRange(s.Version)
	return err == nil && set.Has(exact)
}

// DependsOnDevices reports whether the choice among sources needs to know the
// machine's accelerators.
func (r *Recipe) DependsOnDevices() bool {
	return slices.ContainsFunc(r.Sources, func(s Source) bool { return s.needsGPU() })
}

// unique drops repetitions and keeps the order.
func unique(all []string) []string {
	var once []string
	for _, s := range all {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}

// FitsPlatform reports whether the source is for a platform.
func (s *Source) FitsPlatform(p wire.Platform) bool {
	same := func(want, have string) bool { return want == "" || want == have }
	return same(s.OS, p.OS) && same(s.Arch, p.Arch) && same(s.Libc, p.Libc)
}

// named puts the source's name before a reason.
func (s *Source) named(why string) string {
	if s.Name == "" {
		return why
	}
	return s.Name + ": " + why
}

// fitsMachine reports whether the machine has what the source needs, and what
// decided that.
func (s *Source) fitsMachine(m Machine) (ok bool, why string) {
	if wrong := oldGlibc(s.Glibc, m.Platform); wrong != "" {
		return false, wrong
	}
	if s.needsGPU() {
		if ok, why = fitsDevices(s.deviceNeeds(), 0, m.Devices); !ok {
			return false, why
		}
	}
	if wrong := s.missing(m); wrong != "" {
		return false, wrong
	}
	return true, why
}

// oldGlibc says that the machine's glibc is too old, or nothing.
func oldGlibc(oldest string, p wire.Platform) string {
	if oldest == "" || p.Libc != "glibc" || p.LibcVersion == "" || version.Compare(p.LibcVersion, oldest) >= 0 {
		return ""
	}
	return fmt.Sprintf("glibc %s is older than %s", p.LibcVersion, oldest)
}

func mostMemory(vendor string, devices []gpu.Device) (most uint64) {
	for _, d := range devices {
		if vendor == "any" || string(d.Vendor) == vendor {
			most = max(most, d.MemoryTotal)
		}
	}
	return most
}

// gpuName is how a vendor writes itself.
func gpuName[V ~string](vendor V) string {
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

// Fill replaces the placeholders and makes paths absolute.
func (s *Source) Fill(version string, p wire.Platform, folder string) (Source, error) {
	words := strings.NewReplacer("{version}", version, "{os}", p.OS, "{arch}", p.Arch)
	out := *s
	out.Version, out.Entry = version, words.Replace(s.Entry)
	out.Steps = slices.Clone(s.Steps)
	for i := range out.Steps {
		step := &out.Steps[i]
		step.Origin.URL, step.Origin.Asset = words.Replace(step.Origin.URL), words.Replace(step.Origin.Asset)
		if p := step.Python; p != nil {
			filled := *p
			for _, list := range []*[]string{&filled.Packages, &filled.Overrides, &filled.Constraints} {
				*list = slices.Clone(*list)
				for i := range *list {
					(*list)[i] = words.Replace((*list)[i])
				}
			}
			filled.Indexes = slices.Clone(p.Indexes)
			for i := range filled.Indexes {
				filled.Indexes[i].URL = words.Replace(filled.Indexes[i].URL)
			}
			step.Python = &filled
		}
		if step.Origin.File == "" {
			continue
		}
		file, err := resolvePath(words.Replace(step.Origin.File), folder)
		if err != nil {
			return out, err
		}
		step.Origin.File = file
	}
	return out, nil
}

func resolvePath(file, folder string) (string, error) {
	file = filepath.FromSlash(file)
	if rest, ok := strings.CutPrefix(file, "~"+string(filepath.Separator)); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("resolving %s: %w", file, err)
		}
		file = filepath.Join(home, rest)
	} else if !filepath.IsAbs(file) {
		file = filepath.Join(folder, file)
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("resolving %s: %w", file, err)
	}
	return absolute, nil
}

// SourcesFor gives the source that a machine takes, or those for its platform where its
// accelerators decide and are not known.
func (r *Recipe) SourcesFor(m Machine) func(version string) ([]Source, error) {
	return func(version string) ([]Source, error) {
		choice, err := r.Choose(version, m, "")
		var unfit *UnfitError
		switch {
		case errors.As(err, &unfit):
			return nil, nil
		case err == nil:
			return []Source{choice.Source}, nil
		case !errors.Is(err, ErrDevicesUnknown):
			return nil, err
		}
		var all []Source
		for i := range r.Sources {
			if s := &r.Sources[i]; r.Has(s, version, "") && s.FitsPlatform(m.Platform) {
				filled, err := s.Fill(version, m.Platform, filepath.Dir(r.File))
				if err != nil {
					return nil, err
				}
				all = append(all, filled)
			}
		}
		return all, nil
	}
}
