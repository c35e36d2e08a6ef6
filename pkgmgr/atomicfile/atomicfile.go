// Package atomicfile replaces files atomically: readers see either the old or the new
// content, never a partial file, even after a power failure.
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

// tempPrefix is the prefix of the names of temporary files, which package renameio chooses.
const tempPrefix = "."

// IsTemp reports whether name has the format of the temporary files of this package: a dot,
// the name of the target file, and digits. A process that is killed during a write leaves
// such a file in the directory of the target.
func IsTemp(name string) bool {
	rest, ok := strings.CutPrefix(name, tempPrefix)
	target := strings.TrimRight(rest, digits)
	return ok && target != "" && target != rest && !strings.ContainsRune(name, filepath.Separator)
}

const digits = "0123456789"

// TempGlob returns a pattern for [filepath.Glob] that matches the temporary files of path.
func TempGlob(path string) string {
	return filepath.Join(filepath.Dir(path), tempPrefix+filepath.Base(path)+"[0-9]*")
}

// RemoveTemp removes the temporary files of path that killed processes left behind. The
// caller must ensure that no process is writing path.
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

// Write atomically replaces the file at path with the output of the function write. It
// creates missing directories.
func Write(path string, mode fs.FileMode, write func(io.Writer) error) error {
	return WriteFile(path, mode, func(f *os.File) error { return write(f) })
}

// WriteFile works like [Write], but passes an [os.File] to write.
func WriteFile(path string, mode fs.FileMode, write func(*os.File) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // no effect after CloseAtomicallyReplace
	if err := write(f.File); err != nil {
		return err
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return err
	}
	return SyncDir(dir)
}

// WriteData atomically replaces the file at path with data. It creates missing directories.
func WriteData(path string, data []byte, mode fs.FileMode) error {
	return Write(path, mode, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Create atomically creates the file at path with data. If the file exists, the error wraps
// [fs.ErrExist]. Create creates missing directories. If the file system does not support hard
// links, a process that is killed may leave an incomplete file.
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
	// Unlike a rename, a link fails if the target exists.
	if err = os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		err = createInPlace(path, data, mode)
	}
	if err != nil {
		return err
	}
	return SyncDir(dir)
}

// createInPlace implements [Create] for file systems without hard links.
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

// Symlink atomically replaces path with a symbolic link to target. temp is the temporary path
// of the link, in the same directory. A process that is killed may leave temp.
func Symlink(target, path, temp string) error {
	_ = os.Remove(temp) // a killed process may have left it
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return nil
}

// WriteJSON atomically replaces the file at path with the indented JSON encoding of v. The
// mode of the file is 0o600. WriteJSON creates missing directories.
func WriteJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return WriteData(path, append(data, '\n'), 0o600)
}

// ReadJSON decodes the JSON file at path into v. If the file does not exist, the error wraps
// [fs.ErrNotExist].
func ReadJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("invalid JSON in %s: %w", path, err)
	}
	return nil
}

// SyncDir flushes the entries of a directory to disk, because renameio does not. It has no
// effect on file systems that cannot sync directories.
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

// Lock acquires an exclusive lock for the file at path and waits for it if necessary. It locks
// a separate file, path + ".lock", which exists only while the lock is held. The kernel
// releases the lock when the process exits. On file systems without locks, Lock has no
// effect; writes are still atomic.
func Lock(path string) (unlock func(), err error) {
	return lockWith(path, func(lockPath string) (*filelock.Lock, error) {
		return filelock.Wait(context.Background(), lockPath, 0o700, filelock.NoLimit, nil)
	})
}

// lockWith implements [Lock] with the given lock function.
func lockWith(path string, lock func(lockPath string) (*filelock.Lock, error)) (unlock func(), err error) {
	lockPath := path + ".lock"
	l, err := lock(lockPath)
	switch {
	case filelock.Unsupported(err):
		return func() { _ = os.Remove(lockPath) }, nil
	case err != nil:
		return nil, err
	}
	return func() { _ = l.Remove() }, nil
}
