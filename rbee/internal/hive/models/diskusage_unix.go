//go:build unix

package models

import (
	"os"
	"syscall"
)

// diskUsage returns how many bytes a file uses on disk. A sparse file, such as the file of an
// incomplete download, uses less than its size.
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
