package hive

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const zombie = 5 // SZOMB in sys/proc.h

// identify asks the kernel for a process's start time.
func identify(pid int) (process, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil || int(info.Proc.P_pid) != pid || info.Proc.P_stat == zombie {
		return process{}, os.ErrProcessDone
	}
	boot, err := unix.Sysctl("kern.bootsessionuuid")
	if err != nil {
		return process{}, err
	}
	start := info.Proc.P_starttime
	return process{pid, fmt.Sprintf("%d.%06d", start.Sec, start.Usec), boot}, nil
}
