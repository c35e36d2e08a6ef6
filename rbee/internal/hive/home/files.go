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

// LinkOrCopy creates dst as a hard link to the file src, or as an executable copy if the
// filesystem cannot create the link.
func LinkOrCopy(src, dst string) error {
	if os.Link(src, dst) == nil {
		return nil
	}
	return CopyFile(src, dst, 0o755)
}

// CopyFile copies the file src to the new file dst, with the given mode, and flushes dst to
// disk. It fails if dst exists.
func CopyFile(src, dst string, mode fs.FileMode) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Chmod(mode), out.Sync(), out.Close()); err != nil {
		_ = os.Remove(dst)
	}
	return err
}

// ReplaceWithCopy atomically replaces dst with a copy of the file src that has the given
// mode.
func ReplaceWithCopy(src, dst string, mode fs.FileMode) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	return atomicfile.Write(dst, mode, func(w io.Writer) error {
		_, err := io.Copy(w, in)
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
// exceeded quota caused. It returns other errors unchanged. needed is the needed space in
// bytes; 0 means unknown.
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
