package pkgmgr

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
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
	file lockFileContent
	was  string // the file's content when it was read

	files []LockedSource // of files on this machine, which are never written to the lock
}

// lockFileContent is the file.
type lockFileContent struct {
	Version int            `json:"lock"` // of the file's form
	Workers []LockedWorker `json:"workers,omitempty"`
	Sources []LockedSource `json:"sources,omitempty"`
	Holds   []Hold         `json:"holds,omitempty"`
}

// LockedWorker is the version that a wish stands for.
type LockedWorker struct {
	Type       string    `json:"type"`
	Requested  string    `json:"requested"` // as the config says it
	Version    string    `json:"version"`
	Previous   string    `json:"previous,omitempty"` // what it stood for before
	ResolvedAt time.Time `json:"resolved_at"`
}

// LockedSource is what one source of a recipe consists of, for one version and
// platform.
type LockedSource struct {
	Type     string             `json:"type"`
	Version  string             `json:"version"`
	Source   string             `json:"source"`   // its name, or its number if it has none
	Platform string             `json:"platform"` // such as "linux/amd64 (glibc)"
	Recipe   string             `json:"recipe"`   // tells the recipe's steps from others
	Steps    []wire.InstallStep `json:"steps"`
}

// Hold keeps a hive's worker at a version, whatever the config's wish stands for.
// A rollback makes it; an upgrade of the type ends it.
type Hold struct {
	Hive    string    `json:"hive"`
	Type    string    `json:"type"`
	Version string    `json:"version"`
	Since   time.Time `json:"since"`
}

// lockForm is the version of the file's form.
const lockForm = 1

// LockPath is the place of a config's lock: the config's name with .lock in place
// of its ending.
func LockPath(configPath string) string {
	return strings.TrimSuffix(configPath, filepath.Ext(configPath)) + ".lock"
}

// LoadLock reads a lock. A file that does not exist is an empty lock; so is an
// empty path, which is never written either.
func LoadLock(path string) (*Lock, error) {
	l := &Lock{path: path, file: lockFileContent{Version: lockForm}}
	if path == "" {
		return l, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = l.read(data)
	}
	if err != nil {
		return nil, &operations.Error{Code: operations.CodeConfigInvalid, Message: fmt.Sprintf("cannot read the lock %s: %v", path, err), Err: err}
	}
	return l, nil
}

func (l *Lock) read(data []byte) error {
	l.file = lockFileContent{}
	if err := json.Unmarshal(data, &l.file); err != nil {
		return err
	}
	if l.file.Version != lockForm {
		return fmt.Errorf("it has form %d, this rbee knows %d", l.file.Version, lockForm)
	}
	for _, s := range l.file.Sources {
		for i := range s.Steps {
			for _, a := range s.Steps[i].Artefacts() {
				if !sha256Regexp.MatchString(a.SHA256) {
					return fmt.Errorf("%s %s: %s has no SHA-256", s.Type, s.Version, a.Name)
				}
			}
		}
	}
	for _, w := range l.file.Workers {
		if !ValidVersion(w.Version) {
			return fmt.Errorf("%s: %q is no version", w.Type, w.Version)
		}
	}
	l.was = l.text()
	return nil
}

// text is the content of the file, sorted, without what nothing refers to.
func (l *Lock) text() string {
	f := l.file
	f.Workers, f.Holds = slices.Clone(f.Workers), slices.Clone(f.Holds)
	f.Sources = slices.DeleteFunc(slices.Clone(f.Sources), func(s LockedSource) bool {
		used := slices.ContainsFunc(f.Workers, func(w LockedWorker) bool {
			return w.Type == s.Type && (w.Version == s.Version || w.Previous == s.Version)
		}) || slices.ContainsFunc(f.Holds, func(h Hold) bool { return h.Type == s.Type && h.Version == s.Version })
		return !used
	})
	sort.Slice(f.Workers, func(i, j int) bool {
		a, b := &f.Workers[i], &f.Workers[j]
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Requested, b.Requested)) < 0
	})
	sort.Slice(f.Sources, func(i, j int) bool {
		a, b := &f.Sources[i], &f.Sources[j]
		return cmp.Or(cmp.Compare(a.Type, b.Type), CompareVersions(a.Version, b.Version), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Platform, b.Platform)) < 0
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

// Save writes the lock where it has changed, whole or not at all.
func (l *Lock) Save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.text()
	if l.path == "" || text == l.was || l.was == "" && len(l.file.Workers)+len(l.file.Holds) == 0 {
		return nil
	}
	if err := writeWhole(l.path, 0o644, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}); err != nil {
		return fmt.Errorf("writing the lock: %w", err)
	}
	l.was = text
	return nil
}

// Workers lists the versions that wishes stand for.
func (l *Lock) Workers() []LockedWorker {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.file.Workers)
}

// worker is what a wish stands for; false if that is not known.
func (l *Lock) worker(typ, requested string) (LockedWorker, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.file.Workers, func(w LockedWorker) bool { return w.Type == typ && w.Requested == requested })
	if i < 0 {
		return LockedWorker{}, false
	}
	return l.file.Workers[i], true
}

// setWorker notes what a wish stands for from now on.
func (l *Lock) setWorker(typ, requested, version string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := LockedWorker{Type: typ, Requested: requested, Version: version, ResolvedAt: now.UTC().Truncate(time.Second)}
	i := slices.IndexFunc(l.file.Workers, func(w LockedWorker) bool { return w.Type == typ && w.Requested == requested })
	if i < 0 {
		l.file.Workers = append(l.file.Workers, w)
		return
	}
	if have := l.file.Workers[i]; have.Version != version {
		w.Previous = have.Version
		l.file.Workers[i] = w
	}
}

// steps is what a source consists of; false if that is not known for these steps
// of the recipe.
func (l *Lock) steps(key LockedSource) ([]wire.InstallStep, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.file.Sources {
		if s.same(key) && s.Recipe == key.Recipe {
			return cloneSteps(s.Steps), true
		}
	}
	return nil, false
}

func (s LockedSource) same(o LockedSource) bool {
	return s.Type == o.Type && s.Version == o.Version && s.Source == o.Source && s.Platform == o.Platform
}

// remember notes what a source of files on this machine consists of, for a bundle.
func (l *Lock) remember(key LockedSource, steps []wire.InstallStep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key.Steps = cloneSteps(steps)
	l.files = append(slices.DeleteFunc(l.files, key.same), key)
}

// whole is the lock's content with the sources of files on this machine.
func (l *Lock) whole() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	with := &Lock{file: l.file}
	with.file.Sources = slices.Concat(l.file.Sources, l.files)
	with.file.Workers = slices.Clone(l.file.Workers)
	for _, s := range l.files {
		// Named, so that they count as used.
		with.file.Workers = append(with.file.Workers, LockedWorker{Type: s.Type, Requested: s.Version, Version: s.Version})
	}
	return with.text()
}

func (l *Lock) setSteps(key LockedSource, steps []wire.InstallStep) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key.Steps = cloneSteps(steps)
	l.file.Sources = append(slices.DeleteFunc(l.file.Sources, key.same), key)
}

// cloneSteps copies steps, so that one copy's addresses can change.
func cloneSteps(steps []wire.InstallStep) []wire.InstallStep {
	out := slices.Clone(steps)
	for i := range out {
		if a := out[i].Artefact; a != nil {
			c := *a
			out[i].Artefact = &c
		}
		if p := out[i].Python; p != nil {
			c := *p
			c.Wheels = slices.Clone(p.Wheels)
			out[i].Python = &c
		}
	}
	return out
}

// held is the version that a hive's worker is kept at; empty for none.
func (l *Lock) held(hive, typ string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.file.Holds {
		if h.Hive == hive && h.Type == typ {
			return h.Version
		}
	}
	return ""
}

// Hold keeps a hive's worker at a version until the type is upgraded.
func (l *Lock) Hold(hive, typ, version string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.Holds = append(slices.DeleteFunc(l.file.Holds, func(h Hold) bool { return h.Hive == hive && h.Type == typ }),
		Hold{Hive: hive, Type: typ, Version: version, Since: now.UTC().Truncate(time.Second)})
}

// release ends the holds of a type.
func (l *Lock) release(typ string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.Holds = slices.DeleteFunc(l.file.Holds, func(h Hold) bool { return h.Type == typ })
}
