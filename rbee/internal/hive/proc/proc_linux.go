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

// stat is what proc_pid_stat(5) says of a process.
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
	// The name before the last parenthesis may hold anything.
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

// ended is true for what only waits until somebody asks for its exit status.
func (s stat) ended() bool { return s.state == 'Z' || s.state == 'X' }

func identify(pid int) (ID, error) {
	s, err := readStat(pid)
	if err != nil {
		return ID{}, err
	}
	if s.ended() {
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
	uid := uint32(os.Getuid()) //nolint:gosec // a user id fits
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
		if err != nil || s.ended() {
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

// Memory is how much memory a process holds in bytes, without that on devices;
// 0 if it has ended.
func Memory(pid int) int64 {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64) // 0 is no harm
	return pages * int64(os.Getpagesize())
}

// Arguments is the command line of a process; nil if it has ended.
func Arguments(pid int) []string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
}

// Holds tells whether [Wait] works here.
const Holds = true

// Wait waits until a child has ended, and leaves it to be waited for again: until
// then its pid, and the name of its group, are nobody else's.
func Wait(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Listener is the process among pids that listens on a TCP port. known is false
// where that cannot be found out: nobody listens, another user's process does, or
// one of pids does not show its files, as those with capabilities of their own do.
func Listener(port int, pids []int) (pid int, known bool) {
	return listener("/proc", os.Getuid(), port, pids)
}

// listener is Listener for a user, by a procfs.
func listener(root string, self, port int, pids []int) (pid int, known bool) {
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
				known = known && f[7] == strconv.Itoa(self)
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
			known = known && errors.Is(err, fs.ErrNotExist) // it has ended
			continue
		}
		for _, e := range entries {
			if to, err := os.Readlink(dir + "/" + e.Name()); err == nil && inodes[to] {
				return pid, true
			}
		}
	}
	return 0, known
}
