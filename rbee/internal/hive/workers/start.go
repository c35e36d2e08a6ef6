package workers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/placement"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/freeport"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// errStopRequested cancels a start when a stop is requested.
var errStopRequested = errors.New("a stop was requested")

// start places the worker and starts its process.
func (w *worker) start() {
	if w.isStopRequested() {
		w.startDraining()
		return
	}
	ctx, cancel := w.untilStopped()
	defer cancel()
	err := w.launch(ctx)
	switch {
	case w.m.ctx.Err() != nil:
	case w.isStopRequested():
		w.startDraining()
	case err != nil:
		if w.record().Restarts == 0 {
			w.startErr = err
		}
		w.fail(err.Error())
	}
}

// untilStopped returns a context that ends when a stop is requested or the manager closes.
func (w *worker) untilStopped() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(w.m.ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-w.stop:
			cancel(errStopRequested)
		case <-done:
		}
	}()
	return ctx, func() { close(done); cancel(nil) }
}

// isStopRequested reports whether a stop was requested.
func (w *worker) isStopRequested() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// launch resolves the engine and the model, places the worker and starts its process.
func (w *worker) launch(ctx context.Context) error {
	e, err := w.resolveEngine(ctx)
	if err != nil {
		return err
	}
	if e.Verify != nil && w.m.o.Verify != nil {
		if err := w.m.o.Verify(ctx, w.record().Worker, e); err != nil {
			return err
		}
	}
	r := w.record()
	model, err := w.resolveModel(ctx, e.Launch, r)
	if err != nil {
		return err
	}
	// No other worker may be placed until the record is on disk.
	w.m.placementMu.Lock()
	defer w.m.placementMu.Unlock()
	decision, before, err := w.place(ctx, e.Launch, model)
	if err != nil {
		return err
	}
	port, err := w.m.choosePort(ctx, r)
	if err != nil {
		return err
	}
	values := engine.NewPlaceholders(e, engine.StartOptions{
		StateDir: w.m.stateDir(r.ID), Port: port, ModelName: r.Model, Model: model, Devices: decision.Devices, ContextLength: r.ContextLength, Parallel: r.Parallel,
	})
	argv := []string{e.Entry}
	for _, arg := range e.Launch.Args {
		if arg, ok := values.Expand(arg); ok {
			argv = append(argv, arg)
		}
	}
	argv = append(argv, r.Args...)
	if err := engine.MakeStateDir(e.Launch, values); err != nil {
		return fmt.Errorf("cannot create the worker's directory: %w", err)
	}
	// The record must be on disk before the process starts.
	if err := w.write(func(r *record) {
		r.Argv, r.Port, r.Launch = argv, port, e.Launch
		r.ModelID, r.ModelFile, r.Prepare = model.ID, values["model_file"], values.Requests(e.Launch.Prepare)
		r.Serves, _ = values.Expand(e.Launch.Serves)
		r.Devices, r.Estimate, r.Reason, r.Before = decision.Devices, decision.Estimate, decision.Reason, before
		r.Process, r.Members, r.ExitStatus, r.Problem = proc.ID{}, nil, nil, ""
		r.ReadyAt, r.EndedAt = time.Time{}, time.Time{}
	}); err != nil {
		return err
	}
	return w.startProcess(argv, engine.Environment(e, values, decision.Env, r.Env, r.Marker))
}

// resolveEngine returns the worker's engine and records its program immediately, because
// the start may wait long for a checksum or for memory. An installation first moves the
// entry point and then reads the records. Therefore it keeps a program that Engine still
// returns after the program was recorded.
func (w *worker) resolveEngine(ctx context.Context) (engine.Engine, error) {
	workerType, recorded := w.record().Worker, ""
	for {
		e, err := w.m.o.Engine(ctx, workerType)
		if err != nil || e.Entry == recorded {
			return e, err
		}
		recorded = e.Entry
		if err := w.write(func(r *record) { r.Version, r.Argv = e.Version, []string{e.Entry} }); err != nil {
			return e, err
		}
	}
}

// startProcess starts the worker's process with its log as output.
func (w *worker) startProcess(argv, env []string) error {
	r := w.record()
	w.m.rotateLog(r.ID) // if the worker exits soon after each start, no other call rotates its log
	log, err := w.m.openLog(r.ID)
	if err != nil {
		return fmt.Errorf("cannot open the worker's log: %w", err)
	}
	defer log.Close()
	unit := ""
	if w.m.o.Scopes {
		unit = "rbee-" + r.ID + "-" + randomHex(3)
	}
	fmt.Fprintf(log, "rbee: %s starts, port %d\n", r.ID, r.Port)
	w.m.callTestHook("before process")
	process, err := engine.StartProcess(argv, env, log, unit)
	if err != nil {
		return err
	}
	w.m.callTestHook("before loading")
	id, err := proc.Identify(process.Pid)
	if err != nil { // the process has exited; its PID is reserved, so the start time is not needed
		id = proc.ID{PID: process.Pid, StartTime: "ended", BootID: w.m.boot}
	}
	w.process.Store(engine.WatchChild(id, process))
	w.mu.Lock()
	w.adopted = false
	w.mu.Unlock()
	w.enter(operations.WorkerLoading, func(r *record) {
		r.Process, r.StartedAt = id, time.Now().UTC()
	})
	return nil
}

// choosePort returns a loopback port for the worker: the requested port, or a free port
// that no other worker uses. The caller holds m.placementMu.
func (m *Manager) choosePort(ctx context.Context, r record) (int, error) {
	usedPorts := map[int]string{}
	for _, w := range m.all() {
		if other := w.record(); other.ID != r.ID && !other.isTerminal() {
			usedPorts[other.Port] = other.ID
		}
	}
	if r.RequestedPort != 0 {
		if id := usedPorts[r.RequestedPort]; id != "" {
			return 0, failure(operations.ReasonPortInUse, r.ID, "port %d is used by worker %s", r.RequestedPort, id)
		}
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(engine.Host, strconv.Itoa(r.RequestedPort)))
		if err != nil {
			return 0, failure(operations.ReasonOf(err), r.ID, "cannot use port %d: %v", r.RequestedPort, err)
		}
		return r.RequestedPort, ln.Close()
	}
	return freeport.Find(func(port int) bool { return usedPorts[port] != "" })
}

// resolveModel returns the model for the engine. If the recipe does not use the model's
// files, only the context length is set.
func (w *worker) resolveModel(ctx context.Context, l wire.Launch, r record) (engine.Model, error) {
	length := r.ContextLength
	if length == 0 && l.Memory != nil {
		length = l.Memory.Context
	}
	if !engine.HasPlaceholder(l, "{model_path}", "{model_file}", "{model_sha256}") || w.m.o.Model == nil {
		return engine.Model{Context: length}, nil
	}
	model, err := w.m.o.Model(ctx, r.Model, length)
	if err == nil && !model.IsFile() && engine.HasPlaceholder(l, "{model_file}", "{model_sha256}") {
		return model, failure(operations.ReasonIncompatibleModel, r.Worker, "%s needs one file of a model, but %s has several; specify one, such as org/repo:file", r.Worker, r.Model)
	}
	if err == nil && model.SHA256 == "" && engine.HasPlaceholder(l, "{model_sha256}") {
		model.SHA256, err = model.Sum(ctx)
	}
	return model, err
}

// place selects devices. It waits while workers on them are stopping. before is the memory
// of the devices before the start. The caller holds m.placementMu, which place releases
// while it waits.
func (w *worker) place(ctx context.Context, l wire.Launch, model engine.Model) (d placement.Decision, before map[string]deviceMemory, err error) {
	r := w.record()
	request := placement.Request{
		Worker: r.Worker, Model: r.Model, Device: r.Device, Vendor: l.GPU, Devices: l.Devices,
		UsesAccelerator: l.Memory != nil || l.GPU != "", RequiresAccelerator: l.GPU != "",
	}
	if l.Memory != nil {
		request.Overhead, request.Fraction = l.Memory.Overhead, l.Memory.Share
		request.Estimate, request.Breakdown = model.Estimate, model.Breakdown
		if r.Parallel > 1 && model.Estimate > 0 && l.Memory.Share == 0 {
			// An engine that reserves a share divides it among the requests; other engines
			// need memory for the context of each request.
			request.Estimate = estimateForRequests(model, r.Parallel)
			request.Breakdown += fmt.Sprintf(", with a context for each of %d requests", r.Parallel)
		}
		if l.Memory.Fixed > 0 {
			request.Estimate, request.Breakdown = l.Memory.Fixed, "as set in its recipe"
		}
	}
	if indices, err := operations.ParseDevices(r.Device); !request.UsesAccelerator && len(indices) == 0 {
		// Do not run the vendors' tools, which may be slow or hang.
		return placement.Decision{Reason: "it uses no accelerator"}, nil, err
	}
	for {
		devices, snapshot, err := w.m.devices(ctx, r.ID)
		if err != nil {
			return d, nil, err
		}
		d, err = placement.Place(request, devices)
		var wait *placement.WaitError
		if !errors.As(err, &wait) {
			return d, snapshot.memoryBefore(d.Devices), err
		}
		if w.record().Problem != wait.Error() {
			w.update(func(r *record) { r.Problem = wait.Error() })
		}
		w.m.placementMu.Unlock() // other workers may fit on other devices
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
		w.m.placementMu.Lock()
		if ctx.Err() != nil {
			return d, nil, err
		}
	}
}

// estimateForRequests returns the memory of a model with the context of n requests, in bytes.
func estimateForRequests(m engine.Model, n int) int64 {
	if additional := int64(n - 1); m.Cache <= 0 || additional <= (math.MaxInt64-m.Estimate)/m.Cache {
		return m.Estimate + additional*m.Cache
	}
	return math.MaxInt64
}

// sameDevice reports whether a and b are the same device.
func sameDevice(a operations.WorkerDevice, b gpu.Device) bool {
	if a.UUID != "" || b.UUID != "" {
		return a.UUID == b.UUID
	}
	return a.Vendor == string(b.Vendor) && a.Index == b.Index
}

// deviceKey identifies a device in a record: by its UUID, or else by vendor and index.
func deviceKey(d operations.WorkerDevice) string {
	if d.UUID != "" {
		return d.UUID
	}
	return fmt.Sprintf("%s %d", d.Vendor, d.Index)
}

// devices returns the accelerators with the memory that is reserved for other workers, and
// the snapshot from which it was computed.
func (m *Manager) devices(ctx context.Context, self string) ([]placement.Device, deviceSnapshot, error) {
	at := time.Now()
	p, err := m.deviceSnapshot(ctx)
	if err != nil {
		return nil, p, err
	}
	reserve(p.devices, p.holders, at, m.reservingRecords(self))
	held := p.memoryByWorker()
	devices := make([]placement.Device, len(p.devices))
	for i, d := range p.devices {
		devices[i].Device = d
		for _, w := range m.all() {
			r := w.record()
			if r.ID == self || !r.usesDevice(d) {
				continue
			}
			switch {
			case r.State == operations.WorkerDraining, w.isCleaningUp.Load():
				devices[i].Draining = append(devices[i].Draining, r.ID)
			case r.OnDemand && r.State == operations.WorkerReady && !w.hasRequests():
				devices[i].Reclaimable += max(r.Estimate/int64(len(r.Devices)), held[r.ID+"\x00"+d.UUID])
			}
		}
	}
	return devices, p, nil
}
