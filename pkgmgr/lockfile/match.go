package lockfile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
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

// stepsMark begins the sum of a source's steps in the lock. Sums without it are of an
// earlier rbee, and of more than the steps.
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
// the recipe. A recipe may call the source otherwise by now. An entry of an earlier
// rbee counts if fits says that it may be what the steps come to.
func (l *Lock) Steps(key Source, fits func([]wire.InstallStep) bool) ([]wire.InstallStep, bool) {
	found, ok := l.Source(key, fits)
	return found.Steps, ok
}

// Source is steps with everything else that is known of the source.
func (l *Lock) Source(key Source, fits func([]wire.InstallStep) bool) (Source, bool) {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	best, rank := Source{}, 0
	// What was there at first counts too: another source may have taken the name.
	for _, s := range slices.Concat(l.File.Sources, l.Base.Sources) {
		named := s
		named.Source = key.Source
		if !named.same(key) {
			continue
		}
		own, sameSteps := 0, s.Recipe == key.Recipe
		if s.Source == key.Source {
			own = 1
		}
		switch {
		case sameSteps && 3+own > rank:
			best, rank = s, 3+own
		case !sameSteps && !strings.HasPrefix(s.Recipe, stepsMark) && 1+own > rank && fits(s.Steps):
			best, rank = s, 1+own
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
	l.Mu.Lock()
	defer l.Mu.Unlock()
	var last Source
	for _, s := range l.File.Sources {
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
	l.Mu.Lock()
	defer l.Mu.Unlock()
	i := slices.IndexFunc(l.File.Sources, key.same)
	if i < 0 || l.File.Sources[i].Recipe == key.Recipe {
		return nil, false
	}
	return CloneSteps(l.File.Sources[i].Steps), true
}

// MayBe reports whether steps may be what a source with nothing left to replace came
// to for a platform, as far as they tell.
func MayBe(s *catalog.Source, v *catalog.Versions, p wire.Platform, steps []wire.InstallStep) bool {
	if len(steps) != len(s.Steps) {
		return false
	}
	for i := range steps {
		want, have := &s.Steps[i], &steps[i]
		if want.Kind != have.Kind || want.Builtin != have.Builtin || want.Format != have.Format || want.Strip != have.Strip || want.Into != have.Into {
			return false
		}
		switch {
		case want.Python != nil:
			if have.Python == nil || !mayBePython(want.Python, s.Glibc, p, have.Python) {
				return false
			}
		case have.Artefact == nil || !mayBeOrigin(&want.Origin, v, s.Version, have.Artefact):
			return false
		}
	}
	return true
}

func mayBeOrigin(o *catalog.Origin, v *catalog.Versions, version string, a *wire.Artefact) bool {
	switch {
	case o.Asset != "":
		ok, err := path.Match(o.Asset, a.Name)
		return ok && err == nil
	case o.Code:
		return a.Name == catalog.SourceArchiveName(v, version)
	case o.URL != "":
		return a.URL == o.URL && (o.SHA256 == "" || o.SHA256 == a.SHA256)
	default:
		return a.Name == filepath.Base(o.File)
	}
}

// mayBePython compares the interpreter, and the packages with all that is said of them but
// for what a file of requirements says.
func mayBePython(want *catalog.Python, glibc string, p wire.Platform, have *wire.Python) bool {
	t := wheel.Target{Platform: p, Python: want.Version, Glibc: glibcMinor(glibc)}
	if !strings.HasPrefix(have.Interpreter.Artefact.Name, "cpython-"+want.Version+".") {
		return false
	}
	versions := map[string]string{}
	for _, a := range have.Wheels {
		w, ok := wheel.Parse(a.Name)
		if !ok || t.Rank(w) == 0 {
			return false
		}
		versions[wheel.NormalName(w.Name)] = w.Version
	}
	for _, line := range want.Packages {
		if !fulfilled(line, versions) {
			return false
		}
	}
	_, backend, _ := strings.Cut(versions["torch"], "+")
	// The index marks no build for macOS, and not every one for the CPU.
	unmarked := backend == "" && (p.OS == "darwin" || want.Torch == "cpu")
	return versions["torch"] == "" || backend == want.Torch || unmarked
}

// Requirement is a line such as "torch[extra]>=2.9, <3; python_version < '3.13'".
var Requirement = regexp.MustCompile(`^\s*([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*([^;]*?)\s*(;.*)?$`)

// fulfilled reports whether versions of packages have what a requirement asks for, as
// far as it can be read.
func fulfilled(line string, versions map[string]string) bool {
	m := Requirement.FindStringSubmatch(line)
	if m == nil {
		return true
	}
	have, ok := versions[wheel.NormalName(m[1])]
	if !ok {
		return m[3] != "" // it may not be for this platform
	}
	set, err := version.ParseRange(m[2])
	plain, _, _ := strings.Cut(have, "+")
	return err != nil || set.Has(have) || set.Has(plain)
}

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
		for _, a := range others[i].Artefacts() {
			known[a.SHA256] = true
		}
	}
	var names []string
	for i := range steps {
		if p := steps[i].Python; p != nil {
			known[p.UV.Artefact.SHA256] = true // is not what is installed
		}
		for _, a := range steps[i].Artefacts() {
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
