package workers

import (
	"context"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
)

// TestReserve checks that Reserve reserves the part of a loading worker's estimate that the
// worker has not allocated.
func TestReserve(t *testing.T) {
	t.Parallel()
	const gib = 1 << 30
	now := time.Now()
	one := []operations.WorkerDevice{{Index: 0, Vendor: "nvidia", UUID: "GPU-1"}}
	both := append(one[:1:1], operations.WorkerDevice{Index: 1, Vendor: "nvidia", UUID: "GPU-2"})
	held := uint64(3 * gib)
	for _, tt := range []struct {
		name         string
		rec          record
		want         [2]uint64 // GiB
		isCleaningUp bool
	}{
		{name: "loading", rec: record{State: operations.WorkerLoading, Devices: one, Estimate: 10 * gib}, want: [2]uint64{7, 0}},
		{name: "loading on two devices", rec: record{State: operations.WorkerLoading, Devices: both, Estimate: 10 * gib}, want: [2]uint64{2, 5}},
		{name: "allocated more than estimated", rec: record{State: operations.WorkerLoading, Devices: one, Estimate: 2 * gib}},
		{name: "estimate unknown", rec: record{State: operations.WorkerLoading, Devices: one}},
		{name: "on the CPU", rec: record{State: operations.WorkerLoading}},
		{name: "ready", rec: record{State: operations.WorkerReady, Devices: one, Estimate: 10 * gib, ReadyAt: now.Add(-time.Second)}},
		{name: "ready after snapshot", rec: record{State: operations.WorkerReady, Devices: one, Estimate: 10 * gib, ReadyAt: now.Add(time.Second)}, want: [2]uint64{7, 0}},
		{name: "cleaning up", rec: record{State: operations.WorkerLoading, Devices: one, Estimate: 10 * gib}, isCleaningUp: true},
		{name: "draining", rec: record{State: operations.WorkerDraining, Devices: one, Estimate: 10 * gib}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := New(Options{Dir: t.TempDir(), Logs: t.TempDir()})
			tt.rec.ID = "w"
			w := &worker{m: m, rec: tt.rec}
			w.isCleaningUp.Store(tt.isCleaningUp)
			m.workers["w"] = w
			devices := []gpu.Device{
				{Index: 0, Vendor: gpu.NVIDIA, UUID: "GPU-1", MemoryReserved: 99}, {Index: 1, Vendor: gpu.NVIDIA, UUID: "GPU-2"},
			}
			holders := []operations.DeviceProcess{{DeviceUUID: "GPU-1", PID: 1, WorkerID: "w", Memory: &held}, {DeviceUUID: "GPU-1", PID: 2, Memory: &held}}
			m.Reserve(devices, holders, now)
			if got := [2]uint64{devices[0].MemoryReserved, devices[1].MemoryReserved}; got != [2]uint64{tt.want[0] * gib, tt.want[1] * gib} {
				t.Errorf("Reserve() reserves %d bytes, want %d GiB", got, tt.want)
			}
		})
	}
}

// TestPlacementCountsReserved checks that placement and reports reserve the same memory.
func TestPlacementCountsReserved(t *testing.T) {
	t.Parallel()
	var g fakeGPU
	g.set(20e9)
	o := Options{Dir: t.TempDir(), Logs: t.TempDir()}
	g.options(&o)
	m := New(o)
	m.workers["w"] = &worker{m: m, rec: record{ID: "w", State: operations.WorkerLoading, Estimate: 7e9, Devices: []operations.WorkerDevice{{Vendor: "nvidia", UUID: "GPU-1"}}}}
	placed, p, err := m.devices(context.Background(), "other")
	if err != nil {
		t.Fatal(err)
	}
	m.Reserve(p.devices, nil, time.Now())
	if got, want := placed[0].MemoryReserved, p.devices[0].MemoryReserved; got != 7e9 || got != want {
		t.Errorf("devices() reserves %d bytes, Reserve() reserves %d, want 7e9 for both", got, want)
	}
	if n, known := p.devices[0].Available(); n != 13e9 || !known {
		t.Errorf("Available() = %d, %t, want 13e9", n, known)
	}
}
