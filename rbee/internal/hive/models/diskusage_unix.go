//go:build unix

package models

import (
	"os"
	"syscall"
)

// diskUsage returns how many bytes a file uses on disk, which is less than its size if it
// has holes, as during a download.
func diskUsage(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return min(info.Size(), st.Blocks*512)
	}
	return info.Size()
}
