package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const zombie = 5 // SZOMB in sys/proc.h

var bootID = sync.OnceValues(func() (string, error) { return unix.Sysctl("kern.bootsessionuuid") })

func identify(pid int) (ID, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || int(info.Proc.P_pid) != pid || info.Proc.P_stat == zombie {
		return ID{}, os.ErrProcessDone
	}
	boot, err := bootID()
	return name(info, boot), err
}

func name(info *unix.KinfoProc, boot string) ID {
	start := info.Proc.P_starttime
	return ID{int(info.Proc.P_pid), fmt.Sprintf("%d.%06d", start.Sec, start.Usec), boot}
}

func list() ([]Process, error) {
	infos, err := unix.SysctlKinfoProcSlice("kern.proc.uid", os.Getuid())
	if err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	var all []Process
	for i := range infos {
		if infos[i].Proc.P_stat != zombie {
			all = append(all, Process{name(&infos[i], boot), int(infos[i].Eproc.Ppid), int(infos[i].Eproc.Pgid)})
		}
	}
	return all, nil
}

// strings of a process: the number of arguments, the program, the arguments, the
// environment.
func procArgs(pid int) []byte {
	data, err := unix.SysctlRaw("kern.procargs2", pid)
	if err != nil {
		return nil
	}
	return data
}

func hasVariable(pid int, variable string) bool {
	return bytes.Contains(procArgs(pid), []byte("\x00"+variable+"\x00"))
}

// Memory is how much memory a process holds in bytes; not known here.
func Memory(int) int64 { return 0 }

// Arguments is the command line of a process; nil if it has ended.
func Arguments(pid int) []string {
	data := procArgs(pid)
	if len(data) < 4 {
		return nil
	}
	count := int(data[0]) | int(data[1])<<8
	_, rest, _ := bytes.Cut(data[4:], []byte{0}) // the program
	parts := strings.Split(strings.TrimLeft(string(rest), "\x00"), "\x00")
	return parts[:min(count, len(parts))]
}

// Holds tells whether [Wait] works here.
const Holds = false

// Wait waits until a child has ended, where that can be done without asking for
// its exit status; here it cannot.
func Wait(int) error { return errors.ErrUnsupported }

// Listener is the process among pids that listens on a TCP port; not known here.
func Listener(int, []int) (pid int, known bool) { return 0, false }
