package workers

import (
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
)

// Reserve sets the reserved memory of devices: what loading workers are expected to
// allocate there and had not allocated at the time when the devices and the holders of
// their memory were read. A worker that has become ready since counts as loading then.
func (m *Manager) Reserve(devices []gpu.Device, holders []operations.DeviceProcess, at time.Time) {
	reserve(devices, holders, at, m.ledgerRecords(""))
}

// ledgerRecords returns the records of the workers that memory may be reserved for: all that
// are not being stopped, but for the one with the id self.
func (m *Manager) ledgerRecords(self string) []record {
	var records []record
	for _, w := range m.all() {
		if r := w.record(); r.ID != self && !w.ending.Load() {
			records = append(records, r)
		}
	}
	return records
}

// Reserve sets the reserved memory of devices as [Manager.Reserve] does, for a program
// that is not the daemon: from the workers' records in dir, of which those count whose
// process runs.
func Reserve(dir string, devices []gpu.Device, holders []operations.DeviceProcess, at time.Time) error {
	recorded, err := listRecords(dir, nil)
	var records []record
	for _, r := range recorded {
		if r.Process.Alive() {
			records = append(records, *r)
		}
	}
	reserve(devices, holders, at, records)
	return err
}

func reserve(devices []gpu.Device, holders []operations.DeviceProcess, at time.Time, records []record) {
	held := heldByWorker(holders)
	for i := range devices {
		d := &devices[i]
		d.MemoryReserved = 0
		for _, r := range records {
			loading := r.State == operations.WorkerLoading || r.State == operations.WorkerReady && r.ReadyAt.After(at)
			if loading && r.has(*d) {
				d.MemoryReserved += r.unallocated(*d, held)
			}
		}
	}
}

// IsLoading reports whether a worker is loading, and so will allocate more memory.
func (m *Manager) IsLoading() bool {
	return slices.ContainsFunc(m.all(), func(w *worker) bool { return w.record().State == operations.WorkerLoading })
}

// has reports whether the worker was given the device.
func (r *record) has(d gpu.Device) bool {
	return slices.ContainsFunc(r.Devices, func(c operations.WorkerDevice) bool { return sameDevice(c, d) })
}

// unallocated returns how much of its estimate the worker does not hold on one of its
// devices, in bytes. held is the memory that workers hold, see [picture.byWorker].
func (r *record) unallocated(d gpu.Device, held map[string]int64) uint64 {
	part := r.Estimate / int64(len(r.Devices))
	return uint64(max(0, part-held[r.ID+"\x00"+d.UUID]))
}
