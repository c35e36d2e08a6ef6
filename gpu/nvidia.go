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

// The columns asked of nvidia-smi, which lists and explains them under
// `nvidia-smi --help-query-gpu`. Older drivers do not know them all.
// Exit codes are in its manual: https://man.archlinux.org/man/nvidia-smi.1
func nvidiaFields() []string {
	return []string{
		"index", "uuid", "name", "pci.bus_id", "memory.total", "memory.used", "memory.free", "driver_version",
		"compute_cap", "mig.mode.current", "utilization.gpu", "temperature.gpu", "power.draw",
	}
}

func nvidiaQuery(fields []string) []string {
	return []string{"--query-gpu=" + strings.Join(fields, ","), "--format=csv,noheader,nounits"}
}

// nvidia lists the NVIDIA devices. cards are those that sysfs shows.
func (d *Detector) nvidia(ctx context.Context, cards []card) []Device {
	fields := nvidiaFields()
	r, err := d.ask(ctx, nvidiaSMI, nvidiaQuery(fields)...)
	for err != nil {
		i := slices.Index(fields, invalidField(r.Stdout, r.Stderr))
		if i < 0 {
			break
		}
		fields = slices.Delete(fields, i, i+1)
		r, err = d.ask(ctx, nvidiaSMI, nvidiaQuery(fields)...)
	}
	if missing(err) {
		if len(cards) == 0 {
			return nil
		}
		return broken(NVIDIA, cards, "the NVIDIA driver is not installed: there is no nvidia-smi")
	}
	devices, complaints := parseNvidia(fields, r.Stdout)
	switch {
	case len(devices) > 0:
		// Some devices answer and some do not: a lost one is named in words.
		return append(devices, lostNvidia(devices, complaints, r.ExitCode)...)
	case err != nil && !noDevices(err.Error()):
		return broken(NVIDIA, cards, err.Error())
	case len(cards) == 0:
		return nil // the tool is there, a card is not
	case complaints == "":
		complaints = "nvidia-smi lists no devices"
	}
	return broken(NVIDIA, cards, oneLine(complaints))
}

// nvidiaWarns reports whether an exit code of nvidia-smi means that the
// query succeeded: 0, or 14 for a corrupted infoROM, with which a device works.
func nvidiaWarns(exitCode int) bool { return exitCode == 0 || exitCode == 14 }

// askNvidia is [Detector.ask] for nvidia-smi, without an error where the tool only
// warns.
func (d *Detector) askNvidia(ctx context.Context, args ...string) (Result, error) {
	r, err := d.ask(ctx, nvidiaSMI, args...)
	var failed *toolError
	if errors.As(err, &failed) && failed.err == nil && nvidiaWarns(r.ExitCode) {
		return r, nil
	}
	return r, err
}

// lostNvidia returns a broken device for each one that complaints name and that is
// not among devices. A line about a device that answered, or about none while the
// exit code reports success, is a warning: the tool prints them between its rows.
func lostNvidia(devices []Device, complaints string, exitCode int) []Device {
	var lost []Device
	for line := range strings.Lines(complaints) {
		bus := busIDIn(line)
		same := func(d Device) bool { return d.PCIBusID == bus }
		switch {
		case bus != "" && slices.ContainsFunc(devices, same), warning.MatchString(line), bus == "" && nvidiaWarns(exitCode):
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

var warning = regexp.MustCompile(`(?i)^\s*warning\b`)

func noDevices(words string) bool { return words == "No devices were found" }

var invalidFieldWords = regexp.MustCompile(`Field "([^"]+)" is not a valid field to query`)

// invalidField is the column that this nvidia-smi is too old for, or "".
func invalidField(outputs ...[]byte) string {
	for _, out := range outputs {
		if m := invalidFieldWords.FindSubmatch(out); m != nil {
			return string(m[1])
		}
	}
	return ""
}

var busIDWords = regexp.MustCompile(`(?:[0-9A-Fa-f]{4,8}:)[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-7]`)

// busIDIn is the first PCI address in a text, or "".
func busIDIn(words string) string { return busID(busIDWords.FindString(words)) }

// parseNvidia reads the lines of nvidia-smi's --query-gpu with the given
// columns. A name may contain what separates the columns. Lines that are no device are
// returned as complaints.
func parseNvidia(fields []string, out []byte) (devices []Device, complaints string) {
	var others []string
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		values := strings.Split(line, ", ")
		if more, i := len(values)-len(fields), slices.Index(fields, "name"); more > 0 && i >= 0 {
			values = slices.Replace(values, i, i+more+1, strings.Join(values[i:i+more+1], ", "))
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
		UUID: known(row["uuid"]), Name: known(row["name"]), PCIBusID: busID(row["pci.bus_id"]),
		MemoryTotal: orZero(mib("memory.total")), MemoryUsed: mib("memory.used"), MemoryFree: mib("memory.free"),
		Driver: known(row["driver_version"]), ComputeCapability: known(row["compute_cap"]),
		Utilization: number(row["utilization.gpu"]), Temperature: number(row["temperature.gpu"]), Power: number(row["power.draw"]),
	}
	switch mode := row["mig.mode.current"]; mode {
	case "Enabled", "Disabled":
		on := mode == "Enabled"
		d.MIG = &on
	}
	switch row["memory.total"] {
	case "[N/A]", "[Not Supported]": // it has none of its own
		d.Unified = d.MIG == nil
	}
	for _, field := range nvidiaFields() { // in order, so that the words are always the same
		v := strings.Trim(row[field], "[]")
		if strings.Contains(v, "GPU is lost") || strings.Contains(v, "requires reset") ||
			field == "memory.total" && v == "Unknown Error" {
			d.Error = fmt.Sprintf("nvidia-smi says of %s: %s", field, v)
			break
		}
	}
	return d
}

// cudaVersion asks for the plain table, whose header has it; "" if unknown.
func (d *Detector) cudaVersion(ctx context.Context) string {
	r, err := d.askNvidia(ctx)
	if err != nil {
		return ""
	}
	return parseCUDA(r.Stdout)
}

// The header says "CUDA Version: 12.8"; newer drivers, such as 610, "CUDA UMD Version: 13.3".
var cudaWords = regexp.MustCompile(`CUDA (?:UMD )?Version\s*: (\d+\.\d+)`)

func parseCUDA(table []byte) string {
	if m := cudaWords.FindSubmatch(table); m != nil {
		return string(m[1])
	}
	return ""
}
