package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
)

// How often the parts of a snapshot are looked at, while somebody watches.
const (
	watchEvery     = 500 * time.Millisecond // workers, which are in memory
	watchModels    = 5 * time.Second        // a look at the disk
	watchMachine   = 10 * time.Second       // the vendors' tools, where there are accelerators
	watchNoDevices = 5 * time.Minute        // the same where there were none
	watchBeat      = 5 * time.Second        // a sign of life
)

// watcher tells those who watch of this machine. What costs something to find out
// is found out once for all of them, and not at all while nobody watches.
type watcher struct {
	server *Server
	rec    *control.Record
	rt     *Runtime
	slots  chan struct{} // one for whoever looks at the machine
	stop   chan struct{} // closed when the daemon stops

	mu        sync.Mutex
	machine   operations.HiveCapabilitiesReport
	holders   []operations.DeviceProcess // of its memory; read only while a worker is loading
	machineAt time.Time
	readAt    time.Time // when the reading of machine began
	triedAt   time.Time // to look at the machine
	models    []operations.Model
	modelsAt  time.Time
	installed []operations.InstalledType
}

func (sv *Server) watcher(rec *control.Record, rt *Runtime) *watcher {
	return &watcher{server: sv, rec: rec, rt: rt, slots: make(chan struct{}, 1), stop: make(chan struct{}), models: []operations.Model{}, installed: []operations.InstalledType{}}
}

// ServeHTTP streams snapshots until the client leaves.
func (w *watcher) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(out)
	_ = control.SetReadDeadline(time.Time{})
	events := sse.NewWriter(out, 30*time.Second)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var before []byte
	var sent time.Time
	for {
		now, err := w.snapshot(r.Context())
		if err != nil {
			return // a snapshot is always JSON, and a client that left needs none
		}
		// The time alone is no news.
		at := now.Time
		now.Time = time.Time{}
		now.Machine.MemoryAvailable, now.Machine.DiskFree, now.Machine.ModelsFree = coarse(now.Machine.MemoryAvailable), coarse(now.Machine.DiskFree), coarse(now.Machine.ModelsFree)
		data, err := json.Marshal(now)
		if err != nil {
			return
		}
		switch {
		case !bytes.Equal(data, before):
			before = data
			now.Time = at
			if data, err = json.Marshal(now); err != nil || events.Send(sse.Event{Data: data}) != nil {
				return
			}
			sent = time.Now()
		case time.Since(sent) >= watchBeat:
			if events.Send(sse.Event{Comment: true, Data: []byte("still here")}) != nil {
				return
			}
			sent = time.Now()
		}
		select {
		case <-tick.C:
		case <-w.stop:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// coarse leaves out of a number of bytes what changes all the time.
func coarse(n uint64) uint64 { return n &^ (64<<20 - 1) }

// snapshot is what there is to tell now.
func (w *watcher) snapshot(ctx context.Context) (operations.HiveSnapshot, error) {
	w.look(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	machine := w.machine
	machine.Devices = slices.Clone(machine.Devices)
	w.rt.Workers.Reserve(machine.Devices, w.holders, w.readAt)
	return operations.HiveSnapshot{
		Time: time.Now().UTC(), Version: w.rec.Version, Since: w.rec.Since,
		Machine: machine, MachineAt: w.machineAt, Installed: w.installed,
		Workers: w.rt.Workers.List(false), Models: w.models,
	}, ctx.Err()
}

// look brings up to date what is due. Only one looks at a time, and only the very
// first waits for it: a tool of a vendor may be slow.
func (w *watcher) look(ctx context.Context) {
	w.mu.Lock()
	first := w.modelsAt.IsZero()
	machineDue := time.Since(w.triedAt) > watchMachine && len(w.machine.Devices) > 0 || time.Since(w.triedAt) > watchNoDevices
	modelsDue := time.Since(w.modelsAt) > watchModels
	w.mu.Unlock()
	if !machineDue && !modelsDue {
		return
	}
	select {
	case w.slots <- struct{}{}:
	default:
		return
	}
	ctx = context.WithoutCancel(ctx)
	work := func() {
		defer func() { <-w.slots }()
		if modelsDue {
			w.lookAtDisk(ctx)
		}
		if machineDue {
			w.lookAtMachine(ctx)
		}
	}
	if first {
		w.lookAtDisk(ctx)
		modelsDue = false
	}
	go work()
}

func (w *watcher) lookAtDisk(ctx context.Context) {
	models, err := w.rt.listModels(ctx)
	types, typesErr := w.server.Store.Workers(ctx, false)
	installed := []operations.InstalledType{}
	for _, t := range types {
		i := operations.InstalledType{Type: t.Type, Version: t.Version}
		if t.Launch != nil && t.Corrupt == "" {
			i.Formats = t.Launch.Formats
		}
		installed = append(installed, i)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.modelsAt = time.Now()
	if err == nil {
		w.models = models.Models
	}
	if typesErr == nil {
		w.installed = installed
	}
}

func (w *watcher) lookAtMachine(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	var holders []operations.DeviceProcess
	var all sync.WaitGroup
	if w.rt.Workers.IsLoading() {
		all.Go(func() { holders = w.rt.Workers.Holders(ctx) })
	}
	report, err := w.server.Inspector.Resources(ctx)
	all.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.triedAt = time.Now()
	if err != nil {
		return // what was known stays, with its age
	}
	w.holders, w.readAt = holders, began
	w.machine, w.machineAt = *report, time.Now().UTC().Truncate(time.Second)
}
