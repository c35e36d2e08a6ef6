// Package atomicfile replaces files atomically: a reader sees the old file or the new
// one, never a part of it.
package atomicfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Write makes path with what write writes: the file is the old one or the
// new one, never a part. Its directory is made where it is missing.
func Write(path string, mode fs.FileMode, write func(io.Writer) error) error {
	return WriteFile(path, mode, func(f *os.File) error { return write(f) })
}

// WriteFile is [Write] for those who need a file.
func WriteFile(path string, mode fs.FileMode, write func(*os.File) error) (err error) {
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
	return putInPlace(tmp, path, mode)
}

// putInPlace puts a finished file to a path, and closes it.
func putInPlace(f *os.File, path string, mode fs.FileMode) error {
	if err := errors.Join(f.Chmod(mode), f.Sync()); err != nil {
		return errors.Join(err, f.Close())
	}
	// Before it is closed, which lets others at it where it is locked.
	err := os.Rename(f.Name(), path)
	return errors.Join(err, f.Close())
}

// Lock takes the exclusive right to replace a file, waiting for it. It is a
// lock of the kernel on a file beside it, which is only there meanwhile: who dies
// with it gives it up. Where the file system has no locks nobody waits: a file that
// is written there is whole all the same.
func Lock(path string) (unlock func(), err error) { return lockBy(path, syscall.Flock) }

// lockBy is Lock with the call that locks.
func lockBy(path string, flock func(fd, how int) error) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	beside := path + ".lock"
	for {
		f, err := os.OpenFile(beside, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		for {
			if err = flock(int(f.Fd()), syscall.LOCK_EX); !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		if err != nil && !hasNoLocks(err) {
			return nil, errors.Join(err, f.Close())
		}
		if err != nil || isAt(f, beside) {
			return func() {
				_ = os.Remove(beside) // before it is given up: nobody else's is removed
				_ = f.Close()
			}, nil
		}
		_ = f.Close() // who had it before has removed it
	}
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
