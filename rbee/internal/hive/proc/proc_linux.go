package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

var bootID = sync.OnceValues(func() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(boot)), err
})

// stat holds some fields of proc_pid_stat(5).
type stat struct {
	state         byte
	parent, group int
	start         string // in clock ticks since the boot
}

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, os.ErrProcessDone
	}
	return parseStat(data)
}

func parseStat(data []byte) (stat, error) {
	// The program name, which ends at the last parenthesis, may contain spaces and parentheses.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 20 {
		return stat{}, os.ErrProcessDone
	}
	parent, err1 := strconv.Atoi(fields[1])
	group, err2 := strconv.Atoi(fields[2])
	if errors.Join(err1, err2) != nil {
		return stat{}, os.ErrProcessDone
	}
	return stat{fields[0][0], parent, group, fields[19]}, nil
}

// exited reports whether the process is a zombie or dead.
func (s stat) exited() bool { return s.state == 'Z' || s.state == 'X' }

func identify(pid int) (ID, error) {
	s, err := readStat(pid)
	if err != nil {
		return ID{}, err
	}
	if s.exited() {
		return ID{}, os.ErrProcessDone
	}
	boot, err := bootID()
	return ID{pid, s.start, boot}, err
}

func list() ([]Process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	var all []Process
	uid := uint32(os.Getuid()) //nolint:gosec // a user ID fits
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		var owner syscall.Stat_t
		if syscall.Stat("/proc/"+name, &owner) != nil || owner.Uid != uid {
			continue
		}
		s, err := readStat(pid)
		if err != nil || s.exited() {
			continue
		}
		all = append(all, Process{ID{pid, s.start, boot}, s.parent, s.group})
	}
	return all, nil
}

func hasVariable(pid int, variable string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+variable+"\x00"))
}

// Memory returns the resident memory of a process in bytes, without memory on
// devices; 0 if it has exited.
func Memory(pid int) int64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64) // 0 means unknown
	return pages * int64(os.Getpagesize())
}

// Arguments returns the command line of a process; nil if it has exited.
func Arguments(pid int) []string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

// CanWait reports whether [Wait] is supported on this system.
const CanWait = true

// Wait waits until a child has exited, without reaping it. Until it is reaped, the
// system does not reuse its PID or its process group ID.
func Wait(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Listener returns the process among pids that listens on a TCP port, or 0 if none
// of them does. known is false if this cannot be determined: no process listens on
// the port, a process of another user does, or the open files of a process in pids
// are not readable, as for processes with additional capabilities.
func Listener(port int, pids []int) (pid int, known bool) {
	return listener("/proc", os.Getuid(), port, pids)
}

// listener implements Listener with the procfs at root, for the user uid.
func listener(root string, uid, port int, pids []int) (pid int, known bool) {
	inodes := map[string]bool{}
	known = true
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile(filepath.Join(root, "net", table))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[3] == "0A" && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
				inodes["socket:["+f[9]+"]"] = true
				known = known && f[7] == strconv.Itoa(uid)
			}
		}
	}
	if len(inodes) == 0 {
		return 0, false
	}
	for _, pid := range pids {
		dir := filepath.Join(root, strconv.Itoa(pid), "fd")
		entries, err := os.ReadDir(dir)
		if err != nil {
			known = known && errors.Is(err, fs.ErrNotExist) // the process has exited
			continue
		}
		for _, e := range entries {
			if target, err := os.Readlink(dir + "/" + e.Name()); err == nil && inodes[target] {
				return pid, true
			}
		}
	}
	return 0, known
}
