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
	// memorySlack is how much less device memory than before may be free: drivers
	// keep some for themselves, and round.
	memorySlack = 256 << 20

	// unlistedSlack is how much more memory may be in use than the processes on a
	// vendor's list hold. Most have only those that compute, as NVIDIA's has where its
	// tool does not tell of all: what a desktop draws with is not there.
	unlistedSlack = 64 << 20
)

// deviceMemory is the memory of a device as it was before a worker came.
type deviceMemory struct {
	Free  uint64 `json:"free"`            // bytes
	Held  uint64 `json:"held,omitempty"`  // bytes that processes on the list held
	Whole bool   `json:"whole,omitempty"` // the list accounted for all that was in use
}

// picture is the accelerators and who holds memory there.
type picture struct {
	devices []gpu.Device
	holders []operations.DeviceProcess
	whole   bool // every vendor's tool has told its processes
}

func (m *Manager) picture(ctx context.Context) (p picture, err error) {
	if m.o.Devices == nil {
		return p, nil
	}
	if p.devices, err = m.o.Devices(ctx); err != nil {
		return p, err
	}
	p.holders, p.whole = m.holders(ctx)
	return p, nil
}

// holders are the processes that hold device memory; those of workers are named.
// whole is false if some may be missing.
func (m *Manager) holders(ctx context.Context) (list []operations.DeviceProcess, whole bool) {
	if m.o.Processes == nil {
		return nil, false
	}
	list, err := m.o.Processes(ctx)
	if err != nil {
		m.log.Warn("who holds device memory is not wholly known", "error", err)
	}
	if len(list) == 0 {
		return nil, err == nil
	}
	whose := map[int]string{}
	for _, w := range m.all() {
		for _, p := range w.members(false) {
			whose[p.PID] = w.record().ID
		}
	}
	for i := range list {
		list[i].WorkerID = whose[list[i].PID]
	}
	return list, err == nil
}

// Holders are the processes that hold memory on the accelerators, those of
// workers with their ids.
func (m *Manager) Holders(ctx context.Context) []operations.DeviceProcess {
	list, _ := m.holders(ctx)
	return list
}

// byWorker is the memory in bytes that workers' processes hold on devices, by id
// and UUID.
func (p picture) byWorker() map[string]int64 {
	return heldByWorker(p.holders)
}

func heldByWorker(holders []operations.DeviceProcess) map[string]int64 {
	held := map[string]int64{}
	for _, h := range holders {
		if h.WorkerID != "" && h.Memory != nil {
			held[h.WorkerID+"\x00"+h.DeviceUUID] += int64(*h.Memory) //nolint:gosec // a size
		}
	}
	return held
}

func (p picture) device(d operations.WorkerDevice) (gpu.Device, bool) {
	i := slices.IndexFunc(p.devices, func(have gpu.Device) bool { return sameDevice(d, have) })
	if i < 0 {
		return gpu.Device{}, false
	}
	return p.devices[i], true
}

// on are the processes that hold memory on a device, or may. whole is false if it
// is not known of all whether, or how much.
func (p picture) on(d operations.WorkerDevice) (here []operations.DeviceProcess, whole bool) {
	whole = p.whole
	for _, h := range p.holders {
		placed := h.DeviceUUID != "" && d.UUID != ""
		if h.Vendor != "" && h.Vendor != d.Vendor || placed && h.DeviceUUID != d.UUID {
			continue
		}
		here = append(here, h)
		whole = whole && placed && h.Memory != nil
	}
	return here, whole
}

// before is the memory of devices that a worker is about to get, by [deviceKey].
// What shares the machine's memory is not in it: there free memory is the
// machine's, which everything changes.
func (p picture) before(chosen []operations.WorkerDevice) map[string]deviceMemory {
	before := map[string]deviceMemory{}
	for _, c := range chosen {
		d, there := p.device(c)
		if !there || d.MemoryFree == nil || d.Unified {
			continue
		}
		here, whole := p.on(c)
		b := deviceMemory{Free: *d.MemoryFree, Whole: whole}
		for _, h := range here {
			b.Held += held(h)
		}
		if d.MemoryUsed != nil && *d.MemoryUsed > b.Held+unlistedSlack {
			b.Whole = false
		}
		before[deviceKey(c)] = b
	}
	return before
}

func held(p operations.DeviceProcess) uint64 {
	if p.Memory == nil {
		return 0
	}
	return *p.Memory
}

// aftermath is a device of a worker that has ended. Sizes are in bytes.
type aftermath struct {
	index  int
	own    []int         // processes of the worker that are on the list still
	before *deviceMemory // nil if nothing can be compared with it
	free   uint64
	held   uint64 // by others on the list
	gained uint64 // by other workers since, as far as no list tells
	whole  bool   // the list tells all of it
}

// lack words what is not back of a worker's memory; empty means that all is. It is
// sure if nobody else can have it.
func (a aftermath) lack() (what string, sure bool) {
	if len(a.own) > 0 {
		return fmt.Sprintf("process %d, which has ended, still holds memory of device %d", a.own[0], a.index), true
	}
	if a.before == nil {
		return "", true
	}
	explained := a.gained
	if a.held > a.before.Held { // what others held before is not free then either
		explained += a.held - a.before.Held
	}
	if a.free+explained+memorySlack >= a.before.Free {
		return "", true
	}
	missing := bytesize.Format(a.before.Free - a.free - explained)
	if a.whole && a.before.Whole {
		return fmt.Sprintf("%s of device %d are held by nobody that can be seen", missing, a.index), true
	}
	return fmt.Sprintf("%s less of device %d are free than before it came, and not all who hold memory there can be seen", missing, a.index), false
}

// aftermath looks at a device of a worker, whose processes ids were.
func (m *Manager) aftermath(p picture, r record, d operations.WorkerDevice, ids []proc.ID) aftermath {
	a := aftermath{index: d.Index}
	here, whole := p.on(d)
	a.whole = whole
	told := map[string]bool{} // workers whose memory is on the list
	for _, h := range here {
		if wasOne(ids, h.PID) {
			a.own = append(a.own, h.PID)
			continue
		}
		a.held += held(h)
		told[h.WorkerID] = told[h.WorkerID] || h.Memory != nil
	}
	now, there := p.device(d)
	before, known := r.Before[deviceKey(d)]
	if !there || !known || now.MemoryFree == nil {
		return a
	}
	a.before, a.free = &before, *now.MemoryFree
	for _, w := range m.all() {
		o := w.record()
		if o.ID == r.ID || told[o.ID] || !o.mayHaveGained(d, r.StartedAt) {
			continue
		}
		a.gained += uint64(max(0, o.Estimate)) / uint64(len(o.Devices))
		a.whole = a.whole && o.Estimate > 0
	}
	return a
}

// mayHaveGained is true for a worker that has memory on a device which it had not
// wholly got at a time.
func (r *record) mayHaveGained(d operations.WorkerDevice, since time.Time) bool {
	switch r.State {
	case operations.WorkerLoading, operations.WorkerReady, operations.WorkerDraining:
		return slices.ContainsFunc(r.Devices, func(have operations.WorkerDevice) bool { return deviceKey(have) == deviceKey(d) }) &&
			(r.ReadyAt.IsZero() || r.ReadyAt.After(since))
	case operations.WorkerStarting, operations.WorkerFailed, operations.WorkerStopped:
	}
	return false
}

// wasOne reports whether a pid is that of a process that has ended, and nobody
// else's by now.
func wasOne(ids []proc.ID, pid int) bool {
	return slices.ContainsFunc(ids, func(id proc.ID) bool {
		if id.PID != pid {
			return false
		}
		now, err := proc.Identify(pid)
		return err != nil || now == id
	})
}

// awaitMemory waits until the devices have the memory of the worker's processes
// back, and tells who else holds memory there. Where not all of them can be seen,
// it is enough that the processes are gone and no more of it comes back.
func (w *worker) awaitMemory(ids []proc.ID) (e ending) {
	r := w.record()
	if len(r.Devices) == 0 || w.m.o.Devices == nil {
		return e
	}
	ctx, cancel := context.WithTimeout(w.m.ctx, w.m.t.Memory)
	defer cancel()
	most, rose := uint64(0), time.Now()
	for {
		now := w.notBack(r, ids)
		e.holders = now.holders
		if now.sure || now.free > most {
			most, rose = max(most, now.free), time.Now()
		}
		switch {
		case len(now.missing) == 0:
			return e
		case !now.sure && (time.Since(rose) >= w.m.t.Settle || ctx.Err() != nil):
			e.note = strings.Join(now.missing, "; ")
			return e
		case ctx.Err() != nil:
			e.problem = fmt.Sprintf("device memory did not come back within %s: %s", w.m.t.Memory, strings.Join(now.missing, "; "))
			return e
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(200*time.Millisecond, w.m.t.Settle)):
		}
	}
}

// shortage is what a worker's devices do not have back.
type shortage struct {
	missing []string
	sure    bool   // nobody else can have some of it
	free    uint64 // bytes, over all its devices
	holders []operations.DeviceProcess
}

func (w *worker) notBack(r record, ids []proc.ID) (s shortage) {
	p, err := w.m.picture(w.m.ctx)
	if err != nil {
		return shortage{missing: []string{err.Error()}, sure: true}
	}
	for _, d := range r.Devices {
		a := w.m.aftermath(p, r, d, ids)
		s.free += a.free
		if what, sure := a.lack(); what != "" {
			s.missing, s.sure = append(s.missing, what), s.sure || sure
		}
		here, _ := p.on(d)
		for _, h := range here {
			known := slices.ContainsFunc(s.holders, func(have operations.DeviceProcess) bool { return have.PID == h.PID })
			if h.WorkerID == "" && !known && !wasOne(ids, h.PID) {
				s.holders = append(s.holders, h)
			}
		}
	}
	return s
}
