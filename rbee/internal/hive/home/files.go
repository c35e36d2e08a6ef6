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

// RandomSuffix returns 16 random hex digits, for unique file names.
func RandomSuffix() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// SyncFile flushes the content of a file to disk.
func SyncFile(path string) error { return atomicfile.SyncDir(path) }

// LinkOrCopy creates to as a hard link to from, or as an executable copy if the
// filesystem cannot link it.
func LinkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	return CopyFile(from, to, 0o755)
}

// CopyFile copies from to the new file to, with the given mode, and flushes it to disk.
// It fails if to exists.
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

// ReplaceWithCopy atomically replaces to with a copy of from that has the given mode.
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

// DiskFree returns the disk space in bytes that is available to this user at path; 0 if
// it is unknown. If path does not exist, DiskFree uses its nearest existing parent.
func DiskFree(path string) uint64 {
	st, ok := Statfs(path)
	if !ok {
		return 0
	}
	return uint64(st.Bavail) * uint64(st.Bsize)
}

// Statfs returns the statistics of the filesystem of path or, if path does not exist, of
// its nearest existing parent.
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

// WrapDiskFull adds the free and the needed disk space to an error that a full disk or an
// exceeded quota caused. It returns other errors unchanged. needed is in bytes; 0 if it is
// unknown.
func WrapDiskFull(err error, path string, needed int64) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	atLeast := ""
	if needed > 0 {
		atLeast = ", at least " + bytesize.Format(needed) + " needed"
	}
	return fmt.Errorf("disk full: %s free at %s%s: %w", bytesize.Format(DiskFree(path)), path, atLeast, err)
}
