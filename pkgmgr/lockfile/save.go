package lockfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

// Save writes the changes since the lockfile was read to the file, which it replaces atomically.
// It reads the file again under a file lock to keep the changes of concurrent runs. If two
// runs resolved the same version constraint, the newer version takes precedence.
func (l *Lock) Save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "" || reflect.DeepEqual(l.file, l.saved) && !l.hasOldSchema() {
		return nil
	}
	if err := l.merge(); err != nil {
		return fileError(l.path, "cannot write the lockfile "+l.path, err)
	}
	l.file.Form = 0
	l.saved = l.file.clone()
	return nil
}

// hasOldSchema reports whether the file has schema 0. Save rewrites such a file.
func (l *Lock) hasOldSchema() bool { return l.saved.Form != 0 }

// merge merges the changes of the lockfile into the current file.
func (l *Lock) merge() error {
	unlock, err := atomicfile.Lock(l.path)
	if err != nil {
		return err
	}
	defer unlock()
	current, err := readLock(l.path)
	if err != nil {
		return err
	}
	oldText := current.text()
	current.Workers = mergeEntries(l.saved.Workers, l.file.Workers, current.Workers, Worker.same, newerWorker)
	current.Sources = mergeEntries(l.saved.Sources, l.file.Sources, current.Sources, Source.same, nil)
	current.Pins = mergeEntries(l.saved.Pins, l.file.Pins, current.Pins, Pin.same, nil)
	text := current.text()
	if text == oldText && current.Form == 0 {
		return nil
	}
	return atomicfile.Write(l.path, 0o644, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

// mergeEntries returns theirs with the changes between base and mine. If both changed the same
// entry, resolve returns the result; without resolve, mine takes precedence.
func mergeEntries[T any](base, mine, theirs []T, same func(T, T) bool, resolve func(mine, theirs T) T) []T {
	find := func(list []T, e T) int {
		return slices.IndexFunc(list, func(o T) bool { return same(o, e) })
	}
	out := slices.DeleteFunc(slices.Clone(theirs), func(e T) bool {
		return find(base, e) >= 0 && find(mine, e) < 0
	})
	for _, e := range mine {
		old, at := find(base, e), find(out, e)
		switch {
		case old >= 0 && reflect.DeepEqual(base[old], e):
			// Unchanged in mine: keep theirs.
		case at < 0:
			out = append(out, e)
		case resolve != nil && (old < 0 || !reflect.DeepEqual(base[old], out[at])):
			out[at] = resolve(e, out[at])
		default:
			out[at] = e
		}
	}
	return out
}

// newerWorker returns the newer of two versions for the same version constraint. It sets
// Previous to the other version, because hives may have installed it.
func newerWorker(mine, theirs Worker) Worker {
	if version.Compare(mine.Version, theirs.Version) < 0 {
		mine, theirs = theirs, mine
	}
	if mine.Version != theirs.Version {
		mine.Previous = theirs.Version
	}
	return mine
}

func (w Worker) same(o Worker) bool {
	return w.Type == o.Type && w.Requested == o.Requested
}

func (s Source) same(o Source) bool {
	return s.Type == o.Type && s.Version == o.Version && s.Source == o.Source && s.Platform == o.Platform
}

func (p Pin) same(o Pin) bool { return p.Hive == o.Hive && p.Type == o.Type }

// readLock reads a lockfile. It returns empty content if the file does not exist.
func readLock(path string) (content, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return content{}, nil
	}
	if err != nil {
		return content{}, err
	}
	f, err := parse(data)
	if err != nil && operations.ReasonOf(err) == operations.ReasonFailed {
		err = &invalidError{err}
	}
	return f, err
}

// Changes contains the entries of a lockfile that were added or replaced. It does not include
// pins, because a pin is removed only after the upgrade has been applied.
type Changes struct {
	Workers []Worker `json:"workers,omitempty"`
	Sources []Source `json:"sources,omitempty"`
}

// UnsavedChanges returns the changes since the lockfile was read or saved. For a lockfile in memory, it
// returns all entries.
func (l *Lock) UnsavedChanges() Changes {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Changes{
		Workers: slices.Clone(addedEntries(l.saved.Workers, l.file.Workers)), Sources: slices.Clone(addedEntries(l.saved.Sources, l.file.Sources)),
	}
}

// Merge applies changes from another copy of the lockfile. If both resolved a version constraint,
// the newer version takes precedence, so that an old plan does not revert an upgrade. Merge
// is idempotent.
func (l *Lock) Merge(c Changes) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.Workers = slices.Clone(l.file.Workers)
	for _, w := range c.Workers {
		i := slices.IndexFunc(l.file.Workers, w.same)
		switch {
		case i < 0:
			l.file.Workers = append(l.file.Workers, w)
		case version.Compare(w.Version, l.file.Workers[i].Version) > 0:
			l.file.Workers[i] = newerWorker(w, l.file.Workers[i])
		}
	}
	l.file.Sources = slices.Clone(l.file.Sources)
	for _, s := range c.Sources {
		if i := slices.IndexFunc(l.file.Sources, s.same); i < 0 {
			l.file.Sources = append(l.file.Sources, s)
		} else {
			l.file.Sources[i] = s
		}
	}
}

// addedEntries returns the entries of after that before does not contain.
func addedEntries[T any](before, after []T) []T {
	var list []T
	for _, e := range after {
		if !slices.ContainsFunc(before, func(o T) bool { return reflect.DeepEqual(o, e) }) {
			list = append(list, e)
		}
	}
	return list
}

// FromBundle parses the lockfile of a bundle. It returns a lockfile with the pins and the path of
// other.
func FromBundle(data []byte, other *Lock) (*Lock, error) {
	file, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("cannot read the lockfile of the bundle: %w", err)
	}
	other.mu.Lock()
	defer other.mu.Unlock()
	file.Pins = slices.Clone(other.file.Pins)
	// Save merges relative to the entries of other for the same version constraints.
	base := content{Pins: slices.Clone(other.saved.Pins)}
	for _, w := range other.saved.Workers {
		if slices.ContainsFunc(file.Workers, w.same) {
			base.Workers = append(base.Workers, w)
		}
	}
	return &Lock{path: other.path, file: file, saved: base}, nil
}
