package machine

import "golang.org/x/sys/unix"

func cpuModel() string {
	model, _ := unix.Sysctl("machdep.cpu.brand_string")
	return model
}

// memory is the machine's RAM and how much of it programs can still have, by the
// kernel's own percentage, the one that memory_pressure(1) prints.
func memory() (total, available uint64) {
	total, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0, 0
	}
	level, err := unix.SysctlUint32("kern.memorystatus_level")
	if err != nil || level > 100 {
		return total, 0
	}
	return total, total / 100 * uint64(level)
}

// blockSize is the unit of a filesystem's counts.
func blockSize(st *unix.Statfs_t) uint64 { return uint64(st.Bsize) }
