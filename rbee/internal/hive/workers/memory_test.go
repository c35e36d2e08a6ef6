package workers

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// fakeGPU simulates a device. The test sets its free memory and its processes.
type fakeGPU struct {
	file string // file with the number of free bytes; empty to use free

	mu         sync.Mutex
	free       uint64
	procs      []operations.DeviceProcess
	unified    bool
	queryCount int // queries of the devices
}

// set sets the free memory and the processes of the device.
func (g *fakeGPU) set(free uint64, procs ...operations.DeviceProcess) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free, g.procs = free, procs
}

// queries returns the number of queries of the devices.
func (g *fakeGPU) queries() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queryCount
}

// options makes a manager use the device, and an engine that requires 10e9 bytes.
func (g *fakeGPU) options(o *Options) {
	o.Devices = func(context.Context) ([]gpu.Device, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.queryCount++
		free := g.free
		if g.file != "" {
			free = readFree(g.file)
		}
		return []gpu.Device{{Index: 0, Vendor: "nvidia", UUID: "GPU-1", Name: "Fake", MemoryTotal: 24e9, MemoryFree: &free, Unified: g.unified}}, nil
	}
	o.Processes = func(context.Context) ([]operations.DeviceProcess, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		return slices.Clone(g.procs), nil
	}
	inner := o.Engine
	o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
		e, err := inner(ctx, typ)
		e.Launch.Memory = &wire.Memory{Fixed: 10e9}
		return e, err
	}
}

func TestStopWaitsForDeviceMemory(t *testing.T) {
	t.Parallel()
	gpu := &fakeGPU{free: 24e9}
	o := testOptions(t.TempDir())
	o.Timing.MemoryTimeout = 10 * time.Second
	gpu.options(&o)
	m := newManager(t, o)
	p := spawn(t, m, "serve")
	if len(p.Devices) != 1 || p.Devices[0].UUID != "GPU-1" || p.MemoryEstimate != 10e9 {
		t.Fatalf("Spawn() = %+v, want 10e9 bytes on GPU-1", p)
	}
	if env := get(t, p.Port, "/environ"); !strings.Contains(env, `"CUDA_VISIBLE_DEVICES=0"`) || !strings.Contains(env, `"CUDA_DEVICE_ORDER=PCI_BUS_ID"`) {
		t.Errorf("environment = %s, want CUDA_VISIBLE_DEVICES=0 and CUDA_DEVICE_ORDER=PCI_BUS_ID", env)
	}
	size := uint64(10e9)
	workerProcess := operations.DeviceProcess{Vendor: "nvidia", DeviceUUID: "GPU-1", PID: p.PID, Memory: &size}
	otherProcess := operations.DeviceProcess{Vendor: "nvidia", DeviceUUID: "GPU-1", PID: 99999999, Name: "python", User: "alice", Memory: ptr(uint64(2e9))}
	gpu.set(12e9, workerProcess, otherProcess)
	done := make(chan *operations.WorkerDeleteReport, 1)
	go func() {
		r, err := m.Stop(context.Background(), operations.WorkerRef{ID: p.ID}, StopOptions{})
		if err != nil {
			t.Errorf("Stop() = %v, want nil", err)
		}
		done <- r
	}()
	waittest.Until(t, "the process to exit", func() bool { return hasExited(p.PID) })
	// No other worker may be placed until the memory is released.
	spawned := make(chan operations.WorkerProcess, 1)
	go func() { spawned <- trySpawn(t, m, "serve") }()
	waittest.Until(t, "the other worker to wait", func() bool {
		return slices.ContainsFunc(m.List(false), func(w operations.WorkerProcess) bool {
			return w.ID != p.ID && w.State == operations.WorkerStarting && strings.Contains(w.Problem, p.ID)
		})
	})
	select {
	case r := <-done:
		t.Fatalf("Stop() = %+v before the memory was released, want it to wait", r)
	default:
	}
	gpu.set(22e9, otherProcess)
	r := <-done
	if r.Problem != "" || len(r.Holders) != 1 || r.Holders[0].User != "alice" {
		t.Errorf("Stop() = %+v, want no problem and alice's process", r)
	}
	if p := <-spawned; p.State != operations.WorkerReady {
		t.Errorf("other worker = %+v, want it ready", p)
	}
}

func TestStopReportsUnreleasedMemory(t *testing.T) {
	t.Parallel()
	gpu := &fakeGPU{free: 24e9}
	o := testOptions(t.TempDir())
	o.Timing.MemoryTimeout = 50 * time.Millisecond
	gpu.options(&o)
	m := newManager(t, o)
	p := spawn(t, m, "serve")
	gpu.set(12e9)
	r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{})
	if err != nil || !strings.Contains(r.Problem, "11.2 GiB of device 0 are still allocated by an unknown process") || r.Outcome() != operations.OutcomeFailed {
		t.Errorf("Stop() = %+v, %v, want 11.2 GiB still allocated", r, err)
	}
}

// TestReservedMemory checks that placement does not use memory that is reserved for a
// loading worker.
func TestReservedMemory(t *testing.T) {
	t.Parallel()
	gpu := &fakeGPU{free: 15e9}
	o := testOptions(t.TempDir())
	o.Timing.StallTimeout = time.Hour
	gpu.options(&o)
	m := newManager(t, o)
	if _, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "hang", Detach: true}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "serve"}, nil)
	var e *operations.Error
	if !errors.As(err, &e) {
		t.Errorf("Spawn() while the memory is reserved = %v, want an *operations.Error", err)
	}
}

// TestDescribeUnreleased checks which memory counts as not released.
func TestDescribeUnreleased(t *testing.T) {
	t.Parallel()
	gb := func(n float64) uint64 { return uint64(n * 1e9) }
	complete := func(free, held float64) *deviceMemory {
		return &deviceMemory{Free: gb(free), Held: gb(held), Complete: true}
	}
	for name, c := range map[string]struct {
		check   releaseCheck
		want    string
		certain bool
	}{
		"all released":                     {releaseCheck{before: complete(20, 0), free: gb(20), complete: true}, "", true},
		"within slack":                     {releaseCheck{before: complete(20, 0), free: gb(19.9), complete: true}, "", true},
		"unknown before":                   {releaseCheck{free: gb(1)}, "", true},
		"unreleased memory":                {releaseCheck{before: complete(20, 0), free: gb(15), complete: true}, "4.7 GiB of device 0 are still allocated by an unknown process", true},
		"new process":                      {releaseCheck{before: complete(20, 0), free: gb(15), held: gb(5), complete: true}, "", true},
		"earlier process":                  {releaseCheck{before: complete(15, 5), free: gb(10), held: gb(5), complete: true}, "4.7 GiB of device 0 are still allocated by an unknown process", true},
		"other process has grown":          {releaseCheck{before: complete(15, 5), free: gb(10), held: gb(10), complete: true}, "", true},
		"other process explains only part": {releaseCheck{before: complete(15, 5), free: gb(5), held: gb(10), complete: true}, "4.7 GiB of device 0 are still allocated by an unknown process", true},
		"other process has exited":         {releaseCheck{before: complete(15, 5), free: gb(20), complete: true}, "", true},
		"other worker":                     {releaseCheck{before: complete(20, 0), free: gb(10), allocated: gb(10), complete: true}, "", true},
		"incomplete after":                 {releaseCheck{before: complete(20, 0), free: gb(15)}, "device 0 has 4.7 GiB less free memory than before the worker started, and not all processes on it are known", false},
		"incomplete before":                {releaseCheck{before: &deviceMemory{Free: gb(20)}, free: gb(15), complete: true}, "device 0 has 4.7 GiB less free memory than before the worker started, and not all processes on it are known", false},
		"remaining process":                {releaseCheck{remaining: []int{7}, before: complete(20, 0), free: gb(20)}, "process 7 has exited, but its memory on device 0 is not released", true},
	} {
		if description, certain := c.check.describeUnreleased(); description != c.want || certain != c.certain {
			t.Errorf("%s: describeUnreleased() = %q, %t, want %q, %t", name, description, certain, c.want, c.certain)
		}
	}
}

// TestMemoryBefore checks that memoryBefore reports incomplete data if some memory is used by
// unlisted processes, and omits devices with unified memory.
func TestMemoryBefore(t *testing.T) {
	t.Parallel()
	chosen := []operations.WorkerDevice{{Vendor: "nvidia", UUID: "GPU-1"}}
	process := func(memory *uint64, uuid string) operations.DeviceProcess {
		return operations.DeviceProcess{Vendor: "nvidia", DeviceUUID: uuid, PID: 1, Memory: memory}
	}
	for name, c := range map[string]struct {
		used       *uint64
		unified    bool
		holder     operations.DeviceProcess
		toolFailed bool
		want       map[string]deviceMemory
	}{
		"listed process":         {used: ptr(uint64(4e9)), holder: process(ptr(uint64(4e9)), "GPU-1"), want: map[string]deviceMemory{"GPU-1": {Free: 20e9, Held: 4e9, Complete: true}}},
		"unlisted desktop":       {used: ptr(uint64(5e9)), holder: process(ptr(uint64(4e9)), "GPU-1"), want: map[string]deviceMemory{"GPU-1": {Free: 20e9, Held: 4e9}}},
		"other device":           {holder: process(ptr(uint64(4e9)), "GPU-2"), want: map[string]deviceMemory{"GPU-1": {Free: 20e9, Complete: true}}},
		"process without device": {holder: process(ptr(uint64(4e9)), ""), want: map[string]deviceMemory{"GPU-1": {Free: 20e9, Held: 4e9}}},
		"process without size":   {holder: process(nil, "GPU-1"), want: map[string]deviceMemory{"GPU-1": {Free: 20e9}}},
		"failed tool":            {toolFailed: true, holder: process(ptr(uint64(4e9)), "GPU-1"), want: map[string]deviceMemory{"GPU-1": {Free: 20e9, Held: 4e9}}},
		"unified memory":         {unified: true, holder: process(ptr(uint64(4e9)), "GPU-1"), want: map[string]deviceMemory{}},
	} {
		p := deviceSnapshot{
			devices: []gpu.Device{{Vendor: "nvidia", UUID: "GPU-1", MemoryFree: ptr(uint64(20e9)), MemoryUsed: c.used, Unified: c.unified}},
			holders: []operations.DeviceProcess{c.holder}, complete: !c.toolFailed,
		}
		if got := p.memoryBefore(chosen); !maps.Equal(got, c.want) {
			t.Errorf("%s: memoryBefore() = %+v, want %+v", name, got, c.want)
		}
	}
}

// TestStopIgnoresMemoryOfOthers checks that Stop does not wait for the release of unified
// memory or of the memory of another worker, and waits only briefly if an unknown process may
// use the memory.
func TestStopIgnoresMemoryOfOthers(t *testing.T) {
	t.Parallel()
	desktop := operations.DeviceProcess{Vendor: "nvidia", DeviceUUID: "GPU-1", PID: 99999999}
	for name, c := range map[string]struct {
		unified, otherWorker bool
		procs                []operations.DeviceProcess
		note                 string
	}{
		"unified memory":   {unified: true},
		"other worker":     {otherWorker: true},
		"unlisted desktop": {procs: []operations.DeviceProcess{desktop}, note: "device 0 has 9.3 GiB less free memory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gpu := &fakeGPU{free: 24e9, unified: c.unified}
			o := testOptions(t.TempDir())
			o.Timing.MemoryTimeout = time.Hour
			gpu.options(&o)
			m := newManager(t, o)
			p := spawn(t, m, "serve")
			if c.otherWorker {
				gpu.set(14e9) // the first worker has allocated 10e9 bytes
				spawn(t, m, "serve")
			}
			gpu.set(14e9, c.procs...)
			r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{})
			if err != nil || r.Problem != "" || !strings.HasPrefix(r.Note, c.note) || (r.Note == "") != (c.note == "") || r.Outcome() != operations.OutcomeOK {
				t.Errorf("Stop() = %+v, %v, want no problem and note %q", r, err, c.note)
			}
			gpu.set(24e9)
		})
	}
}

// TestStopWaitsWhileFreeMemoryGrows checks that Stop waits while the free memory grows, even if not
// all processes on the device are known.
func TestStopWaitsWhileFreeMemoryGrows(t *testing.T) {
	t.Parallel()
	gpu := &fakeGPU{free: 24e9, procs: []operations.DeviceProcess{{Vendor: "nvidia", DeviceUUID: "GPU-1", PID: 99999999}}}
	o := testOptions(t.TempDir())
	o.Timing.MemoryTimeout, o.Timing.MemorySettle = time.Hour, 3*time.Second
	gpu.options(&o)
	m := newManager(t, o)
	p := spawn(t, m, "serve")
	gpu.set(14e9, gpu.procs...)
	done := make(chan *operations.WorkerDeleteReport, 1)
	go func() {
		r, err := m.Stop(context.Background(), operations.WorkerRef{ID: p.ID}, StopOptions{})
		if err != nil {
			t.Errorf("Stop() = %v, want nil", err)
		}
		done <- r
	}()
	waittest.Until(t, "the process to exit", func() bool { return hasExited(p.PID) })
	for free := uint64(15e9); free <= 24e9; free += 3e9 {
		before := gpu.queries()
		waittest.Until(t, "another query", func() bool { return gpu.queries() > before })
		gpu.set(free, gpu.procs...)
	}
	if r := <-done; r.Problem != "" || r.Note != "" {
		t.Errorf("Stop() = %+v, want no problem and no note", r)
	}
}

// TestMemoryOfEarlierProcess checks that Stop reports unreleased memory even if a process that
// started before the worker uses as much memory.
func TestMemoryOfEarlierProcess(t *testing.T) {
	t.Parallel()
	process := operations.DeviceProcess{Vendor: "nvidia", DeviceUUID: "GPU-1", PID: 99999999, Memory: ptr(uint64(10e9))}
	gpu := &fakeGPU{free: 14e9, procs: []operations.DeviceProcess{process}}
	o := testOptions(t.TempDir())
	o.Timing.MemoryTimeout = 50 * time.Millisecond
	gpu.options(&o)
	m := newManager(t, o)
	p := spawn(t, m, "serve")
	gpu.set(4e9, process)
	r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{})
	if err != nil || !strings.Contains(r.Problem, "9.3 GiB of device 0 are still allocated by an unknown process") {
		t.Errorf("Stop() = %+v, %v, want 9.3 GiB still allocated", r, err)
	}
}

// TestResumeWaitsForMemory checks that no worker is placed until the memory of a worker that
// exited while no hive was running is released.
func TestResumeWaitsForMemory(t *testing.T) {
	t.Parallel()
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	gpu := &fakeGPU{free: 12e9}
	o := testOptions(t.TempDir())
	o.Timing.MemoryTimeout = time.Hour
	gpu.options(&o)
	w := New(o).add(&record{
		ID: "fake-1", Worker: "fake", Model: "serve", State: operations.WorkerReady, Marker: "m-" + t.TempDir(), Boot: self.BootID, EverReady: true,
		Process: proc.ID{PID: 99999999, StartTime: "1", BootID: self.BootID}, Estimate: 10e9,
		Devices: []operations.WorkerDevice{{Vendor: "nvidia", UUID: "GPU-1"}}, Before: map[string]deviceMemory{"GPU-1": {Free: 24e9, Complete: true}},
	})
	if err := w.save(); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, o)
	spawned := make(chan operations.WorkerProcess, 1)
	go func() { spawned <- trySpawn(t, m, "serve") }()
	waittest.Until(t, "the other worker to wait", func() bool {
		return slices.ContainsFunc(m.List(false), func(w operations.WorkerProcess) bool {
			return w.State == operations.WorkerStarting && strings.Contains(w.Problem, "fake-1")
		})
	})
	before := gpu.queries()
	waittest.Until(t, "five more queries", func() bool { return gpu.queries() > before+4 })
	if p, err := m.Get(operations.WorkerRef{ID: "fake-1"}); err != nil || p.Restarts != 0 {
		t.Errorf("Get(fake-1) = %+v, %v, want no restart before the memory is released", p, err)
	}
	gpu.set(24e9)
	waittest.Until(t, "the worker to serve again", func() bool {
		p, err := m.Get(operations.WorkerRef{ID: "fake-1"})
		return err == nil && p.State == operations.WorkerReady && p.Restarts == 1
	})
	if p := <-spawned; p.State != operations.WorkerReady {
		t.Errorf("other worker = %+v, want it ready", p)
	}
}

// TestFailedRestartDoesNotWaitForMemory checks that a restart fails immediately if it cannot
// start a process, even if other processes have allocated the memory of the worker.
func TestFailedRestartDoesNotWaitForMemory(t *testing.T) {
	t.Parallel()
	gpu := &fakeGPU{free: 24e9}
	o := testOptions(t.TempDir())
	o.Timing.MemoryTimeout, o.Timing.Backoff = time.Hour, []time.Duration{0, time.Hour}
	gpu.options(&o)
	findEngine := o.Engine
	var removed atomic.Bool
	o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
		if !removed.Load() {
			return findEngine(ctx, typ)
		}
		gpu.set(4e9)
		return engine.Engine{}, failure(operations.ReasonWorkerNotInstalled, typ, "worker removed")
	}
	m := newManager(t, o)
	p := spawn(t, m, "serve")
	removed.Store(true)
	_, _ = httpGet(p.Port, "/exit")
	waittest.Until(t, "the restart to fail", func() bool {
		got, err := m.Get(operations.WorkerRef{ID: p.ID})
		return err == nil && got.State == operations.WorkerFailed && got.Problem == "worker removed"
	})
	gpu.set(24e9)
}

// TestRestoreBeforePlacement checks that restore reads all records before any worker continues,
// because placement must know all reservations.
func TestRestoreBeforePlacement(t *testing.T) {
	t.Parallel()
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	o := testOptions(t.TempDir())
	before := New(o)
	for _, id := range []string{"fake-0", "fake-1"} {
		w := before.add(&record{ID: id, Worker: "fake", Model: "serve", State: operations.WorkerStopped, Marker: "m", Boot: self.BootID})
		if err := w.save(); err != nil {
			t.Fatal(err)
		}
	}
	m := New(o)
	t.Cleanup(m.Close)
	var first *worker
	if err := m.restore(func(*record) bool { return true }, func(w *worker) {
		if first == nil {
			first = w
			return
		}
		select {
		case <-first.done:
			t.Error("the first worker continued before restore() had read all records, want it to wait")
		case <-time.After(20 * time.Millisecond):
		}
	}); err != nil {
		t.Fatal(err)
	}
	<-first.done
}

func ptr[T any](v T) *T { return &v }
