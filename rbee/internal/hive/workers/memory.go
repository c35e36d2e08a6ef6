package workers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

const (
	// memorySlack is the maximum device memory, in bytes, that may remain allocated
	// after a worker has exited: drivers retain some memory and round sizes.
	memorySlack = 256 << 20

	// unlistedSlack is the maximum difference, in bytes, between the used memory of a
	// device and the memory of its listed processes. A larger difference means that some
	// processes are not listed: the tools of many vendors list only compute processes,
	// not a desktop.
	unlistedSlack = 64 << 20
)

// deviceMemory is the memory of a device before a worker started.
type deviceMemory struct {
	Free     uint64 `json:"free"`            // bytes
	Held     uint64 `json:"held,omitempty"`  // bytes of the listed processes
	Complete bool   `json:"whole,omitempty"` // the listed processes account for all used memory
}

// deviceSnapshot contains the accelerators and the processes with memory on them.
type deviceSnapshot struct {
	devices  []gpu.Device
	holders  []operations.DeviceProcess
	complete bool // the tools of all vendors have listed their processes
}

// deviceSnapshot reads the devices and their processes.
func (m *Manager) deviceSnapshot(ctx context.Context) (s deviceSnapshot, err error) {
	if m.o.Devices == nil {
		return s, nil
	}
	if s.devices, err = m.o.Devices(ctx); err != nil {
		return s, err
	}
	s.holders, s.complete = m.deviceProcesses(ctx)
	return s, nil
}

// deviceProcesses returns the processes with device memory, with the worker ID if a process
// belongs to a worker. complete is false if some processes may be missing.
func (m *Manager) deviceProcesses(ctx context.Context) (list []operations.DeviceProcess, complete bool) {
	if m.o.Processes == nil {
		return nil, false
	}
	list, err := m.o.Processes(ctx)
	if err != nil {
		m.log.Warn("cannot list all processes with device memory", "error", err)
	}
	if len(list) == 0 {
		return nil, err == nil
	}
	workerIDs := map[int]string{}
	for _, w := range m.all() {
		for _, p := range w.members(false) {
			workerIDs[p.PID] = w.record().ID
		}
	}
	for i := range list {
		list[i].WorkerID = workerIDs[list[i].PID]
	}
	return list, err == nil
}

// DeviceProcesses returns the processes with memory on the accelerators, with the worker ID if
// a process belongs to a worker.
func (m *Manager) DeviceProcesses(ctx context.Context) []operations.DeviceProcess {
	list, _ := m.deviceProcesses(ctx)
	return list
}

// memoryByWorker returns the device memory of workers in the snapshot. The keys have the same
// form as the keys of the function memoryByWorker.
func (s deviceSnapshot) memoryByWorker() map[string]int64 {
	return memoryByWorker(s.holders)
}

// memoryByWorker returns the device memory of workers in bytes. The keys are the worker ID,
// a zero byte and the UUID of the device.
func memoryByWorker(holders []operations.DeviceProcess) map[string]int64 {
	memory := map[string]int64{}
	for _, h := range holders {
		if h.WorkerID != "" && h.Memory != nil {
			memory[h.WorkerID+"\x00"+h.DeviceUUID] += int64(*h.Memory) //nolint:gosec // a size
		}
	}
	return memory
}

// device returns the accelerator that d, a device of a worker, refers to.
func (s deviceSnapshot) device(d operations.WorkerDevice) (gpu.Device, bool) {
	i := slices.IndexFunc(s.devices, func(other gpu.Device) bool { return sameDevice(d, other) })
	if i < 0 {
		return gpu.Device{}, false
	}
	return s.devices[i], true
}

// processesOn returns the processes that have, or may have, memory on a device. complete is
// false if some processes may be missing, or if the device or the amount of memory is unknown
// for some processes.
func (s deviceSnapshot) processesOn(d operations.WorkerDevice) (processes []operations.DeviceProcess, complete bool) {
	complete = s.complete
	for _, h := range s.holders {
		hasUUIDs := h.DeviceUUID != "" && d.UUID != ""
		if h.Vendor != "" && h.Vendor != d.Vendor || hasUUIDs && h.DeviceUUID != d.UUID {
			continue
		}
		processes = append(processes, h)
		complete = complete && hasUUIDs && h.Memory != nil
	}
	return processes, complete
}

// memoryBefore returns the memory of the chosen devices before a worker starts, by
// [deviceKey]. It omits devices that share the machine's memory: their free memory
// depends on all processes of the machine.
func (s deviceSnapshot) memoryBefore(chosen []operations.WorkerDevice) map[string]deviceMemory {
	before := map[string]deviceMemory{}
	for _, c := range chosen {
		d, ok := s.device(c)
		if !ok || d.MemoryFree == nil || d.Unified {
			continue
		}
		processes, complete := s.processesOn(c)
		b := deviceMemory{Free: *d.MemoryFree, Complete: complete}
		for _, h := range processes {
			b.Held += memoryOf(h)
		}
		if d.MemoryUsed != nil && *d.MemoryUsed > b.Held+unlistedSlack {
			b.Complete = false
		}
		before[deviceKey(c)] = b
	}
	return before
}

// memoryOf returns the device memory of a process in bytes; 0 if unknown.
func memoryOf(p operations.DeviceProcess) uint64 {
	if p.Memory == nil {
		return 0
	}
	return *p.Memory
}

// releaseCheck describes the memory of one device after a worker has exited. Sizes are in
// bytes.
type releaseCheck struct {
	index     int
	remaining []int         // listed processes of the worker
	before    *deviceMemory // before the worker started; nil if unknown
	free      uint64
	held      uint64 // memory of other listed processes
	allocated uint64 // memory that unlisted workers may have allocated since the worker started (estimate)
	complete  bool   // held and allocated account for all used memory
}

// describeUnreleased describes the memory of the worker that is not released. It returns "" if
// all memory is released. certain is false if an unknown process may have allocated the memory.
func (c releaseCheck) describeUnreleased() (description string, certain bool) {
	if len(c.remaining) > 0 {
		return fmt.Sprintf("process %d has exited, but its memory on device %d is not released", c.remaining[0], c.index), true
	}
	if c.before == nil {
		return "", true
	}
	usedByOthers := c.allocated // only memory allocated since the worker started
	if c.held > c.before.Held {
		usedByOthers += c.held - c.before.Held
	}
	if c.free+usedByOthers+memorySlack >= c.before.Free {
		return "", true
	}
	size := bytesize.Format(c.before.Free - c.free - usedByOthers)
	if c.complete && c.before.Complete {
		return fmt.Sprintf("%s of device %d are still allocated by an unknown process", size, c.index), true
	}
	return fmt.Sprintf("device %d has %s less free memory than before the worker started, and not all processes on it are known", c.index, size), false
}

// checkRelease compares the memory of a device in a snapshot with the memory before the worker
// started. r is the record of the worker, and ids are its processes, which have exited.
func (m *Manager) checkRelease(s deviceSnapshot, r record, d operations.WorkerDevice, ids []proc.ID) releaseCheck {
	c := releaseCheck{index: d.Index}
	processes, complete := s.processesOn(d)
	c.complete = complete
	listed := map[string]bool{} // workers whose memory is listed
	for _, h := range processes {
		if refersTo(ids, h.PID) {
			c.remaining = append(c.remaining, h.PID)
			continue
		}
		c.held += memoryOf(h)
		listed[h.WorkerID] = listed[h.WorkerID] || h.Memory != nil
	}
	now, found := s.device(d)
	before, recorded := r.Before[deviceKey(d)]
	if !found || !recorded || now.MemoryFree == nil {
		return c
	}
	c.before, c.free = &before, *now.MemoryFree
	for _, w := range m.all() {
		other := w.record()
		if other.ID == r.ID || listed[other.ID] || !other.mayHaveAllocated(d, r.StartedAt) {
			continue
		}
		c.allocated += uint64(max(0, other.Estimate)) / uint64(len(other.Devices))
		c.complete = c.complete && other.Estimate > 0
	}
	return c
}

// mayHaveAllocated reports whether the worker may have allocated memory on a device since the
// given time.
func (r *record) mayHaveAllocated(d operations.WorkerDevice, since time.Time) bool {
	switch r.State {
	case operations.WorkerLoading, operations.WorkerReady, operations.WorkerDraining:
		return slices.ContainsFunc(r.Devices, func(other operations.WorkerDevice) bool { return deviceKey(other) == deviceKey(d) }) &&
			(r.ReadyAt.IsZero() || r.ReadyAt.After(since))
	case operations.WorkerStarting, operations.WorkerFailed, operations.WorkerStopped:
	}
	return false
}

// refersTo reports whether pid refers to a process in ids, and not to a later process
// with the same PID.
func refersTo(ids []proc.ID, pid int) bool {
	return slices.ContainsFunc(ids, func(id proc.ID) bool {
		if id.PID != pid {
			return false
		}
		now, err := proc.Identify(pid)
		return err != nil || now == id
	})
}

// awaitMemory waits until the memory of the worker's processes on its devices is released,
// and returns the other processes with memory on these devices. If not all processes on a
// device are known, awaitMemory stops waiting when the free memory has not grown for
// [Timing].MemorySettle.
func (w *worker) awaitMemory(ids []proc.ID) (result stopResult) {
	r := w.record()
	if len(r.Devices) == 0 || w.m.o.Devices == nil {
		return result
	}
	ctx, cancel := context.WithTimeout(w.m.ctx, w.m.timing.MemoryTimeout)
	defer cancel()
	maxFree, grewAt := uint64(0), time.Now()
	for {
		now := w.unreleasedMemory(r, ids)
		result.holders = now.holders
		if now.certain || now.free > maxFree {
			maxFree, grewAt = max(maxFree, now.free), time.Now()
		}
		switch {
		case len(now.descriptions) == 0:
			return result
		case !now.certain && (time.Since(grewAt) >= w.m.timing.MemorySettle || ctx.Err() != nil):
			result.note = strings.Join(now.descriptions, "; ")
			return result
		case ctx.Err() != nil:
			result.problem = fmt.Sprintf("device memory was not released within %s: %s", w.m.timing.MemoryTimeout, strings.Join(now.descriptions, "; "))
			return result
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(200*time.Millisecond, w.m.timing.MemorySettle)):
		}
	}
}

// memoryResidue describes the memory of an exited worker that is not released.
type memoryResidue struct {
	descriptions []string                   // of [releaseCheck.describeUnreleased], by device
	certain      bool                       // at least one description is certain
	free         uint64                     // free bytes on all devices of the worker
	holders      []operations.DeviceProcess // other processes on the devices that are not workers
}

// unreleasedMemory checks all devices of a worker. r is its record, and ids are its processes,
// which have exited.
func (w *worker) unreleasedMemory(r record, ids []proc.ID) (u memoryResidue) {
	s, err := w.m.deviceSnapshot(w.m.ctx)
	if err != nil {
		return memoryResidue{descriptions: []string{err.Error()}, certain: true}
	}
	for _, d := range r.Devices {
		c := w.m.checkRelease(s, r, d, ids)
		u.free += c.free
		if description, certain := c.describeUnreleased(); description != "" {
			u.descriptions, u.certain = append(u.descriptions, description), u.certain || certain
		}
		processes, _ := s.processesOn(d)
		for _, h := range processes {
			listed := slices.ContainsFunc(u.holders, func(other operations.DeviceProcess) bool { return other.PID == h.PID })
			if h.WorkerID == "" && !listed && !refersTo(ids, h.PID) {
				u.holders = append(u.holders, h)
			}
		}
	}
	return u
}
