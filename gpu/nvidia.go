package gpu

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const nvidiaSMI = "nvidia-smi"

// nvidiaFields returns the queried fields, which `nvidia-smi --help-query-gpu` explains.
// Older drivers do not support all of them. The manual documents the exit codes:
// https://man.archlinux.org/man/nvidia-smi.1
func nvidiaFields() []string {
	return []string{
		"index", "uuid", "name", "pci.bus_id", "memory.total", "memory.used", "memory.free", "driver_version",
		"compute_cap", "mig.mode.current", "utilization.gpu", "temperature.gpu", "power.draw",
	}
}

func nvidiaQuery(fields []string) []string {
	return []string{"--query-gpu=" + strings.Join(fields, ","), "--format=csv,noheader,nounits"}
}

// nvidia returns the NVIDIA devices. cards are the NVIDIA cards in sysfs.
func (d *Detector) nvidia(ctx context.Context, cards []card) []Device {
	fields := nvidiaFields()
	r, err := d.runTool(ctx, nvidiaSMI, nvidiaQuery(fields)...)
	for err != nil {
		i := slices.Index(fields, invalidField(r.Stdout, r.Stderr))
		if i < 0 {
			break
		}
		fields = slices.Delete(fields, i, i+1)
		r, err = d.runTool(ctx, nvidiaSMI, nvidiaQuery(fields)...)
	}
	if isNotInstalled(err) {
		if len(cards) == 0 {
			return nil
		}
		return brokenDevices(NVIDIA, cards, "the NVIDIA driver is not installed: nvidia-smi not found")
	}
	devices, messages := parseNvidia(fields, r.Stdout)
	switch {
	case len(devices) > 0:
		// The messages can report devices that do not work.
		return append(devices, lostNvidiaDevices(devices, messages, r.ExitCode)...)
	case err != nil && !noDevices(err.Error()):
		return brokenDevices(NVIDIA, cards, err.Error())
	case len(cards) == 0:
		return nil // the tool is installed on a machine without a card
	case messages == "":
		messages = "nvidia-smi lists no devices"
	}
	return brokenDevices(NVIDIA, cards, oneLine(messages))
}

// isNvidiaSuccess reports whether an exit code of nvidia-smi means that the query succeeded.
// Exit code 14 is a warning about a corrupted infoROM; the device works.
func isNvidiaSuccess(exitCode int) bool { return exitCode == 0 || exitCode == 14 }

// runNvidiaSMI runs nvidia-smi as [Detector.runTool] does, but does not return an error for a
// warning.
func (d *Detector) runNvidiaSMI(ctx context.Context, args ...string) (Result, error) {
	r, err := d.runTool(ctx, nvidiaSMI, args...)
	var toolErr *toolError
	if errors.As(err, &toolErr) && toolErr.err == nil && isNvidiaSuccess(r.ExitCode) {
		return r, nil
	}
	return r, err
}

// lostNvidiaDevices returns a device with an error for each failed device that messages report
// and devices does not contain. It ignores warnings: lines about a device in devices, and lines
// without an address if the exit code means success.
func lostNvidiaDevices(devices []Device, messages string, exitCode int) []Device {
	var lost []Device
	for line := range strings.Lines(messages) {
		bus := busIDIn(line)
		same := func(d Device) bool { return d.PCIBusID == bus }
		switch {
		case bus != "" && slices.ContainsFunc(devices, same), warningRegexp.MatchString(line), bus == "" && isNvidiaSuccess(exitCode):
			continue
		}
		i := slices.IndexFunc(lost, same)
		if i < 0 {
			i, lost = len(lost), append(lost, Device{Index: -1, Vendor: NVIDIA, PCIBusID: bus})
		}
		lost[i].Error = oneLine(lost[i].Error + " " + line)
	}
	return lost
}

var warningRegexp = regexp.MustCompile(`(?i)^\s*warning\b`)

func noDevices(message string) bool { return message == "No devices were found" }

var invalidFieldRegexp = regexp.MustCompile(`Field "([^"]+)" is not a valid field to query`)

// invalidField returns the field that nvidia-smi rejects, or "".
func invalidField(outputs ...[]byte) string {
	for _, out := range outputs {
		if m := invalidFieldRegexp.FindSubmatch(out); m != nil {
			return string(m[1])
		}
	}
	return ""
}

var busIDRegexp = regexp.MustCompile(`(?:[0-9A-Fa-f]{4,8}:)[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]`)

// busIDIn returns the first PCI address in a text, or "".
func busIDIn(text string) string { return busID(busIDRegexp.FindString(text)) }

// parseNvidia parses the output of `nvidia-smi --query-gpu` with the given fields. A name can
// contain the separator. messages contains the lines that do not describe a device.
func parseNvidia(fields []string, out []byte) (devices []Device, messages string) {
	var others []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		values := strings.Split(line, ", ")
		if extra, i := len(values)-len(fields), slices.Index(fields, "name"); extra > 0 && i >= 0 {
			values = slices.Replace(values, i, i+extra+1, strings.Join(values[i:i+extra+1], ", "))
		}
		index, err := strconv.Atoi(values[0])
		if err != nil || index < 0 || len(values) != len(fields) {
			if line != "" {
				others = append(others, line)
			}
			continue
		}
		row := make(map[string]string, len(fields))
		for i, f := range fields {
			row[f] = values[i]
		}
		devices = append(devices, nvidiaDevice(index, row))
	}
	return devices, strings.Join(others, "\n")
}

func nvidiaDevice(index int, row map[string]string) Device {
	mib := func(field string) *uint64 { return toBytes(number(row[field]), 1<<20) }
	d := Device{
		Index: index, Vendor: NVIDIA,
		UUID: knownText(row["uuid"]), Name: knownText(row["name"]), PCIBusID: busID(row["pci.bus_id"]),
		MemoryTotal: orZero(mib("memory.total")), MemoryUsed: mib("memory.used"), MemoryFree: mib("memory.free"),
		Driver: knownText(row["driver_version"]), ComputeCapability: knownText(row["compute_cap"]),
		Utilization: number(row["utilization.gpu"]), Temperature: number(row["temperature.gpu"]), Power: number(row["power.draw"]),
	}
	switch mode := row["mig.mode.current"]; mode {
	case "Enabled", "Disabled":
		on := mode == "Enabled"
		d.MIG = &on
	}
	switch row["memory.total"] {
	case "[N/A]", "[Not Supported]": // no dedicated memory
		d.Unified = d.MIG == nil
	}
	for _, field := range nvidiaFields() { // in a fixed order, for a deterministic message
		v := strings.Trim(row[field], "[]")
		if strings.Contains(v, "GPU is lost") || strings.Contains(v, "requires reset") ||
			field == "memory.total" && v == "Unknown Error" {
			d.Error = fmt.Sprintf("nvidia-smi reports %q for %s", v, field)
			break
		}
	}
	return d
}

// cudaVersion returns the CUDA version in the default output of nvidia-smi, or "" if unknown.
func (d *Detector) cudaVersion(ctx context.Context) string {
	r, err := d.runNvidiaSMI(ctx)
	if err != nil {
		return ""
	}
	return parseCUDA(r.Stdout)
}

// cudaRegexp matches "CUDA Version: 12.8" in the header. Newer drivers, such as 610, print
// "CUDA UMD Version: 13.3".
var cudaRegexp = regexp.MustCompile(`CUDA (?:UMD )?Version\s*: (\d+\.\d+)`)

func parseCUDA(table []byte) string {
	if m := cudaRegexp.FindSubmatch(table); m != nil {
		return string(m[1])
	}
	return ""
}
