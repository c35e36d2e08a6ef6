// Package lockfile reads and writes hives.lock. The lockfile records the exact version for each
// version constraint of a config, and the files of each version with their SHA-256, so that
// installations are reproducible.
package lockfile

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Lock contains the resolved version constraints of a config: the version that "latest" or a
// range resolves to, and the files of that version with address, size and SHA-256. Its file
// is stored next to the config; commit both to version control. Built-in servers and recipes
// with checksums do not need a lockfile.
//
// A Lock is safe for concurrent use.
type Lock struct {
	path string

	mu    sync.Mutex
	file  content
	saved content // the content of the file when it was read or saved

	localFiles []Source // sources that install files from this machine; not saved
}

// content is the content of the lockfile.
type content struct {
	wire.Versioned
	Form    int      `json:"lock,omitempty"` // 1 in files of schema 0, which have no key "schema"
	Workers []Worker `json:"workers,omitempty"`
	Sources []Source `json:"sources,omitempty"`
	Pins    []Pin    `json:"holds,omitempty"`

	Unknown wire.Unknown `json:"-"`
}

// Worker is the version that a version constraint resolves to.
type Worker struct {
	Type       string    `json:"type"`
	Requested  string    `json:"requested"` // version constraint in the config
	Version    string    `json:"version"`
	Previous   string    `json:"previous,omitempty"` // the previous Version
	ResolvedAt time.Time `json:"resolved_at"`

	// Unknown keeps the fields that a newer rbee wrote.
	Unknown wire.Unknown `json:"-"`
}

// Source contains the resolved steps of a source of a recipe, for a version and platform.
type Source struct {
	Type     string             `json:"type"`
	Version  string             `json:"version"`
	Source   string             `json:"source"`   // name of the source, or its number if it has no name
	Platform string             `json:"platform"` // such as "linux/amd64 (glibc)"
	Recipe   string             `json:"recipe"`   // digest of the recipe's steps: [StepsDigest]
	Floor    *GlibcFloor        `json:"glibc,omitempty"`
	Steps    []wire.InstallStep `json:"steps"`

	// Unknown keeps the fields that a newer rbee wrote.
	Unknown wire.Unknown `json:"-"`
}

// Pin fixes the version of a worker on a hive, independent of the version that the constraint
// resolves to. A rollback creates a pin. A different constraint in the config or an upgrade of
// the type removes the pin.
type Pin struct {
	Hive      string    `json:"hive"`
	Type      string    `json:"type"`
	Requested string    `json:"requested"` // version constraint in the config when the pin was created
	Version   string    `json:"version"`
	Since     time.Time `json:"since"`

	// Unknown keeps the fields that a newer rbee wrote.
	Unknown wire.Unknown `json:"-"`
}

// Schema is the version of the file format. minReader is the oldest version whose readers
// can read files that this rbee writes.
const (
	Schema    = 1
	minReader = 1
)

// Path returns the path of the lockfile of a config: the path of the config with the extension .lock.
func Path(configPath string) string {
	return strings.TrimSuffix(configPath, filepath.Ext(configPath)) + ".lock"
}

// Load reads a lockfile. It returns an empty lockfile if the file does not exist. A lockfile with an empty
// path is in memory only.
func Load(path string) (*Lock, error) {
	if path == "" {
		return &Lock{}, nil
	}
	file, err := readLock(path)
	if err != nil {
		return nil, fileError(path, "cannot read the lockfile "+path, err)
	}
	return &Lock{path: path, file: file, saved: file.clone()}, nil
}

// fileError returns the error for a failed operation on a lockfile.
func fileError(path, message string, err error) error {
	e := operations.FileError(path, message, err)
	if e.Reason == operations.ReasonLockfileInvalid || e.Reason == operations.ReasonNewerFile {
		e.Code = operations.CodeConfigInvalid
	}
	return e
}

// invalidError reports a damaged lockfile.
type invalidError struct{ err error }

func (e *invalidError) Error() string { return e.err.Error() }
func (e *invalidError) Unwrap() error { return e.err }

// ErrorCode returns [operations.ReasonLockfileInvalid].
func (*invalidError) ErrorCode() string { return string(operations.ReasonLockfileInvalid) }

// parse decodes the content of a lockfile.
func parse(data []byte) (f content, err error) {
	if err := json.Unmarshal(data, &f); err != nil {
		return f, err
	}
	if err := f.CheckReadable("the lockfile", Schema); err != nil {
		return f, err
	}
	if f.Schema == 0 && f.Form != 1 {
		return f, errors.New(`invalid lock: want the key "schema"`)
	}
	for _, s := range f.Sources {
		for i := range s.Steps {
			for _, a := range s.Steps[i].Artifacts() {
				if !wire.ValidSHA256(a.SHA256) {
					return f, fmt.Errorf("%s %s: %s has no SHA-256", s.Type, s.Version, a.Name)
				}
			}
		}
	}
	for _, w := range f.Workers {
		if !version.Valid(w.Version) {
			return f, fmt.Errorf("%s: invalid version %q", w.Type, w.Version)
		}
	}
	return f, nil
}

// clone returns a copy of f. Changes of its lists do not affect f.
func (f content) clone() content {
	f.Workers, f.Sources, f.Pins = slices.Clone(f.Workers), slices.Clone(f.Sources), slices.Clone(f.Pins)
	return f
}

// text returns the encoded file, sorted and without unused sources.
func (f content) text() string {
	f = f.clone()
	f.Form, f.Versioned = 0, wire.Versioned{Schema: max(f.Schema, Schema), MinReader: max(f.MinReader, minReader)}
	f.Sources = slices.DeleteFunc(f.Sources, func(s Source) bool {
		used := slices.ContainsFunc(f.Workers, func(w Worker) bool {
			return w.Type == s.Type && (w.Version == s.Version || w.Previous == s.Version)
		}) || slices.ContainsFunc(f.Pins, func(p Pin) bool { return p.Type == s.Type && p.Version == s.Version })
		return !used
	})
	sort.Slice(f.Workers, func(i, j int) bool {
		a, b := &f.Workers[i], &f.Workers[j]
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Requested, b.Requested)) < 0
	})
	sort.Slice(f.Sources, func(i, j int) bool {
		a, b := &f.Sources[i], &f.Sources[j]
		return cmp.Or(cmp.Compare(a.Type, b.Type), version.Compare(a.Version, b.Version), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Platform, b.Platform)) < 0
	})
	sort.Slice(f.Pins, func(i, j int) bool {
		a, b := &f.Pins[i], &f.Pins[j]
		return cmp.Or(cmp.Compare(a.Hive, b.Hive), cmp.Compare(a.Type, b.Type)) < 0
	})
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return "" // cannot happen for these types
	}
	return string(data) + "\n"
}

// Workers returns the resolved version constraints.
func (l *Lock) Workers() []Worker {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.file.Workers)
}

// Sources returns the locked sources, for each version and platform.
func (l *Lock) Sources() []Source {
	l.mu.Lock()
	defer l.mu.Unlock()
	sources := slices.Clone(l.file.Sources)
	for i := range sources {
		sources[i].Steps = CloneSteps(sources[i].Steps)
	}
	return sources
}

// Worker returns the version that a version constraint resolves to and whether it is locked.
func (l *Lock) Worker(typ, requested string) (Worker, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.file.Workers, func(w Worker) bool { return w.Type == typ && w.Requested == requested })
	if i < 0 {
		return Worker{}, false
	}
	return l.file.Workers[i], true
}

// SetWorker records the version that a version constraint resolves to.
func (l *Lock) SetWorker(typ, requested, version string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := Worker{Type: typ, Requested: requested, Version: version, ResolvedAt: now.UTC().Truncate(time.Second)}
	i := slices.IndexFunc(l.file.Workers, func(w Worker) bool { return w.Type == typ && w.Requested == requested })
	if i < 0 {
		l.file.Workers = append(l.file.Workers, w)
		return
	}
	if old := l.file.Workers[i]; old.Version != version {
		w.Previous, w.Unknown = old.Version, old.Unknown
		l.file.Workers[i] = w
	}
}

// SetLocalSteps records the steps of a source that installs files from this machine. The steps
// are included in a bundle but not saved.
func (l *Lock) SetLocalSteps(key Source, steps []wire.InstallStep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key.Steps = CloneSteps(steps)
	l.localFiles = append(slices.DeleteFunc(l.localFiles, key.same), key)
}

// BundleText returns the encoded lockfile for a bundle, including the sources that install files
// from this machine.
func (l *Lock) BundleText() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.file.clone()
	f.Sources = append(f.Sources, l.localFiles...)
	for _, s := range l.localFiles {
		// text omits sources without a worker.
		f.Workers = append(f.Workers, Worker{Type: s.Type, Requested: s.Version, Version: s.Version})
	}
	return f.text()
}

// SetSteps records the steps of a source.
func (l *Lock) SetSteps(key Source, steps []wire.InstallStep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.setSteps(key, steps)
}

// setSteps records the steps of a source. The caller must hold l.mu.
func (l *Lock) setSteps(key Source, steps []wire.InstallStep) {
	key.Steps = CloneSteps(steps)
	l.file.Sources = append(slices.DeleteFunc(l.file.Sources, key.same), key)
}

// CloneSteps returns a copy of steps. Changes of its artifacts do not affect steps.
func CloneSteps(steps []wire.InstallStep) []wire.InstallStep {
	out := slices.Clone(steps)
	for i := range out {
		if a := out[i].Artifact; a != nil {
			c := *a
			out[i].Artifact = &c
		}
		if p := out[i].Python; p != nil {
			c := *p
			c.Wheels = slices.Clone(p.Wheels)
			out[i].Python = &c
		}
	}
	return out
}

// Pinned returns the pin of a worker on a hive and whether it exists. The pin may have been
// created for another version constraint.
func (l *Lock) Pinned(hive, typ string) (Pin, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.file.Pins, Pin{Hive: hive, Type: typ}.same)
	if i < 0 {
		return Pin{}, false
	}
	return l.file.Pins[i], true
}

// Pin fixes the version of a worker on a hive, until the type is upgraded or the version
// constraint of w in the config changes.
func (l *Lock) Pin(hive string, w config.Worker, version string, now time.Time) {
	p := Pin{Hive: hive, Type: w.Type, Requested: w.Version, Version: version, Since: now.UTC().Truncate(time.Second)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.Pins = append(slices.DeleteFunc(l.file.Pins, p.same), p)
}

// Unpin removes the pin of a worker on a hive.
func (l *Lock) Unpin(hive, typ string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.Pins = slices.DeleteFunc(l.file.Pins, Pin{Hive: hive, Type: typ}.same)
}
