package machine

import "golang.org/x/sys/unix"

func cpuModel() string {
	model, _ := unix.Sysctl("machdep.cpu.brand_string")
	return model
}

// memory returns the RAM of the machine and how much of it is available, in bytes. The
// kernel reports the latter as a percentage, which memory_pressure(1) also prints.
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

// blockSize returns the unit of the block counts of a filesystem, in bytes.
func blockSize(st *unix.Statfs_t) uint64 { return uint64(st.Bsize) }
