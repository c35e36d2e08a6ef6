package lockfile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/wheel"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// digestPrefix is the prefix of the digest of a source's steps in the lockfile.
const digestPrefix = "steps:"

// StepsDigest returns a digest of the parts of a source that determine the installed files:
// its steps and, if it installs Python packages, its minimum glibc. The digest does not depend
// on the name of the source, its requirements for machines, its start parameters, or comments
// and positions in the recipe file.
func StepsDigest(s *catalog.Source) string {
	input := struct {
		Steps []catalog.Step
		Glibc int `json:",omitempty"`
	}{Steps: slices.Clone(s.Steps)}
	for i := range input.Steps {
		input.Steps[i].Pos = config.Pos{}
		if input.Steps[i].Python != nil {
			input.Glibc = minorOrDefault(s.Glibc)
		}
	}
	data, err := json.Marshal(input)
	if err != nil {
		return "" // cannot happen for these types
	}
	sum := sha256.Sum256(data)
	return digestPrefix + hex.EncodeToString(sum[:8])
}

// Steps returns the locked steps of a source; see [Lock.Source].
func (l *Lock) Steps(key Source) ([]wire.InstallStep, bool) {
	source, ok := l.Source(key)
	return source.Steps, ok
}

// Source returns the locked source with the type, version, platform and recipe digest of key.
// It reports false if the source is not locked, or if it is locked with other steps than the
// recipe has now. If the name of the source has changed, Source also records the source under
// the new name.
func (l *Lock) Source(key Source) (Source, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	best, rank := Source{}, 0
	// Include the saved sources: another source with the same name may have replaced one.
	for _, s := range slices.Concat(l.file.Sources, l.saved.Sources) {
		candidate := s
		candidate.Source = key.Source // ignore the name
		if !candidate.same(key) || s.Recipe != key.Recipe {
			continue
		}
		r := 1
		if s.Source == key.Source {
			r = 2
		}
		if r > rank {
			best, rank = s, r
		}
	}
	if rank == 0 {
		return Source{}, false
	}
	key.Floor = best.Floor
	if !best.same(key) || best.Recipe != key.Recipe {
		l.setSteps(key, best.Steps)
	}
	key.Steps = CloneSteps(best.Steps)
	return key, true
}

// LatestFloor returns the floor of the newest locked version of a source that has a floor, or
// nil.
func (l *Lock) LatestFloor(key Source) *GlibcFloor {
	l.mu.Lock()
	defer l.mu.Unlock()
	var latest Source
	for _, s := range l.file.Sources {
		same := s.Type == key.Type && s.Source == key.Source && s.Platform == key.Platform
		if same && s.Floor != nil && (latest.Floor == nil || version.Compare(s.Version, latest.Version) > 0) {
			latest = s
		}
	}
	return latest.Floor
}

// PreviousSteps returns the locked steps of a source if the steps in the recipe have changed
// since. It reports false if they have not changed or the source is not locked.
func (l *Lock) PreviousSteps(key Source) ([]wire.InstallStep, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.file.Sources, key.same)
	if i < 0 || l.file.Sources[i].Recipe == key.Recipe {
		return nil, false
	}
	return CloneSteps(l.file.Sources[i].Steps), true
}

// Requirement matches a line such as "torch[extra]>=2.9, <3; python_version < '3.13'". The
// first group is the name of the package, the second its version specifiers and the third the
// marker.
var Requirement = regexp.MustCompile(`^\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*([^;]*?)\s*(;.*)?$`)

// minorOrDefault returns the minor version of a glibc, or of the default glibc for resolving
// packages if glibc is empty or invalid.
func minorOrDefault(glibc string) int {
	if _, minor, ok := strings.Cut(glibc, "."); ok {
		if n, err := strconv.Atoi(minor); err == nil {
			return n
		}
	}
	return wheel.DefaultGlibc
}

// ChangedFiles describes the changes of the files of a version for messages. from is the
// version with the names of the removed files, and to with the names of the added files.
func ChangedFiles(version string, before, after []wire.InstallStep) (from, to string) {
	from, to = version+describeOnlyIn(before, after), version+describeOnlyIn(after, before)
	if from == to {
		to += " (different steps)"
	}
	return from, to
}

// describeOnlyIn returns the names of the artifacts in steps that are not in others, in
// parentheses, or "" if others contains all of them.
func describeOnlyIn(steps, others []wire.InstallStep) string {
	known := map[string]bool{}
	for i := range others {
		for _, a := range others[i].Artifacts() {
			known[a.SHA256] = true
		}
	}
	var names []string
	for i := range steps {
		if p := steps[i].Python; p != nil {
			known[p.UV.Artifact.SHA256] = true // uv is not installed
		}
		for _, a := range steps[i].Artifacts() {
			if known[a.SHA256] {
				continue
			}
			name := a.Name
			if w, ok := wheel.Parse(name); ok {
				name = w.Name + " " + w.Version
			}
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	const maxNames = 3
	more := ""
	if len(names) > maxNames {
		more = fmt.Sprintf(" and %d more", len(names)-maxNames)
		names = names[:maxNames]
	}
	return " (" + strings.Join(names, ", ") + more + ")"
}
