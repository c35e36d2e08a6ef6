package fetch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
)

// PartSuffix ends the name of what has come of a [Client.Download].
const PartSuffix = ".part"

// PartTTL is how long what has come of a download waits for the next try.
const PartTTL = 7 * 24 * time.Hour

// RemoveStale removes from a directory of downloads what nobody has added to since a
// time, and nobody is at. What is whole stays. It is a courtesy, and its failure
// changes nothing.
func RemoveStale(dir string, since time.Time) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, file := range files {
		name := file.Name()
		unfinished := strings.HasSuffix(name, PartSuffix) || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "new-")
		if !unfinished || !file.Type().IsRegular() {
			continue
		}
		info, err := file.Info()
		if err != nil || info.ModTime().After(since) {
			continue
		}
		if l, err := filelock.Try(filepath.Join(dir, name), 0o700); err == nil {
			_ = l.Remove()
		}
	}
}

// openPart opens what has come of a download, for this run alone until unlock. Where the
// file system has no locks, nothing tells who is at it, and nothing is kept.
func openPart(path string) (part *os.File, unlock func(), err error) {
	return openPartBy(path, filelock.Try)
}

// openPartBy is openPart with the call that locks.
func openPartBy(path string, lock func(string, fs.FileMode) (*filelock.Lock, error)) (part *os.File, unlock func(), err error) {
	l, err := lock(path, 0o700)
	switch {
	case filelock.Unsupported(err):
		_ = os.Remove(path)
		return nil, nil, ErrBusy
	case errors.Is(err, filelock.ErrHeld):
		return nil, nil, ErrBusy
	case err != nil:
		return nil, nil, err
	}
	part, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		_ = l.Close()
		return nil, nil, err
	}
	return part, func() { _ = l.Close() }, nil
}
