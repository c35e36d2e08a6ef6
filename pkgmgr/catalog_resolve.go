package pkgmgr

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Resolved is a source that fits a machine.
type Resolved struct {
	// Version is the exact version.
	Version string

	// Source is where it comes from, with nothing left to replace; its File is
	// an absolute path.
	Source Source
}

// ErrNoSources is what a [*NoSourcesError] is, for errors.Is.
var ErrNoSources = errors.New("the recipe has no sources")

// NoSourcesError says that a worker type is known, and that this rbee has no way
// to install it.
type NoSourcesError struct{ Type, Note string }

func (e *NoSourcesError) Error() string {
	return fmt.Sprintf("worker %s cannot be installed: %s", e.Type, e.Note)
}

// Unwrap gives [ErrNoSources].
func (e *NoSourcesError) Unwrap() error { return ErrNoSources }

// UnknownVersionError says that a recipe does not have a version.
type UnknownVersionError struct {
	Type, Version string
	Known         []string // in the order of the recipe
}

func (e *UnknownVersionError) Error() string {
	return fmt.Sprintf("worker %s has no version %q; known: %s", e.Type, e.Version, strings.Join(e.Known, ", "))
}

// NoPlatformError says that a recipe has a version, but not for the machine.
type NoPlatformError struct {
	Type, Version string
	Platform      Platform
	Known         []string // what there is, such as "linux/amd64 (glibc)", in the order of the recipe
}

func (e *NoPlatformError) Error() string {
	p := e.Platform
	return fmt.Sprintf("worker %s %s does not run on %s; it runs on %s", e.Type, e.Version, platformName(p.OS, p.Arch, p.Libc), strings.Join(e.Known, ", "))
}

func platformName(system, arch, libc string) string {
	orAny := func(s string) string {
		if s == "" {
			return "any"
		}
		return s
	}
	name := orAny(system) + "/" + orAny(arch)
	if libc != "" {
		name += " (" + libc + ")"
	}
	return name
}

// Resolve picks the first source that gives a version, exact or [Latest], on a
// platform. Servers inside rbee have its version, rbeeVersion. The error is a
// [*NoSourcesError], [*UnknownVersionError] or [*NoPlatformError], or says that
// a path with ~ cannot be resolved.
func (r *Recipe) Resolve(version string, p Platform, rbeeVersion string) (Resolved, error) {
	if len(r.Sources) == 0 {
		return Resolved{}, &NoSourcesError{Type: r.Type, Note: r.Note}
	}
	versions := make([]string, len(r.Sources))
	for i, s := range r.Sources {
		versions[i] = s.Version
		if s.Builtin != "" {
			versions[i] = rbeeVersion
		}
	}
	if version == Latest || version == "" {
		version = versions[0]
		if r.Latest != "" {
			version = r.Latest
		}
	}
	var platforms []string
	for i, s := range r.Sources {
		if versions[i] != version {
			continue
		}
		if s.fits(p) {
			s, err := s.fill(version, p, filepath.Dir(r.File))
			return Resolved{Version: version, Source: s}, err
		}
		platforms = append(platforms, platformName(s.OS, s.Arch, s.Libc))
	}
	if len(platforms) == 0 {
		return Resolved{}, &UnknownVersionError{Type: r.Type, Version: version, Known: unique(versions)}
	}
	return Resolved{}, &NoPlatformError{Type: r.Type, Version: version, Platform: p, Known: unique(platforms)}
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

func (s Source) fits(p Platform) bool {
	same := func(want, have string) bool { return want == "" || want == have }
	return same(s.OS, p.OS) && same(s.Arch, p.Arch) && same(s.Libc, p.Libc)
}

// fill replaces the placeholders and makes the path absolute.
func (s Source) fill(version string, p Platform, folder string) (Source, error) {
	words := strings.NewReplacer("{version}", version, "{os}", p.OS, "{arch}", p.Arch)
	s.Version, s.URL, s.Entry = version, words.Replace(s.URL), words.Replace(s.Entry)
	if s.File == "" {
		return s, nil
	}
	file := filepath.FromSlash(words.Replace(s.File))
	if rest, ok := strings.CutPrefix(file, "~"+string(filepath.Separator)); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return s, fmt.Errorf("resolving %s: %w", s.File, err)
		}
		file = filepath.Join(home, rest)
	} else if !filepath.IsAbs(file) {
		file = filepath.Join(folder, file)
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return s, fmt.Errorf("resolving %s: %w", file, err)
	}
	s.File = absolute
	return s, nil
}
