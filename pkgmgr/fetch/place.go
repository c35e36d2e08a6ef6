package fetch

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// writeAtomically makes path with what write writes: the file is the old one or the
// new one, never a part. Its directory is made where it is missing.
func writeAtomically(path string, mode fs.FileMode, write func(*os.File) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if err := write(tmp); err != nil {
		return err
	}
	return place(tmp, path, mode)
}

// place renames a finished file to a path, and closes it.
func place(f *os.File, path string, mode fs.FileMode) error {
	if err := errors.Join(f.Chmod(mode), f.Sync()); err != nil {
		return errors.Join(err, f.Close())
	}
	// Before it is closed, which lets others at it where it is locked.
	err := os.Rename(f.Name(), path)
	return errors.Join(err, f.Close())
}

// hasNoLocks reports whether flock failed because the file system has no locks, as
// some that are mounted from a server or by a program.
func hasNoLocks(err error) bool {
	return errors.Is(err, syscall.ENOLCK) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS)
}

// isAt reports whether an open file is the one at a path.
func isAt(f *os.File, path string) bool {
	mine, err := f.Stat()
	there, thereErr := os.Stat(path)
	return err == nil && thereErr == nil && os.SameFile(mine, there)
}
