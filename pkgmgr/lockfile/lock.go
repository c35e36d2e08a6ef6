// Package lockfile reads and writes hives.lock, which records for every version constraint
// of a config the exact version, and for every version the files with their SHA-256, so
// that every run installs the same.
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

// Lock is what wishes of a config came to: which version "latest" or a range
// stands for, and which files make up that version, with address, size and
// SHA-256. It lies beside the config, so that every hive gets the same today and
// next year, and belongs under version control with it. Recipes that name their
// files with checksums, and servers inside rbee, need no lock.
//
// A Lock may be used by several goroutines at once.
type Lock struct {
	path string

	mu   sync.Mutex
	file content
	base content // what of it is in the file already

	files []Source // of files on this machine, which are never written to the lock
}

// content is the file.
type content struct {
	wire.Versioned
	Form    int      `json:"lock,omitempty"` // 1 in files of schema 0, which have no schema
	Workers []Worker `json:"workers,omitempty"`
	Sources []Source `json:"sources,omitempty"`
	Holds   []Pin    `json:"holds,omitempty"`

	Unknown wire.Unknown `json:"-"`
}

// Worker is the version that a wish stands for.
type Worker struct {
	Type       string    `json:"type"`
	Requested  string    `json:"requested"` // as the config says it
	Version    string    `json:"version"`
	Previous   string    `json:"previous,omitempty"` // what it stood for before
	ResolvedAt time.Time `json:"resolved_at"`

	// Unknown keeps what a newer rbee wrote.
	Unknown wire.Unknown `json:"-"`
}

// Source is what one source of a recipe consists of, for one version and
// platform.
type Source struct {
	Type     string             `json:"type"`
	Version  string             `json:"version"`
	Source   string             `json:"source"`   // its name, or its number if it has none
	Platform string             `json:"platform"` // such as "linux/amd64 (glibc)"
	Recipe   string             `json:"recipe"`   // tells the recipe's steps from others: [StepsDigest]
	Floor    *GlibcFloor        `json:"glibc,omitempty"`
	Steps    []wire.InstallStep `json:"steps"`

	// Unknown keeps what a newer rbee wrote.
	Unknown wire.Unknown `json:"-"`
}

// Pin keeps a hive's worker at a version, whatever the config's wish stands for.
// A rollback makes it; another wish in the config or an upgrade of the type ends it.
type Pin struct {
	Hive      string    `json:"hive"`
	Type      string    `json:"type"`
	Requested string    `json:"requested"` // the wish that it was made for
	Version   string    `json:"version"`
	Since     time.Time `json:"since"`

	// Unknown keeps what a newer rbee wrote.
	Unknown wire.Unknown `json:"-"`
}

// Schema is the version of the file's format, and minReader the oldest one whose readers
// understand what this rbee writes.
const (
	Schema    = 1
	minReader = 1
)

// Path is the place of a config's lock: the config's name with .lock in place
// of its ending.
func Path(configPath string) string {
	return strings.TrimSuffix(configPath, filepath.Ext(configPath)) + ".lock"
}

// Load reads a lock. A file that does not exist is an empty lock; so is an
// empty path, which is never written either.
func Load(path string) (*Lock, error) {
	if path == "" {
		return &Lock{}, nil
	}
	file, err := readLock(path)
	if err != nil {
		return nil, fileError(path, "cannot read the lock "+path, err)
	}
	return &Lock{path: path, file: file, base: file.clone()}, nil
}

// fileError returns an error about a lock's file.
func fileError(path, what string, err error) error {
	e := operations.FileError(path, what, err)
	if e.Reason == operations.ReasonLockfileInvalid || e.Reason == operations.ReasonNewerFile {
		e.Code = operations.CodeConfigInvalid
	}
	return e
}

// invalidError reports that the content of a lock's file is damaged.
type invalidError struct{ err error }

func (e *invalidError) Error() string { return e.err.Error() }
func (e *invalidError) Unwrap() error { return e.err }

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (*invalidError) ErrorCode() string { return string(operations.ReasonLockfileInvalid) }

// Parse reads the content of a lock's file.
func parse(data []byte) (f content, err error) {
	if err := json.Unmarshal(data, &f); err != nil {
		return f, err
	}
	if err := f.Readable("the lock", Schema); err != nil {
		return f, err
	}
	if f.Schema == 0 && f.Form != 1 {
		return f, errors.New("invalid lock: want a schema")
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
			return f, fmt.Errorf("%s: %q is no version", w.Type, w.Version)
		}
	}
	return f, nil
}

// clone copies the lists, so that entries of the copy can be replaced.
func (f content) clone() content {
	f.Workers, f.Sources, f.Holds = slices.Clone(f.Workers), slices.Clone(f.Sources), slices.Clone(f.Holds)
	return f
}

// text is the content of the file, sorted, without what nothing refers to.
func (f content) text() string {
	f = f.clone()
	f.Form, f.Versioned = 0, wire.Versioned{Schema: max(f.Schema, Schema), MinReader: max(f.MinReader, minReader)}
	f.Sources = slices.DeleteFunc(f.Sources, func(s Source) bool {
		used := slices.ContainsFunc(f.Workers, func(w Worker) bool {
			return w.Type == s.Type && (w.Version == s.Version || w.Previous == s.Version)
		}) || slices.ContainsFunc(f.Holds, func(h Pin) bool { return h.Type == s.Type && h.Version == s.Version })
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
	sort.Slice(f.Holds, func(i, j int) bool {
		a, b := &f.Holds[i], &f.Holds[j]
		return cmp.Or(cmp.Compare(a.Hive, b.Hive), cmp.Compare(a.Type, b.Type)) < 0
	})
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return "" // strings, numbers and times: it cannot fail
	}
	return string(data) + "\n"
}

// Workers lists the versions that wishes stand for.
func (l *Lock) Workers() []Worker {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.file.Workers)
}

// Sources returns what each source consists of, per version and platform.
func (l *Lock) Sources() []Source {
	l.mu.Lock()
	defer l.mu.Unlock()
	sources := slices.Clone(l.file.Sources)
	for i := range sources {
		sources[i].Steps = CloneSteps(sources[i].Steps)
	}
	return sources
}

// Worker is what a wish stands for; false if that is not known.
func (l *Lock) Worker(typ, requested string) (Worker, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.file.Workers, func(w Worker) bool { return w.Type == typ && w.Requested == requested })
	if i < 0 {
		return Worker{}, false
	}
	return l.file.Workers[i], true
}

// SetWorker notes what a wish stands for from now on.
func (l *Lock) SetWorker(typ, requested, version string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := Worker{Type: typ, Requested: requested, Version: version, ResolvedAt: now.UTC().Truncate(time.Second)}
	i := slices.IndexFunc(l.file.Workers, func(w Worker) bool { return w.Type == typ && w.Requested == requested })
	if i < 0 {
		l.file.Workers = append(l.file.Workers, w)
		return
	}
	if have := l.file.Workers[i]; have.Version != version {
		w.Previous, w.Unknown = have.Version, have.Unknown
		l.file.Workers[i] = w
	}
}

// Remember notes what a source of files on this machine consists of, for a bundle.
func (l *Lock) Remember(key Source, steps []wire.InstallStep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key.Steps = CloneSteps(steps)
	l.files = append(slices.DeleteFunc(l.files, key.same), key)
}

// BundleText is the lock's content with the sources of files on this machine.
func (l *Lock) BundleText() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	with := l.file.clone()
	with.Sources = append(with.Sources, l.files...)
	for _, s := range l.files {
		// Named, so that they count as used.
		with.Workers = append(with.Workers, Worker{Type: s.Type, Requested: s.Version, Version: s.Version})
	}
	return with.text()
}

// SetSteps notes what a source consists of from now on.
func (l *Lock) SetSteps(key Source, steps []wire.InstallStep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.putSteps(key, steps)
}

// putSteps is setSteps for those who have the lock.
func (l *Lock) putSteps(key Source, steps []wire.InstallStep) {
	key.Steps = CloneSteps(steps)
	l.file.Sources = append(slices.DeleteFunc(l.file.Sources, key.same), key)
}

// CloneSteps copies steps, so that one copy's addresses can change.
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

// Pinned is what keeps a hive's worker at a version, whatever it was made for; false
// if nothing does.
func (l *Lock) Pinned(hive, typ string) (Pin, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.file.Holds, Pin{Hive: hive, Type: typ}.same)
	if i < 0 {
		return Pin{}, false
	}
	return l.file.Holds[i], true
}

// Pin keeps a hive's worker at a version until the type is upgraded there, or the
// config wishes for something else than wish.
func (l *Lock) Pin(hive string, wish config.Worker, version string, now time.Time) {
	h := Pin{Hive: hive, Type: wish.Type, Requested: wish.Version, Version: version, Since: now.UTC().Truncate(time.Second)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.Holds = append(slices.DeleteFunc(l.file.Holds, h.same), h)
}

// Unpin ends what keeps a hive's worker at a version.
func (l *Lock) Unpin(hive, typ string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.Holds = slices.DeleteFunc(l.file.Holds, Pin{Hive: hive, Type: typ}.same)
}
