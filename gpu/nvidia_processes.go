package gpu

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
)

// nvidiaProcesses returns the compute and graphics processes. Graphics processes can use most
// of the memory of a workstation. `nvidia-smi -q -d PIDS` lists both kinds with complete names
// and is much faster than -q alone; see section Processes of the manual. `nvidia-smi pmon`
// truncates names and omits devices. If nvidia-smi does not support the query, nvidiaProcesses
// returns only the compute processes.
func (d *Detector) nvidiaProcesses(ctx context.Context) ([]Process, error) {
	r, err := d.runNvidiaSMI(ctx, "-q", "-d", "PIDS")
	if isNotInstalled(err) || err != nil && noDevices(err.Error()) {
		return nil, nil
	}
	var toolErr *toolError
	if errors.As(err, &toolErr) && toolErr.err != nil {
		return nil, err // the tool did not run or did not exit: do not run it again
	}
	entries, ok := parseNvidiaPIDs(r.Stdout)
	if err != nil || !ok {
		return d.nvidiaComputeProcesses(ctx)
	}
	if len(entries) == 0 {
		return nil, nil
	}
	return mergeNvidiaProcesses(entries, d.nvidia(ctx, nil)), nil
}

// nvidiaProcess is a process in the output of -q.
type nvidiaProcess struct {
	nvidiaLocation
	process Process
}

// nvidiaLocation identifies a device or, in multi-instance mode, a part of it.
type nvidiaLocation struct{ bus, gpuInstance, computeInstance string }

// parseNvidiaPIDs parses lines of the form "key : value" that are indented below the line
// of their device, "GPU 00000000:01:00.0". ok is false if the output does not have this form,
// for example because it is an error message.
func parseNvidiaPIDs(out []byte) (entries []nvidiaProcess, ok bool) {
	var current nvidiaLocation
	var inProcess bool // the lines describe the last of the entries
	for line := range strings.Lines(string(out)) {
		if address, isDevice := strings.CutPrefix(line, "GPU "); isDevice && busID(address) != "" {
			current, inProcess, ok = nvidiaLocation{bus: busID(address)}, false, true
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Attached GPUs":
			ok = true
		case "GPU instance ID":
			current.gpuInstance = knownText(value)
		case "Compute instance ID":
			current.computeInstance = knownText(value)
		case "Process ID":
			pid, err := strconv.Atoi(value)
			if inProcess = err == nil && pid > 0 && current.bus != ""; inProcess {
				entries = append(entries, nvidiaProcess{current, Process{Vendor: NVIDIA, PID: pid}})
			}
		case "Name":
			if inProcess {
				entries[len(entries)-1].process.Name = knownText(value)
			}
		case "Used GPU Memory":
			if inProcess {
				entries[len(entries)-1].process.Memory = toBytes(number(value), 1<<20)
			}
		}
	}
	return entries, ok
}

// mergeNvidiaProcesses converts entries to processes with the UUIDs of their devices. A process
// that does compute and graphics can be listed twice, each time with its total memory; it
// results in one process.
func mergeNvidiaProcesses(entries []nvidiaProcess, devices []Device) []Process {
	uuids := map[string]string{}
	for _, d := range devices {
		uuids[d.PCIBusID] = d.UUID
	}
	type key struct {
		nvidiaLocation
		pid int
	}
	seen := map[key]int{} // index in processes
	var processes []Process
	for _, e := range entries {
		p, k := e.process, key{e.nvidiaLocation, e.process.PID}
		p.DeviceUUID = uuids[e.bus]
		i, duplicate := seen[k]
		if !duplicate {
			seen[k] = len(processes)
			processes = append(processes, p)
			continue
		}
		first := &processes[i]
		first.Name = cmp.Or(first.Name, p.Name)
		if first.Memory == nil || p.Memory != nil && *p.Memory > *first.Memory {
			first.Memory = p.Memory
		}
	}
	return processes
}

// nvidiaComputeProcesses returns the compute processes. `nvidia-smi --help-query-compute-apps`
// explains the fields.
func (d *Detector) nvidiaComputeProcesses(ctx context.Context) ([]Process, error) {
	r, err := d.runNvidiaSMI(ctx, "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits")
	if err != nil && noDevices(err.Error()) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseNvidiaProcesses(r.Stdout), nil
}

// parseNvidiaProcesses parses lines of UUID, PID, name and MiB. The name can contain
// commas. Other lines, such as "No devices were found", are ignored.
func parseNvidiaProcesses(out []byte) []Process {
	var processes []Process
	for line := range strings.Lines(string(out)) {
		values := strings.Split(strings.TrimSpace(line), ", ")
		if len(values) < 4 {
			continue
		}
		pid, err := strconv.Atoi(values[1])
		if err != nil || pid <= 0 {
			continue
		}
		last := len(values) - 1
		processes = append(processes, Process{
			Vendor: NVIDIA, DeviceUUID: knownText(values[0]), PID: pid,
			Name:   knownText(strings.Join(values[2:last], ", ")),
			Memory: toBytes(number(values[last]), 1<<20),
		})
	}
	return processes
}
