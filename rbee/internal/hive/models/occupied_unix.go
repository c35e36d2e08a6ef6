//go:build unix

package models

import (
	"os"
	"syscall"
)

// occupied is how much of the disk a file takes: one that is being fetched has
// holes.
func occupied(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return min(info.Size(), st.Blocks*512)
	}
	return info.Size()
}
