package gpu

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
)

// nvidiaProcesses lists all processes, those that draw too: on a workstation the
// desktop is who holds the memory. `nvidia-smi -q -d PIDS` tells of both kinds, by
// the manual's section Processes, with whole names and at a fraction of the cost of
// all of -q; pmon cuts names off and leaves out devices. An nvidia-smi that
// does not answer so is asked for the compute processes alone.
func (d *Detector) nvidiaProcesses(ctx context.Context) ([]Process, error) {
	r, err := d.askNvidia(ctx, "-q", "-d", "PIDS")
	if missing(err) || err != nil && noDevices(err.Error()) {
		return nil, nil
	}
	var failed *toolError
	if errors.As(err, &failed) && failed.err != nil {
		return nil, err // it did not answer at all, and would not answer anything else
	}
	holders, understood := parseNvidiaHolders(r.Stdout)
	if err != nil || !understood {
		return d.nvidiaComputeProcesses(ctx)
	}
	if len(holders) == 0 {
		return nil, nil
	}
	return joinNvidiaHolders(holders, d.nvidia(ctx, nil)), nil
}

// nvidiaHolder is a process as -q tells it.
type nvidiaHolder struct {
	nvidiaPlace
	process Process
}

// nvidiaPlace is a device by its address, and in multi-instance mode a part of it.
type nvidiaPlace struct{ bus, gpuInstance, computeInstance string }

// parseNvidiaHolders reads lines of "key : value" that are indented below the line
// of their device, "GPU 00000000:01:00.0". understood is false for an output that is
// none of -q, such as a complaint.
func parseNvidiaHolders(out []byte) (holders []nvidiaHolder, understood bool) {
	var at nvidiaPlace
	var within bool // lines are about the last of the holders
	for line := range strings.Lines(string(out)) {
		if address, ok := strings.CutPrefix(line, "GPU "); ok && busID(address) != "" {
			at, within, understood = nvidiaPlace{bus: busID(address)}, false, true
			continue
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "Attached GPUs":
			understood = true
		case "GPU instance ID":
			at.gpuInstance = known(value)
		case "Compute instance ID":
			at.computeInstance = known(value)
		case "Process ID":
			pid, err := strconv.Atoi(value)
			if within = err == nil && pid > 0 && at.bus != ""; within {
				holders = append(holders, nvidiaHolder{at, Process{Vendor: NVIDIA, PID: pid}})
			}
		case "Name":
			if within {
				holders[len(holders)-1].process.Name = known(value)
			}
		case "Used GPU Memory":
			if within {
				holders[len(holders)-1].process.Memory = toBytes(number(value), 1<<20)
			}
		}
	}
	return holders, understood
}

// joinNvidiaHolders makes processes of holders, with the UUIDs of the devices. A
// process that computes and draws may be told twice, each time with all its memory.
func joinNvidiaHolders(holders []nvidiaHolder, devices []Device) []Process {
	uuids := map[string]string{}
	for _, d := range devices {
		uuids[d.PCIBusID] = d.UUID
	}
	type held struct {
		nvidiaPlace
		pid int
	}
	seen := map[held]int{} // where in processes
	var processes []Process
	for _, h := range holders {
		p, key := h.process, held{h.nvidiaPlace, h.process.PID}
		p.DeviceUUID = uuids[h.bus]
		i, again := seen[key]
		if !again {
			seen[key] = len(processes)
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

// nvidiaComputeProcesses lists the processes that compute; columns are explained
// under `nvidia-smi --help-query-compute-apps`.
func (d *Detector) nvidiaComputeProcesses(ctx context.Context) ([]Process, error) {
	r, err := d.askNvidia(ctx, "--query-compute-apps=gpu_uuid,pid,process_name,used_memory", "--format=csv,noheader,nounits")
	if err != nil && noDevices(err.Error()) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseNvidiaProcesses(r.Stdout), nil
}

// parseNvidiaProcesses reads lines of uuid, pid, name, MiB. The name may hold
// commas. Other lines, such as "No devices were found", are no processes.
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
			Vendor: NVIDIA, DeviceUUID: known(values[0]), PID: pid,
			Name:   known(strings.Join(values[2:last], ", ")),
			Memory: toBytes(number(values[last]), 1<<20),
		})
	}
	return processes
}
