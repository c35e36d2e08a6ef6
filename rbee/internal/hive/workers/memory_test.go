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
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// fakeGPU is a device whose memory the test moves.
type fakeGPU struct {
	file string // holds the number of free bytes, if it is not empty

	mu      sync.Mutex
	free    uint64
	procs   []operations.DeviceProcess
	unified bool
	asked   int // how often for its memory
}

func (g *fakeGPU) set(free uint64, procs ...operations.DeviceProcess) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free, g.procs = free, procs
}

// looks is how often somebody asked for its memory.
func (g *fakeGPU) looks() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked
}

func (g *fakeGPU) options(o *Options) {
	o.Devices = func(context.Context) ([]gpu.Device, error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.asked++
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

func TestDeviceMemoryIsWaitedFor(t *testing.T) {
	t.Parallel()
	gpu := &fakeGPU{free: 24e9}
	o := options(t.TempDir())
	o.Times.Memory = 10 * time.Second
	gpu.options(&o)
	m := manager(t, o)
	p := spawn(t, m, "serve")
	if len(p.Devices) != 1 || p.Devices[0].UUID != "GPU-1" || p.MemoryEstimate != 10e9 {
		t.Fatalf("worker %+v", p)
	}
	if env := get(t, p.Port, "/environ"); !strings.Contains(env, `"CUDA_VISIBLE_DEVICES=0"`) || !strings.Contains(env, `"CUDA_DEVICE_ORDER=PCI_BUS_ID"`) {
		t.Errorf("environment %s", env)
	}
	size := uint64(10e9)
	held := operations.DeviceProcess{Vendor: "nvidia", DeviceUUID: "GPU-1", PID: p.PID, Memory: &size}
	stranger := operations.DeviceProcess{Vendor: "nvidia", DeviceUUID: "GPU-1", PID: 99999999, Name: "python", User: "alice", Memory: ptr(uint64(2e9))}
	gpu.set(12e9, held, stranger)
	done := make(chan *operations.WorkerDeleteReport, 1)
	go func() {
		r, err := m.Stop(context.Background(), operations.WorkerRef{ID: p.ID}, StopOptions{})
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	eventually(t, "the process to end", func() bool { return gone(p.PID) })
	// Another load must not begin while the memory drains.
	spawned := make(chan operations.WorkerProcess, 1)
	go func() { spawned <- try(t, m, "serve") }()
	eventually(t, "the other worker to wait", func() bool {
		return slices.ContainsFunc(m.List(false), func(w operations.WorkerProcess) bool {
			return w.ID != p.ID && w.State == operations.WorkerStarting && strings.Contains(w.Problem, p.ID)
		})
	})
	select {
	case r := <-done:
		t.Fatalf("done before the memory was back: %+v", r)
	default:
	}
	gpu.set(22e9, stranger)
	r := <-done
	if r.Problem != "" || len(r.Holders) != 1 || r.Holders[0].User != "alice" {
		t.Errorf("%+v", r)
	}
	if p := <-spawned; p.State != operations.WorkerReady {
		t.Errorf("the other worker: %+v", p)
	}
}

func TestDeviceMemoryThatDoesNotComeBack(t *testing.T) {
	t.Parallel()
	gpu := &fakeGPU{free: 24e9}
	o := options(t.TempDir())
	o.Times.Memory = 50 * time.Millisecond
	gpu.options(&o)
	m := manager(t, o)
	p := spawn(t, m, "serve")
	gpu.set(12e9)
	r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{})
	if err != nil || !strings.Contains(r.Problem, "11.2 GiB of device 0 are held by nobody that can be seen") || r.Outcome() != operations.OutcomeFailed {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestPromisedMemory holds that memory promised to a worker that still loads is
// not promised twice.
func TestPromisedMemory(t *testing.T) {
	t.Parallel()
	gpu := &fakeGPU{free: 15e9}
	o := options(t.TempDir())
	o.Times.Stall = time.Hour
	gpu.options(&o)
	m := manager(t, o)
	if _, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "silent", Detach: true}, nil); err != nil {
		t.Fatal(err)
	}
	_, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "serve"}, nil)
	var e *operations.Error
	if !errors.As(err, &e) {
		t.Errorf("placed twice: %v", err)
	}
}

// TestLack is the table of what counts as memory that is not back.
func TestLack(t *testing.T) {
	t.Parallel()
	gb := func(n float64) uint64 { return uint64(n * 1e9) }
	whole := func(free, held float64) *deviceMemory {
		return &deviceMemory{Free: gb(free), Held: gb(held), Whole: true}
	}
	for name, c := range map[string]struct {
		a    aftermath
		want string
		sure bool
	}{
		"all is back":                     {aftermath{before: whole(20, 0), free: gb(20), whole: true}, "", true},
		"but for what drivers keep":       {aftermath{before: whole(20, 0), free: gb(19.9), whole: true}, "", true},
		"nothing to compare with":         {aftermath{free: gb(1)}, "", true},
		"some is missing":                 {aftermath{before: whole(20, 0), free: gb(15), whole: true}, "4.7 GiB of device 0 are held by nobody that can be seen", true},
		"others came":                     {aftermath{before: whole(20, 0), free: gb(15), held: gb(5), whole: true}, "", true},
		"others were there before":        {aftermath{before: whole(15, 5), free: gb(10), held: gb(5), whole: true}, "4.7 GiB of device 0 are held by nobody that can be seen", true},
		"others have more now":            {aftermath{before: whole(15, 5), free: gb(10), held: gb(10), whole: true}, "", true},
		"others have a part of it":        {aftermath{before: whole(15, 5), free: gb(5), held: gb(10), whole: true}, "4.7 GiB of device 0 are held by nobody that can be seen", true},
		"others have ended":               {aftermath{before: whole(15, 5), free: gb(20), whole: true}, "", true},
		"another worker has got its part": {aftermath{before: whole(20, 0), free: gb(10), gained: gb(10), whole: true}, "", true},
		"somebody's part is not known":    {aftermath{before: whole(20, 0), free: gb(15)}, "4.7 GiB less of device 0 are free than before it came, and not all who hold memory there can be seen", false},
		"it was not known before":         {aftermath{before: &deviceMemory{Free: gb(20)}, free: gb(15), whole: true}, "4.7 GiB less of device 0 are free than before it came, and not all who hold memory there can be seen", false},
		"a process of its own is left":    {aftermath{own: []int{7}, before: whole(20, 0), free: gb(20)}, "process 7, which has ended, still holds memory of device 0", true},
	} {
		if what, sure := c.a.lack(); what != c.want || sure != c.sure {
			t.Errorf("%s: %q, %t", name, what, sure)
		}
	}
}

// TestBefore holds that what is used beyond what the processes on a list hold is
// noticed, and that shared memory is not compared at all.
func TestBefore(t *testing.T) {
	t.Parallel()
	chosen := []operations.WorkerDevice{{Vendor: "nvidia", UUID: "GPU-1"}}
	stranger := func(memory *uint64, uuid string) operations.DeviceProcess {
		return operations.DeviceProcess{Vendor: "nvidia", DeviceUUID: uuid, PID: 1, Memory: memory}
	}
	for name, c := range map[string]struct {
		used    *uint64
		unified bool
		holder  operations.DeviceProcess
		broken  bool
		want    map[string]deviceMemory
	}{
		"all on the list":        {used: ptr(uint64(4e9)), holder: stranger(ptr(uint64(4e9)), "GPU-1"), want: map[string]deviceMemory{"GPU-1": {Free: 20e9, Held: 4e9, Whole: true}}},
		"a desktop":              {used: ptr(uint64(5e9)), holder: stranger(ptr(uint64(4e9)), "GPU-1"), want: map[string]deviceMemory{"GPU-1": {Free: 20e9, Held: 4e9}}},
		"on another device":      {holder: stranger(ptr(uint64(4e9)), "GPU-2"), want: map[string]deviceMemory{"GPU-1": {Free: 20e9, Whole: true}}},
		"on who knows which":     {holder: stranger(ptr(uint64(4e9)), ""), want: map[string]deviceMemory{"GPU-1": {Free: 20e9, Held: 4e9}}},
		"of who knows what size": {holder: stranger(nil, "GPU-1"), want: map[string]deviceMemory{"GPU-1": {Free: 20e9}}},
		"a tool does not answer": {broken: true, holder: stranger(ptr(uint64(4e9)), "GPU-1"), want: map[string]deviceMemory{"GPU-1": {Free: 20e9, Held: 4e9}}},
		"the machine's own":      {unified: true, holder: stranger(ptr(uint64(4e9)), "GPU-1"), want: map[string]deviceMemory{}},
	} {
		p := picture{
			devices: []gpu.Device{{Vendor: "nvidia", UUID: "GPU-1", MemoryFree: ptr(uint64(20e9)), MemoryUsed: c.used, Unified: c.unified}},
			holders: []operations.DeviceProcess{c.holder}, whole: !c.broken,
		}
		if got := p.before(chosen); !maps.Equal(got, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestMemoryThatOthersHave holds that a worker is not blamed for memory that
// others have got: nothing is waited for where it is the machine's own or another
// worker's, and not for long where nobody can tell whose it is.
func TestMemoryThatOthersHave(t *testing.T) {
	t.Parallel()
	desktop := operations.DeviceProcess{Vendor: "nvidia", DeviceUUID: "GPU-1", PID: 99999999}
	for name, c := range map[string]struct {
		unified, other bool
		procs          []operations.DeviceProcess
		note           string
	}{
		"the machine's":    {unified: true},
		"another worker's": {other: true},
		"a desktop's":      {procs: []operations.DeviceProcess{desktop}, note: "9.3 GiB less of device 0 are free"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gpu := &fakeGPU{free: 24e9, unified: c.unified}
			o := options(t.TempDir())
			o.Times.Memory = time.Hour
			gpu.options(&o)
			m := manager(t, o)
			p := spawn(t, m, "serve")
			if c.other {
				gpu.set(14e9) // the first one has its part
				spawn(t, m, "serve")
			}
			gpu.set(14e9, c.procs...)
			r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{})
			if err != nil || r.Problem != "" || !strings.HasPrefix(r.Note, c.note) || (r.Note == "") != (c.note == "") || r.Outcome() != operations.OutcomeOK {
				t.Errorf("%+v, %v", r, err)
			}
			gpu.set(24e9)
		})
	}
}

// TestMemoryThatStillRises holds that memory which comes back bit by bit is waited
// for, also where it is not known of all who has it.
func TestMemoryThatStillRises(t *testing.T) {
	t.Parallel()
	gpu := &fakeGPU{free: 24e9, procs: []operations.DeviceProcess{{Vendor: "nvidia", DeviceUUID: "GPU-1", PID: 99999999}}}
	o := options(t.TempDir())
	o.Times.Memory, o.Times.Settle = time.Hour, 3*time.Second
	gpu.options(&o)
	m := manager(t, o)
	p := spawn(t, m, "serve")
	gpu.set(14e9, gpu.procs...)
	done := make(chan *operations.WorkerDeleteReport, 1)
	go func() {
		r, err := m.Stop(context.Background(), operations.WorkerRef{ID: p.ID}, StopOptions{})
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	eventually(t, "the process to end", func() bool { return gone(p.PID) })
	for free := uint64(15e9); free <= 24e9; free += 3e9 {
		now := gpu.looks()
		eventually(t, "another look", func() bool { return gpu.looks() > now })
		gpu.set(free, gpu.procs...)
	}
	if r := <-done; r.Problem != "" || r.Note != "" {
		t.Errorf("%+v", r)
	}
}

// TestMemoryOfBefore holds that memory which others held already before a worker
// came does not count as what became of its own.
func TestMemoryOfBefore(t *testing.T) {
	t.Parallel()
	stranger := operations.DeviceProcess{Vendor: "nvidia", DeviceUUID: "GPU-1", PID: 99999999, Memory: ptr(uint64(10e9))}
	gpu := &fakeGPU{free: 14e9, procs: []operations.DeviceProcess{stranger}}
	o := options(t.TempDir())
	o.Times.Memory = 50 * time.Millisecond
	gpu.options(&o)
	m := manager(t, o)
	p := spawn(t, m, "serve")
	gpu.set(4e9, stranger)
	r, err := m.Stop(t.Context(), operations.WorkerRef{ID: p.ID}, StopOptions{})
	if err != nil || !strings.Contains(r.Problem, "9.3 GiB of device 0 are held by nobody that can be seen") {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestResumeWaitsForMemory holds that a worker which ended while no hive watched
// is not started again into memory that still drains, and that neither is another.
func TestResumeWaitsForMemory(t *testing.T) {
	t.Parallel()
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	gpu := &fakeGPU{free: 12e9}
	o := options(t.TempDir())
	o.Times.Memory = time.Hour
	gpu.options(&o)
	w := New(o).add(&record{
		ID: "fake-1", Worker: "fake", Model: "serve", State: operations.WorkerReady, Mark: "m-" + t.TempDir(), Boot: self.BootID, EverReady: true,
		Process: proc.ID{PID: 99999999, StartTime: "1", BootID: self.BootID}, Estimate: 10e9,
		Devices: []operations.WorkerDevice{{Vendor: "nvidia", UUID: "GPU-1"}}, Before: map[string]deviceMemory{"GPU-1": {Free: 24e9, Whole: true}},
	})
	if err := w.save(); err != nil {
		t.Fatal(err)
	}
	m := manager(t, o)
	spawned := make(chan operations.WorkerProcess, 1)
	go func() { spawned <- try(t, m, "serve") }()
	eventually(t, "the other worker to wait", func() bool {
		return slices.ContainsFunc(m.List(false), func(w operations.WorkerProcess) bool {
			return w.State == operations.WorkerStarting && strings.Contains(w.Problem, "fake-1")
		})
	})
	now := gpu.looks()
	eventually(t, "more looks", func() bool { return gpu.looks() > now+4 })
	if p, err := m.Get(operations.WorkerRef{ID: "fake-1"}); err != nil || p.Restarts != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	gpu.set(24e9)
	eventually(t, "it to serve again", func() bool {
		p, err := m.Get(operations.WorkerRef{ID: "fake-1"})
		return err == nil && p.State == operations.WorkerReady && p.Restarts == 1
	})
	if p := <-spawned; p.State != operations.WorkerReady {
		t.Errorf("the other worker: %+v", p)
	}
}

// TestRefusedRestartWaitsForNoMemory holds that a try which made no process is not
// blamed for memory that others have taken since the one before.
func TestRefusedRestartWaitsForNoMemory(t *testing.T) {
	t.Parallel()
	gpu := &fakeGPU{free: 24e9}
	o := options(t.TempDir())
	o.Times.Memory, o.Times.Backoff = time.Hour, []time.Duration{0, time.Hour}
	gpu.options(&o)
	find := o.Engine
	var removed atomic.Bool
	o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
		if !removed.Load() {
			return find(ctx, typ)
		}
		gpu.set(4e9)
		return engine.Engine{}, failure(operations.ReasonWorkerNotInstalled, typ, "it was removed")
	}
	m := manager(t, o)
	p := spawn(t, m, "serve")
	removed.Store(true)
	_, _ = httpGet(p.Port, "/exit")
	eventually(t, "the second try to have failed", func() bool {
		got, err := m.Get(operations.WorkerRef{ID: p.ID})
		return err == nil && got.State == operations.WorkerFailed && got.Problem == "it was removed"
	})
	gpu.set(24e9)
}

// TestNobodyIsPlacedBeforeAllAreKnown holds that no worker goes on as long as
// records are read: what the later ones are promised must be known.
func TestNobodyIsPlacedBeforeAllAreKnown(t *testing.T) {
	t.Parallel()
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	o := options(t.TempDir())
	before := New(o)
	for _, id := range []string{"fake-0", "fake-1"} {
		w := before.add(&record{ID: id, Worker: "fake", Model: "serve", State: operations.WorkerStopped, Mark: "m", Boot: self.BootID})
		if err := w.save(); err != nil {
			t.Fatal(err)
		}
	}
	m := New(o)
	t.Cleanup(m.Close)
	var first *worker
	if err := m.load(func(*record) bool { return true }, func(w *worker) {
		if first == nil {
			first = w
			return
		}
		select {
		case <-first.settled:
			t.Error("a worker went on before all were known")
		case <-time.After(20 * time.Millisecond):
		}
	}); err != nil {
		t.Fatal(err)
	}
	<-first.settled
}

func ptr[T any](v T) *T { return &v }
