package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// replaceDir gives the staged directory of a tool the name dir. What had that name has
// another one afterwards, that of the staged one or [backupPath], for the caller to remove.
func replaceDir(staged, dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return os.Rename(staged, dir)
	}
	err := exchange(staged, dir)
	if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	// Not every filesystem can exchange. A run that is killed between these two
	// is put right by cleanTools.
	old := backupPath(dir)
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(dir, old); err != nil {
		return err
	}
	if err := os.Rename(staged, dir); err != nil {
		return errors.Join(err, os.Rename(old, dir))
	}
	return nil
}

// backupPath is the name of a directory that makes room where two cannot be exchanged.
func backupPath(dir string) string {
	return filepath.Join(filepath.Dir(dir), oldPrefix+filepath.Base(dir))
}
