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

// Save writes what has changed in this lock since it was read into the file, whole
// or not at all. The file is read again for that, under a lock of the kernel: what
// other runs have written meanwhile stays. Of two runs that gave a wish another
// version each, the newer version counts.
func (l *Lock) Save() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path == "" || reflect.DeepEqual(l.file, l.base) && !l.outdated() {
		return nil
	}
	if err := l.merge(); err != nil {
		return fileError(l.path, "writing the lock", err)
	}
	l.file.Form = 0
	l.base = l.file.clone()
	return nil
}

// outdated reports whether the file is of an earlier schema, which saving rewrites.
func (l *Lock) outdated() bool { return l.base.Form != 0 }

// merge puts what has changed into the file as it is now.
func (l *Lock) merge() error {
	unlock, err := atomicfile.Lock(l.path)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := readLock(l.path)
	if err != nil {
		return err
	}
	was := now.text()
	now.Workers = merged(l.base.Workers, l.file.Workers, now.Workers, Worker.same, newerWorker)
	now.Sources = merged(l.base.Sources, l.file.Sources, now.Sources, Source.same, nil)
	now.Holds = merged(l.base.Holds, l.file.Holds, now.Holds, Pin.same, nil)
	text := now.text()
	if text == was && now.Form == 0 {
		return nil
	}
	return atomicfile.Write(l.path, 0o644, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
}

// merged is theirs with what has changed from base to mine. Where they have changed
// the same entry, both decides; nil takes mine.
func merged[T any](base, mine, theirs []T, same func(T, T) bool, both func(mine, theirs T) T) []T {
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
			// It is theirs to say what became of it.
		case at < 0:
			out = append(out, e)
		case both != nil && (old < 0 || !reflect.DeepEqual(base[old], out[at])):
			out[at] = both(e, out[at])
		default:
			out[at] = e
		}
	}
	return out
}

// newerWorker is what a wish stands for that two runs have resolved at once. The
// other version is kept as the one before: hives may have it.
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

// readLock reads a lock's file; one that does not exist is empty.
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

// Changes lists the entries of a lock that were added or replaced. A removed pin is not
// a change of the plan: it is removed once the upgrade has been applied.
type Changes struct {
	Workers []Worker `json:"workers,omitempty"`
	Sources []Source `json:"sources,omitempty"`
}

// Unsaved returns what differs from the file, or, for a lock without a file, everything.
func (l *Lock) Unsaved() Changes {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Changes{
		Workers: slices.Clone(added(l.base.Workers, l.file.Workers)), Sources: slices.Clone(added(l.base.Sources, l.file.Sources)),
	}
}

// Merge adds changes that were made in another copy of the lock. Where both have
// resolved a version constraint, the newer version counts, so that an old plan does not
// take back an upgrade. Merging the same changes again changes nothing.
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

// added returns the entries of now that before does not contain.
func added[T any](before, now []T) []T {
	var list []T
	for _, e := range now {
		if !slices.ContainsFunc(before, func(o T) bool { return reflect.DeepEqual(o, e) }) {
			list = append(list, e)
		}
	}
	return list
}

// FromBundle returns the lock that data has, for the hives of other: it keeps other's
// pins and its path.
func FromBundle(data []byte, other *Lock) (*Lock, error) {
	file, err := parse(data)
	if err != nil {
		return nil, fmt.Errorf("the bundle's lock: %w", err)
	}
	other.mu.Lock()
	defer other.mu.Unlock()
	file.Holds = slices.Clone(other.file.Holds)
	// What was known of these wishes is what they change from, and no other run's work.
	base := content{Holds: slices.Clone(other.base.Holds)}
	for _, w := range other.base.Workers {
		if slices.ContainsFunc(file.Workers, w.same) {
			base.Workers = append(base.Workers, w)
		}
	}
	return &Lock{path: other.path, file: file, base: base}, nil
}
