package install

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// replaceDir renames the staged directory of a tool to dir. It renames an existing dir to
// staged or [backupPath]; the caller must remove that directory.
func replaceDir(staged, dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return os.Rename(staged, dir)
	}
	err := exchange(staged, dir)
	if !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	// The filesystem cannot exchange directories. If the run is killed between the two
	// renames, cleanTools restores the old directory.
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

// backupPath returns the temporary path of a directory that is being replaced on a
// filesystem that cannot exchange directories.
func backupPath(dir string) string {
	return filepath.Join(filepath.Dir(dir), oldPrefix+filepath.Base(dir))
}
