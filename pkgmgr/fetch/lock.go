package fetch

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
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
		if f, err := openPart(filepath.Join(dir, name)); err == nil {
			_ = os.Remove(f.Name())
			_ = f.Close()
		}
	}
}

// openPart opens what has come of a download, for this run alone. Where the file
// system has no locks, nothing tells who is at it, and nothing is kept.
func openPart(path string) (*os.File, error) { return openPartBy(path, syscall.Flock) }

// openPartBy is openPart with the call that locks.
func openPartBy(path string, flock func(fd, how int) error) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// The run that had it may have put it in its place by now.
	if err := flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil || !isAt(f, path) {
		if hasNoLocks(err) {
			_ = os.Remove(path)
		}
		_ = f.Close()
		return nil, ErrBusy
	}
	return f, nil
}
