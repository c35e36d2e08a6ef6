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

// PartSuffix is the file name suffix of an incomplete [Client.Download].
const PartSuffix = ".part"

// PartTTL is the time for which the data of an incomplete download is kept.
const PartTTL = 7 * 24 * time.Hour

// RemoveStale removes the incomplete downloads in dir that were last modified before cutoff
// and that no process is using. It ignores errors.
func RemoveStale(dir string, cutoff time.Time) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, file := range files {
		name := file.Name()
		incomplete := strings.HasSuffix(name, PartSuffix) || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "new-")
		if !incomplete || !file.Type().IsRegular() {
			continue
		}
		info, err := file.Info()
		if err != nil || info.ModTime().After(cutoff) {
			continue
		}
		if l, err := filelock.Try(filepath.Join(dir, name), 0o700); err == nil {
			_ = l.Remove()
		}
	}
}

// openPart opens the file of an incomplete download and locks it until unlock is called. If
// another process has locked it, or if the file system does not support locks, the error is
// [ErrBusy]. In the second case openPart also removes the file.
func openPart(path string) (part *os.File, unlock func(), err error) {
	return openPartWith(path, filelock.Try)
}

// openPartWith implements [openPart] with the given lock function.
func openPartWith(path string, lock func(string, fs.FileMode) (*filelock.Lock, error)) (part *os.File, unlock func(), err error) {
	l, err := lock(path, 0o700)
	switch {
	case filelock.Unsupported(err):
		_ = os.Remove(path)
		return nil, nil, ErrBusy
	case errors.Is(err, filelock.ErrLocked):
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
