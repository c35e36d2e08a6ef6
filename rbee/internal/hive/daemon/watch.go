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

// Intervals of updates while a client is connected.
const (
	snapshotInterval  = 500 * time.Millisecond // snapshots, and the workers, which are in memory
	modelsInterval    = 5 * time.Second        // models and worker types on disk
	machineInterval   = 10 * time.Second       // hardware of a machine with accelerators, from vendor tools
	noDevicesInterval = 5 * time.Minute        // hardware of a machine without accelerators
	keepAliveInterval = 5 * time.Second        // comments in an idle stream
)

// watcher streams snapshots of this machine to clients. All clients share the results of
// slow queries, which run only while a client is connected.
type watcher struct {
	server      *Server
	rec         *control.Record
	rt          *Runtime
	refreshSlot chan struct{} // semaphore of size 1: held while refreshing
	stop        chan struct{} // closed when the daemon stops

	mu              sync.Mutex
	machine         operations.HiveCapabilitiesReport
	deviceProcesses []operations.DeviceProcess // processes with device memory; read only while a worker is loading
	machineAt       time.Time
	machineReadAt   time.Time // start of the query that returned machine
	machineTriedAt  time.Time // end of the last query, successful or not
	models          []operations.Model
	modelsAt        time.Time
	installed       []operations.InstalledWorkerType
}

func (sv *Server) newWatcher(rec *control.Record, rt *Runtime) *watcher {
	return &watcher{server: sv, rec: rec, rt: rt, refreshSlot: make(chan struct{}, 1), stop: make(chan struct{}), models: []operations.Model{}, installed: []operations.InstalledWorkerType{}}
}

// ServeHTTP streams snapshots until the client disconnects. It sends only snapshots that
// differ from the previous one.
func (w *watcher) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(out)
	_ = control.SetReadDeadline(time.Time{})
	events := sse.NewWriter(out, 30*time.Second)
	tick := time.NewTicker(snapshotInterval)
	defer tick.Stop()
	var last []byte
	var sent time.Time
	for {
		snapshot, err := w.snapshot(r.Context())
		if err != nil {
			return // the client has disconnected
		}
		// Compare the snapshots without their time.
		at := snapshot.Time
		snapshot.Time = time.Time{}
		m := &snapshot.Machine
		m.MemoryAvailable, m.DiskFree, m.ModelsFree = roundDown(m.MemoryAvailable), roundDown(m.DiskFree), roundDown(m.ModelsFree)
		data, err := json.Marshal(snapshot)
		if err != nil {
			return
		}
		switch {
		case !bytes.Equal(data, last):
			last = data
			snapshot.Time = at
			if data, err = json.Marshal(snapshot); err != nil || events.Send(sse.Event{Data: data}) != nil {
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

// roundDown rounds a number of bytes down to a multiple of 64 MiB, so that small changes do
// not cause new snapshots.
func roundDown(n uint64) uint64 { return n &^ (64<<20 - 1) }

// snapshot returns the current snapshot. It fails only if ctx ends.
func (w *watcher) snapshot(ctx context.Context) (operations.HiveSnapshot, error) {
	w.refresh(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	machine := w.machine
	machine.Devices = slices.Clone(machine.Devices)
	w.rt.Workers.Reserve(machine.Devices, w.deviceProcesses, w.machineReadAt)
	return operations.HiveSnapshot{
		Time: time.Now().UTC(), Version: w.rec.Version, Since: w.rec.Since,
		Machine: machine, MachineAt: w.machineAt, WorkerTypes: w.installed,
		Workers: w.rt.Workers.List(false), Models: w.models,
	}, ctx.Err()
}

// refresh updates the outdated parts of the snapshot in the background. Only one refresh runs
// at a time. The first call waits for the models; no call waits for the hardware, because
// vendor tools may be slow.
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
	installed := []operations.InstalledWorkerType{}
	for _, t := range types {
		i := operations.InstalledWorkerType{Type: t.Type, Version: t.Version}
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
	start := time.Now()
	var deviceProcesses []operations.DeviceProcess
	var wg sync.WaitGroup
	if w.rt.Workers.IsLoading() {
		wg.Go(func() { deviceProcesses = w.rt.Workers.DeviceProcesses(ctx) })
	}
	report, err := w.server.Inspector.Resources(ctx)
	wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.machineTriedAt = time.Now()
	if err != nil {
		return // keep the previous values and their time
	}
	w.deviceProcesses, w.machineReadAt = deviceProcesses, start
	w.machine, w.machineAt = *report, time.Now().UTC().Truncate(time.Second)
}
