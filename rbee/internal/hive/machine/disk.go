package machine

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskSpace is the size of the filesystem that path is on, and how much of it this
// user may still fill, in bytes; 0 if that is not known. A path that does not
// exist yet will be on its nearest parent's. A network filesystem whose server is
// gone never answers, so it is left behind when ctx ends.
func diskSpace(ctx context.Context, path string) (total, free uint64) {
	if path == "" {
		return 0, 0
	}
	type sizes struct{ total, free uint64 }
	done := make(chan sizes, 1)
	go func() {
		var st unix.Statfs_t
		if err := unix.Statfs(nearestExisting(path), &st); err != nil {
			done <- sizes{}
			return
		}
		unit := blockSize(&st)
		done <- sizes{uint64(st.Blocks) * unit, uint64(st.Bavail) * unit}
	}()
	select {
	case s := <-done:
		return s.total, s.free
	case <-ctx.Done():
		return 0, 0
	}
}

// nearestExisting is path, or the nearest of its parents that exists.
func nearestExisting(path string) string {
	for {
		if _, err := os.Stat(path); err == nil {
			return path
		}
		parent := filepath.Dir(path)
		if parent == path {
			return path
		}
		path = parent
	}
}

// kernelRelease is the kernel's, such as "6.1.0-28-amd64".
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
