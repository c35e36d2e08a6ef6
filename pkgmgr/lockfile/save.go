package lockfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

// Save writes what has changed in this lock since it was read into the file, whole
// or not at all. The file is read again for that, under a lock of the kernel: what
// other runs have written meanwhile stays. Of two runs that gave a wish another
// version each, the newer version counts.
func (l *Lock) Save() error {
	l.Mu.Lock()
	defer l.Mu.Unlock()
	if l.Path == "" || reflect.DeepEqual(l.File, l.Base) {
		return nil
	}
	if err := l.merge(); err != nil {
		return fmt.Errorf("writing the lock: %w", err)
	}
	l.Base = l.File.clone()
	return nil
}

// merge puts what has changed into the file as it is now.
func (l *Lock) merge() error {
	unlock, err := atomicfile.Lock(l.Path)
	if err != nil {
		return err
	}
	defer unlock()
	now, err := readLock(l.Path)
	if err != nil {
		return err
	}
	was := now.text()
	// That a hold has got a wish is no change that revives one which others have ended.
	base := l.Base.clone()
	fillWishes(base.Holds, l.wishes)
	fillWishes(now.Holds, l.wishes)
	now.Workers = merged(base.Workers, l.File.Workers, now.Workers, Worker.Same, newerWorker)
	now.Sources = merged(base.Sources, l.File.Sources, now.Sources, Source.same, nil)
	now.Holds = merged(base.Holds, l.File.Holds, now.Holds, Pin.same, nil)
	text := now.text()
	if text == was {
		return nil
	}
	return atomicfile.Write(l.Path, 0o644, func(w io.Writer) error {
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

func (w Worker) Same(o Worker) bool {
	return w.Type == o.Type && w.Requested == o.Requested
}

func (s Source) same(o Source) bool {
	return s.Type == o.Type && s.Version == o.Version && s.Source == o.Source && s.Platform == o.Platform
}

func (h Pin) same(o Pin) bool { return h.Hive == o.Hive && h.Type == o.Type }

// readLock reads a lock's file; one that does not exist is empty.
func readLock(path string) (Content, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Content{Version: Form}, nil
	}
	if err != nil {
		return Content{}, err
	}
	return Parse(data)
}
