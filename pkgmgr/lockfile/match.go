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

// stepsMark begins the sum of a source's steps in the lock.
const stepsMark = "steps:"

// StepsDigest tells what decides a source's bits from others: its steps and, where
// packages are chosen, the oldest glibc that these may need. Which machines get the
// source, how it is called and how it is started are no part of that.
func StepsDigest(s *catalog.Source) string {
	what := struct {
		Steps []catalog.Step
		Glibc int `json:",omitempty"`
	}{Steps: slices.Clone(s.Steps)}
	for i := range what.Steps {
		what.Steps[i].Pos = config.Pos{}
		if what.Steps[i].Python != nil {
			what.Glibc = glibcMinor(s.Glibc)
		}
	}
	data, err := json.Marshal(what)
	if err != nil {
		return "" // plain values: it cannot fail
	}
	sum := sha256.Sum256(data)
	return stepsMark + hex.EncodeToString(sum[:8])
}

// Steps is what a source consists of; false if that is not known for these steps of
// the recipe. A recipe may call the source otherwise by now.
func (l *Lock) Steps(key Source) ([]wire.InstallStep, bool) {
	found, ok := l.Source(key)
	return found.Steps, ok
}

// Source is steps with everything else that is known of the source.
func (l *Lock) Source(key Source) (Source, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	best, rank := Source{}, 0
	// What was there at first counts too: another source may have taken the name.
	for _, s := range slices.Concat(l.file.Sources, l.base.Sources) {
		named := s
		named.Source = key.Source
		if !named.same(key) || s.Recipe != key.Recipe {
			continue
		}
		own := 1
		if s.Source == key.Source {
			own = 2
		}
		if own > rank {
			best, rank = s, own
		}
	}
	if rank == 0 {
		return Source{}, false
	}
	key.Floor = best.Floor
	if !best.same(key) || best.Recipe != key.Recipe {
		l.putSteps(key, best.Steps)
	}
	key.Steps = CloneSteps(best.Steps)
	return key, true
}

// LastFloor is the floor that another version of a source was resolved for; nil if
// none is known.
func (l *Lock) LastFloor(key Source) *GlibcFloor {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last Source
	for _, s := range l.file.Sources {
		same := s.Type == key.Type && s.Source == key.Source && s.Platform == key.Platform
		if same && s.Floor != nil && (last.Floor == nil || version.Compare(s.Version, last.Version) > 0) {
			last = s
		}
	}
	return last.Floor
}

// Outdated is what a source consisted of before its steps in the recipe changed;
// false if nothing is known of it.
func (l *Lock) Outdated(key Source) ([]wire.InstallStep, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.file.Sources, key.same)
	if i < 0 || l.file.Sources[i].Recipe == key.Recipe {
		return nil, false
	}
	return CloneSteps(l.file.Sources[i].Steps), true
}

// Requirement is a line such as "torch[extra]>=2.9, <3; python_version < '3.13'".
var Requirement = regexp.MustCompile(`^\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*([^;]*?)\s*(;.*)?$`)

// glibcMinor is the minor version of a glibc, or of the one that packages are chosen
// for where none is named.
func glibcMinor(glibc string) int {
	if _, minor, ok := strings.Cut(glibc, "."); ok {
		if n, err := strconv.Atoi(minor); err == nil {
			return n
		}
	}
	return wheel.DefaultGlibc
}

// ChangedFiles words how the files of a version differ from those that were locked of
// it before.
func ChangedFiles(version string, was, now []wire.InstallStep) (from, to string) {
	from, to = version+without(was, now), version+without(now, was)
	if from == to {
		to += " (installed otherwise)"
	}
	return from, to
}

// without names what is in some steps and not in others, in parentheses; empty for
// nothing.
func without(steps, others []wire.InstallStep) string {
	known := map[string]bool{}
	for i := range others {
		for _, a := range others[i].Artifacts() {
			known[a.SHA256] = true
		}
	}
	var names []string
	for i := range steps {
		if p := steps[i].Python; p != nil {
			known[p.UV.Artifact.SHA256] = true // is not what is installed
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
	const few = 3
	more := ""
	if len(names) > few {
		more = fmt.Sprintf(" and %d more", len(names)-few)
		names = names[:few]
	}
	return " (" + strings.Join(names, ", ") + more + ")"
}
