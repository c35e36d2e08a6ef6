package hive

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// identify reads a process's start time (proc_pid_stat(5), field 22).
func identify(pid int) (process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, os.ErrProcessDone
	}
	// The name before the last parenthesis may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return process{}, os.ErrProcessDone
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}, err
	}
	return process{pid, fields[19], strings.TrimSpace(string(boot))}, nil
}
