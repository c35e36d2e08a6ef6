// Package atomicfile replaces files atomically: a reader sees the old file or the new
// one, never a part of it, also after a power failure.
package atomicfile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/renameio/v2"

	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
)

// tempPrefix begins the names of temporary files, which renameio chooses.
const tempPrefix = "."

// IsTemp reports whether name has the form of a temporary file of this package: a dot,
// the name of the file that is being written, and digits. A process that is killed while
// it writes leaves such a file beside the other.
func IsTemp(name string) bool {
	rest, ok := strings.CutPrefix(name, tempPrefix)
	target := strings.TrimRight(rest, digits)
	return ok && target != "" && target != rest && !strings.ContainsRune(name, filepath.Separator)
}

const digits = "0123456789"

// TempGlob returns the pattern of the temporary files of path, for [filepath.Glob].
func TempGlob(path string) string {
	return filepath.Join(filepath.Dir(path), tempPrefix+filepath.Base(path)+"[0-9]*")
}

// RemoveTemp removes the temporary files of path that processes which were killed have
// left. No other process may be writing path.
func RemoveTemp(path string) {
	dir, base := filepath.Split(path)
	entries, _ := os.ReadDir(filepath.Clean(dir))
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), tempPrefix+base)
		if ok && number != "" && strings.Trim(number, digits) == "" && e.Type().IsRegular() {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// Write makes path with what write writes: the file is the old one or the
// new one, never a part. Its directory is made where it is missing.
func Write(path string, mode fs.FileMode, write func(io.Writer) error) error {
	return WriteFile(path, mode, func(f *os.File) error { return write(f) })
}

// WriteFile is [Write] for those who need a file.
func WriteFile(path string, mode fs.FileMode, write func(*os.File) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // nothing, once it is replaced
	if err := write(f.File); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return SyncDir(dir)
}

// WriteData makes path hold data. It makes the directory where that is missing.
func WriteData(path string, data []byte, mode fs.FileMode) error {
	return Write(path, mode, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Create makes path hold data, or returns an error that wraps [fs.ErrExist] if there is a
// file. Its directory is made where it is missing. Where the file system has no hard
// links, a process that is killed may leave a part of the file.
func Create(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }()
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	// A link fails where the name is taken, which a rename does not.
	if err = os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		err = createInPlace(path, data, mode)
	}
	if err != nil {
		return err
	}
	return SyncDir(dir)
}

// createInPlace is [Create] for file systems without hard links.
func createInPlace(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Symlink makes path a symbolic link to target, in the place of a file that may be there.
// temp is the link's name in the same directory until then; a process that is killed
// leaves it there.
func Symlink(target, path, temp string) error {
	_ = os.Remove(temp) // of a process that was killed here
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return nil
}

// WriteJSON makes path hold v as indented JSON, for its owner alone. It makes the
// directory where that is missing.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return WriteData(path, append(data, '\n'), 0o600)
}

// ReadJSON fills v from the file; a missing file is fs.ErrNotExist.
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// SyncDir brings the names in a directory to disk, which renameio does not do. It does
// nothing on a file system that cannot do it.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}

// Lock takes the exclusive right to replace a file, waiting for it. It is a
// lock of the kernel on a file beside it, which is only there meanwhile: who dies
// with it gives it up. Where the file system has no locks nobody waits: a file that
// is written there is whole all the same.
func Lock(path string) (unlock func(), err error) {
	return lockBy(path, func(beside string) (*filelock.Lock, error) {
		return filelock.Wait(context.Background(), beside, 0o700, filelock.NoLimit, nil)
	})
}

// lockBy is Lock with the call that locks.
func lockBy(path string, lock func(beside string) (*filelock.Lock, error)) (unlock func(), err error) {
	beside := path + ".lock"
	l, err := lock(beside)
	switch {
	case filelock.Unsupported(err):
		return func() { _ = os.Remove(beside) }, nil
	case err != nil:
		return nil, err
	}
	return func() { _ = l.Remove() }, nil
}
