//go:build unix

package gpu

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// owner returns the user name of the owner of a process, or the user ID if the owner has no
// name. It returns "" if the owner is unknown. proc is the mount point of procfs.
func owner(proc string, pid int) string {
	info, err := os.Stat(filepath.Join(proc, strconv.Itoa(pid)))
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	uid := strconv.FormatUint(uint64(stat.Uid), 10)
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}
