package machine

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskSpace returns the size of the filesystem of path and the space available to this
// user, in bytes; 0 if they are unknown. If path does not exist, it uses the nearest
// existing parent. When ctx ends, diskSpace returns and leaves its goroutine running,
// because statfs blocks on a network filesystem whose server does not respond.
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

// nearestExisting returns path or its nearest existing parent.
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

// kernelRelease returns the release of the kernel, such as "6.1.0-28-amd64".
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
