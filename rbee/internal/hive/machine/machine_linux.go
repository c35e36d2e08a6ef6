package machine

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxProcSize limits the number of bytes that are read from a procfs file. It is large
// enough for the entry of the first processor.
const maxProcSize = 64 << 10

func cpuModel() string { return parseCPUInfo(readProc("cpuinfo")) }

// memory returns the RAM of the machine and how much of it is available, in bytes.
func memory() (total, available uint64) { return parseMeminfo(readProc("meminfo")) }

// blockSize returns the unit of the block counts of a filesystem, in bytes.
func blockSize(st *unix.Statfs_t) uint64 {
	if st.Frsize > 0 {
		return uint64(st.Frsize)
	}
	return uint64(max(st.Bsize, 0))
}

func readProc(name string) []byte {
	f, err := os.Open("/proc/" + name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, _ := io.ReadAll(io.LimitReader(f, maxProcSize))
	return data
}

// parseCPUInfo returns the name of the processor in /proc/cpuinfo. The key depends on the
// architecture; on x86 it is "model name". 64-bit ARM has only numbers; see MIDR_EL1 in
// https://docs.kernel.org/arch/arm64/cpu-feature-registers.html.
func parseCPUInfo(data []byte) string {
	values := map[string]string{} // the first value of each key
	for key, value := range fields(data) {
		if _, exists := values[key]; !exists && value != "" {
			values[key] = value
		}
	}
	for _, key := range []string{"model name", "cpu model", "cpu", "Hardware", "Model"} {
		if values[key] != "" {
			return strings.Join(strings.Fields(values[key]), " ")
		}
	}
	implementer, part := values["CPU implementer"], values["CPU part"]
	switch name := armCoreName(part); {
	case implementer == "" || part == "":
		return ""
	case implementer == "0x41" && name != "":
		return name
	}
	return "ARM implementer " + implementer + " part " + part
}

// armCoreName returns the name of the ARM core with a part number; "" unless the core is used
// in machines with GPUs. The part numbers are from the manuals of the cores.
func armCoreName(part string) string {
	switch part {
	case "0xd0c":
		return "ARM Neoverse-N1"
	case "0xd40":
		return "ARM Neoverse-V1"
	case "0xd42":
		return "ARM Cortex-A78AE"
	case "0xd49":
		return "ARM Neoverse-N2"
	case "0xd4f":
		return "ARM Neoverse-V2"
	case "0xd85":
		return "ARM Cortex-X925"
	case "0xd87":
		return "ARM Cortex-A725"
	}
	return ""
}

// parseMeminfo parses /proc/meminfo; see
// https://docs.kernel.org/filesystems/proc.html#meminfo. Kernels before 3.14 have no
// MemAvailable; for those, available is the sum of MemFree, Buffers and Cached.
func parseMeminfo(data []byte) (total, available uint64) {
	values := map[string]uint64{}
	for key, value := range fields(data) {
		number, unit, _ := strings.Cut(value, " ")
		n, err := strconv.ParseUint(number, 10, 50)
		if err == nil && unit == "kB" {
			values[key] = n << 10
		}
	}
	available, ok := values["MemAvailable"]
	if !ok {
		available = values["MemFree"] + values["Buffers"] + values["Cached"]
	}
	total = values["MemTotal"]
	return total, min(available, total)
}

// fields iterates over the lines of the form "key : value".
func fields(data []byte) func(yield func(key, value string) bool) {
	return func(yield func(key, value string) bool) {
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, maxProcSize+1)
		for lines.Scan() {
			key, value, ok := strings.Cut(lines.Text(), ":")
			if ok && !yield(strings.TrimSpace(key), strings.TrimSpace(value)) {
				return
			}
		}
	}
}
