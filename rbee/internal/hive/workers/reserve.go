package workers

import (
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
)

// Reserve sets the reserved memory of devices: the part of the memory estimates of loading
// workers that is not allocated yet. at is the time at which devices and holders were read;
// a worker that became ready after that time counts as loading.
func (m *Manager) Reserve(devices []gpu.Device, holders []operations.DeviceProcess, at time.Time) {
	reserve(devices, holders, at, m.reservingRecords(""))
}

// reservingRecords returns the records of the workers that can reserve memory: all workers
// that are not being cleaned up, except the worker with the ID self.
func (m *Manager) reservingRecords(self string) []record {
	var records []record
	for _, w := range m.all() {
		if r := w.record(); r.ID != self && !w.isCleaningUp.Load() {
			records = append(records, r)
		}
	}
	return records
}

// Reserve sets the reserved memory of devices like [Manager.Reserve], for programs without
// a [Manager]. It uses the workers' records in dir and ignores workers whose process has
// exited.
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
	allocated := memoryByWorker(holders)
	for i := range devices {
		d := &devices[i]
		d.MemoryReserved = 0
		for _, r := range records {
			loading := r.State == operations.WorkerLoading || r.State == operations.WorkerReady && r.ReadyAt.After(at)
			if loading && r.usesDevice(*d) {
				d.MemoryReserved += r.unallocated(*d, allocated)
			}
		}
	}
}

// IsLoading reports whether any worker is loading and therefore will allocate more memory.
func (m *Manager) IsLoading() bool {
	return slices.ContainsFunc(m.all(), func(w *worker) bool { return w.record().State == operations.WorkerLoading })
}

// usesDevice reports whether the worker was placed on the device.
func (r *record) usesDevice(d gpu.Device) bool {
	return slices.ContainsFunc(r.Devices, func(c operations.WorkerDevice) bool { return sameDevice(c, d) })
}

// unallocated returns the part of the worker's estimate for one device, in bytes, that it
// has not allocated. allocated is the result of [memoryByWorker].
func (r *record) unallocated(d gpu.Device, allocated map[string]int64) uint64 {
	part := r.Estimate / int64(len(r.Devices))
	return uint64(max(0, part-allocated[r.ID+"\x00"+d.UUID]))
}
