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
	snapshotInterval  = 500 * time.Millisecond // workers, which are in memory
	modelsInterval    = 5 * time.Second        // a look at the disk
	machineInterval   = 10 * time.Second       // the vendors' tools, where there are accelerators
	noDevicesInterval = 5 * time.Minute        // the same where there were none
	keepAliveInterval = 5 * time.Second        // a sign of life
)

// newWatcher tells those who watch of this machine. What costs something to find out
// is found out once for all of them, and not at all while nobody watches.
type watcher struct {
	server      *Server
	rec         *control.Record
	rt          *Runtime
	refreshSlot chan struct{} // one for whoever looks at the machine
	stop        chan struct{} // closed when the daemon stops

	mu             sync.Mutex
	machine        operations.HiveCapabilitiesReport
	holders        []operations.DeviceProcess // of its memory; read only while a worker is loading
	machineAt      time.Time
	machineReadAt  time.Time // when the reading of machine began
	machineTriedAt time.Time // to look at the machine
	models         []operations.Model
	modelsAt       time.Time
	installed      []operations.InstalledType
}

func (sv *Server) newWatcher(rec *control.Record, rt *Runtime) *watcher {
	return &watcher{server: sv, rec: rec, rt: rt, refreshSlot: make(chan struct{}, 1), stop: make(chan struct{}), models: []operations.Model{}, installed: []operations.InstalledType{}}
}

// ServeHTTP streams snapshots until the client leaves.
func (w *watcher) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(out)
	_ = control.SetReadDeadline(time.Time{})
	events := sse.NewWriter(out, 30*time.Second)
	tick := time.NewTicker(snapshotInterval)
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
		now.Machine.MemoryAvailable, now.Machine.DiskFree, now.Machine.ModelsFree = roundDown(now.Machine.MemoryAvailable), roundDown(now.Machine.DiskFree), roundDown(now.Machine.ModelsFree)
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
		case time.Since(sent) >= keepAliveInterval:
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

// roundDown leaves out of a number of bytes what changes all the time.
func roundDown(n uint64) uint64 { return n &^ (64<<20 - 1) }

// snapshot is what there is to tell now.
func (w *watcher) snapshot(ctx context.Context) (operations.HiveSnapshot, error) {
	w.refresh(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	machine := w.machine
	machine.Devices = slices.Clone(machine.Devices)
	w.rt.Workers.Reserve(machine.Devices, w.holders, w.machineReadAt)
	return operations.HiveSnapshot{
		Time: time.Now().UTC(), Version: w.rec.Version, Since: w.rec.Since,
		Machine: machine, MachineAt: w.machineAt, Installed: w.installed,
		Workers: w.rt.Workers.List(false), Models: w.models,
	}, ctx.Err()
}

// refresh brings up to date what is due. Only one looks at a time, and only the very
// first waits for it: a tool of a vendor may be slow.
func (w *watcher) refresh(ctx context.Context) {
	w.mu.Lock()
	first := w.modelsAt.IsZero()
	machineDue := time.Since(w.machineTriedAt) > machineInterval && len(w.machine.Devices) > 0 || time.Since(w.machineTriedAt) > noDevicesInterval
	modelsDue := time.Since(w.modelsAt) > modelsInterval
	w.mu.Unlock()
	if !machineDue && !modelsDue {
		return
	}
	select {
	case w.refreshSlot <- struct{}{}:
	default:
		return
	}
	ctx = context.WithoutCancel(ctx)
	work := func() {
		defer func() { <-w.refreshSlot }()
		if modelsDue {
			w.refreshDisk(ctx)
		}
		if machineDue {
			w.refreshMachine(ctx)
		}
	}
	if first {
		w.refreshDisk(ctx)
		modelsDue = false
	}
	go work()
}

func (w *watcher) refreshDisk(ctx context.Context) {
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

func (w *watcher) refreshMachine(ctx context.Context) {
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
	w.machineTriedAt = time.Now()
	if err != nil {
		return // what was known stays, with its age
	}
	w.holders, w.machineReadAt = holders, began
	w.machine, w.machineAt = *report, time.Now().UTC().Truncate(time.Second)
}
