package home

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// Random returns a word for a name that nothing else has.
func Random() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// SyncFile brings a file's content to disk.
func SyncFile(path string) error { return atomicfile.SyncDir(path) }

// LinkOrCopy gives a file a second name, or a copy where that is impossible.
func LinkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	return CopyFile(from, to, 0o755)
}

// CopyFile copies a file to a new one with a mode, and flushes it to disk.
func CopyFile(from, to string, mode fs.FileMode) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err = errors.Join(err, dst.Chmod(mode), dst.Sync(), dst.Close()); err != nil {
		_ = os.Remove(to)
	}
	return err
}

// ReplaceWithCopy makes to, atomically, a copy of a file with a mode.
func ReplaceWithCopy(from, to string, mode fs.FileMode) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	return atomicfile.Write(to, mode, func(w io.Writer) error {
		_, err := io.Copy(w, src)
		return err
	})
}

// DiskFree returns the space in bytes that this user can still fill at path or, if
// that does not exist, where it would be made; 0 if not known.
func DiskFree(path string) uint64 {
	st, ok := Statfs(path)
	if !ok {
		return 0
	}
	return uint64(st.Bavail) * uint64(st.Bsize)
}

// Statfs returns the state of the file system that holds path or would hold it.
func Statfs(path string) (st unix.Statfs_t, ok bool) {
	for {
		err := unix.Statfs(path, &st)
		if err == nil {
			return st, true
		}
		parent := filepath.Dir(path)
		if parent == path || !errors.Is(err, fs.ErrNotExist) {
			return st, false
		}
		path = parent
	}
}

// ExplainFull says of an error that came from a full disk how full it is. needed
// is in bytes; 0 if not known.
func ExplainFull(err error, path string, needed int64) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	want := ""
	if needed > 0 {
		want = ", at least " + bytesize.Format(needed) + " needed"
	}
	return fmt.Errorf("the disk is full: %s free at %s%s: %w", bytesize.Format(DiskFree(path)), path, want, err)
}
