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
	return newID(info, boot), err
}

func newID(info *unix.KinfoProc, boot string) ID {
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
			all = append(all, Process{newID(&infos[i], boot), int(infos[i].Eproc.Ppid), int(infos[i].Eproc.Pgid)})
		}
	}
	return all, nil
}

// procArgs returns the kern.procargs2 buffer of a process: the number of arguments,
// the program, the arguments and the environment. It returns nil on error.
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

// Memory returns 0: the resident memory of a process is unknown on this system.
func Memory(int) int64 { return 0 }

// Arguments returns the command line of a process; nil if it has exited.
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

// CanWait reports whether [Wait] is supported on this system.
const CanWait = false

// Wait returns errors.ErrUnsupported: this system cannot wait for a child without
// reaping it.
func Wait(int) error { return errors.ErrUnsupported }

// Listener returns 0 and false: this system does not report which process listens
// on a port.
func Listener(int, []int) (pid int, known bool) { return 0, false }
