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

// errStopped ends a start that is no longer wanted.
var errStopped = errors.New("it was told to stop")

// start places the worker and makes its process.
func (w *worker) start() {
	if w.stopped() {
		w.drainNow()
		return
	}
	ctx, cancel := w.untilStopped()
	defer cancel()
	err := w.launch(ctx)
	switch {
	case w.m.ctx.Err() != nil:
	case w.stopped():
		w.drainNow()
	case err != nil:
		if w.record().Restarts == 0 {
			w.refused = err
		}
		w.fail(err.Error())
	}
}

// untilStopped is a context that ends when the worker is told to stop or the
// manager lets go.
func (w *worker) untilStopped() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(w.m.ctx)
	done := make(chan struct{})
	go func() {
		select {
		case <-w.stop:
			cancel(errStopped)
		case <-done:
		}
	}()
	return ctx, func() { close(done); cancel(nil) }
}

func (w *worker) stopped() bool {
	select {
	case <-w.stop:
		return true
	default:
		return false
	}
}

// launch does all that comes before loading.
func (w *worker) launch(ctx context.Context) error {
	e, err := w.engine(ctx)
	if err != nil {
		return err
	}
	if e.Verify != nil && w.m.o.Verify != nil {
		if err := w.m.o.Verify(ctx, w.record().Worker, e); err != nil {
			return err
		}
	}
	r := w.record()
	model, err := w.model(ctx, e.Launch, r)
	if err != nil {
		return err
	}
	// From here to the record on disk nobody else looks for room.
	w.m.placing.Lock()
	defer w.m.placing.Unlock()
	place, before, err := w.place(ctx, e.Launch, model)
	if err != nil {
		return err
	}
	port, err := w.m.port(ctx, r)
	if err != nil {
		return err
	}
	words := engine.NewPlaceholders(e, engine.StartOptions{
		State: w.m.stateDir(r.ID), Port: port, Asked: r.Model, Model: model, Devices: place.Devices, ContextLength: r.ContextLength, Parallel: r.Parallel,
	})
	argv := []string{e.Entry}
	for _, arg := range e.Launch.Args {
		if arg, ok := words.Fill(arg); ok {
			argv = append(argv, arg)
		}
	}
	argv = append(argv, r.Args...)
	if err := engine.MakeStateDir(e.Launch, words); err != nil {
		return fmt.Errorf("making the worker's directory: %w", err)
	}
	// A process must not run that no record on disk knows of.
	if err := w.write(func(r *record) {
		r.Argv, r.Port, r.Launch = argv, port, e.Launch
		r.ModelID, r.ModelFile, r.Prepare = model.ID, words["model_file"], words.Requests(e.Launch.Prepare)
		r.Serves, _ = words.Fill(e.Launch.Serves)
		r.Devices, r.Estimate, r.Reason, r.Before = place.Devices, place.Estimate, place.Reason, before
		r.Process, r.Members, r.ExitStatus, r.Problem = proc.ID{}, nil, nil, ""
		r.ReadyAt, r.EndedAt = time.Time{}, time.Time{}
	}); err != nil {
		return err
	}
	return w.exec(argv, engine.Environment(e, words, place.Env, r.Env, r.Mark))
}

// engine finds what the worker is started from, and puts it on record at once, for
// the start may wait long for a checksum or for memory. An install moves the entry
// point first and reads the records then: what is found again after it was written
// down is sure to stay.
func (w *worker) engine(ctx context.Context) (engine.Engine, error) {
	workerType, noted := w.record().Worker, ""
	for {
		e, err := w.m.o.Engine(ctx, workerType)
		if err != nil || e.Entry == noted {
			return e, err
		}
		noted = e.Entry
		if err := w.write(func(r *record) { r.Version, r.Argv = e.Version, []string{e.Entry} }); err != nil {
			return e, err
		}
	}
}

// exec makes the worker's process, which writes to its log.
func (w *worker) exec(argv, env []string) error {
	r := w.record()
	w.m.rotateLog(r.ID) // one that ends soon after each start has no other occasion
	log, err := w.m.openLog(r.ID)
	if err != nil {
		return fmt.Errorf("opening the worker's log: %w", err)
	}
	defer log.Close()
	unit := ""
	if w.m.o.Scopes {
		unit = "rbee-" + r.ID + "-" + random(3)
	}
	fmt.Fprintf(log, "rbee: %s starts, port %d\n", r.ID, r.Port)
	w.m.reach("before process")
	process, err := engine.StartProcess(argv, env, log, unit)
	if err != nil {
		return err
	}
	w.m.reach("before loading")
	id, err := proc.Identify(process.Pid)
	if err != nil { // it has ended already: what is held still says when it began
		id = proc.ID{PID: process.Pid, StartTime: "ended", BootID: w.m.boot}
	}
	w.child.Store(engine.Hold(id, process))
	w.mu.Lock()
	w.adopted = false
	w.mu.Unlock()
	w.enter(operations.WorkerLoading, func(r *record) {
		r.Process, r.StartedAt = id, time.Now().UTC()
	})
	return nil
}

// port finds a loopback port for the worker: the one asked for, or any free one
// that no other worker has. The caller holds m.placing.
func (m *Manager) port(ctx context.Context, r record) (int, error) {
	taken := map[int]string{}
	for _, w := range m.all() {
		if other := w.record(); other.ID != r.ID && !other.ended() {
			taken[other.Port] = other.ID
		}
	}
	if r.AskedPort != 0 {
		if id := taken[r.AskedPort]; id != "" {
			return 0, failure(operations.ReasonPortInUse, r.ID, "port %d is that of worker %s", r.AskedPort, id)
		}
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(engine.Host, strconv.Itoa(r.AskedPort)))
		if err != nil {
			return 0, failure(operations.ReasonOf(err), r.ID, "port %d cannot be had: %v", r.AskedPort, err)
		}
		return r.AskedPort, ln.Close()
	}
	return freeport.Find(func(port int) bool { return taken[port] != "" })
}

// model finds what the engine is given, where its recipe asks for it.
func (w *worker) model(ctx context.Context, l wire.Launch, r record) (engine.Model, error) {
	length := r.ContextLength
	if length == 0 && l.Memory != nil {
		length = l.Memory.Context
	}
	if !engine.HasPlaceholder(l, "{model_path}", "{model_file}", "{model_sha256}") || w.m.o.Model == nil {
		return engine.Model{Context: length}, nil
	}
	model, err := w.m.o.Model(ctx, r.Model, length)
	if err == nil && !model.IsFile() && engine.HasPlaceholder(l, "{model_file}", "{model_sha256}") {
		return model, failure(operations.ReasonUnfitModel, r.Worker, "%s wants one file of a model, and %s is several: name the one, as in org/repo:file", r.Worker, r.Model)
	}
	if err == nil && model.SHA256 == "" && engine.HasPlaceholder(l, "{model_sha256}") {
		model.SHA256, err = model.Sum(ctx)
	}
	return model, err
}

// place decides on devices. It waits as long as memory there is draining. before
// is how their memory was. The caller holds m.placing, which is let go while it
// waits.
func (w *worker) place(ctx context.Context, l wire.Launch, model engine.Model) (d placement.Decision, before map[string]deviceMemory, err error) {
	r := w.record()
	load := placement.Load{
		Worker: r.Worker, Model: r.Model, Device: r.Device, Vendor: l.GPU, Devices: l.Devices,
		Wants: l.Memory != nil || l.GPU != "", Requires: l.GPU != "",
	}
	if l.Memory != nil {
		load.Overhead, load.Fraction = l.Memory.Overhead, l.Memory.Share
		load.Estimate, load.Explain = model.Estimate, model.Explain
		if r.Parallel > 1 && model.Estimate > 0 && l.Memory.Share == 0 {
			// What reserves a share divides it among requests; the others take as much for each.
			load.Estimate = forRequests(model, r.Parallel)
			load.Explain += fmt.Sprintf(", the context once for each of %d requests", r.Parallel)
		}
		if l.Memory.Fixed > 0 {
			load.Estimate, load.Explain = l.Memory.Fixed, "as its recipe says"
		}
	}
	if indices, err := operations.ParseDevices(r.Device); !load.Wants && len(indices) == 0 {
		// The vendors' tools need not be asked, which may be slow, or hang.
		return placement.Decision{Reason: "it uses no accelerator"}, nil, err
	}
	for {
		devices, now, err := w.m.devices(ctx, r.ID)
		if err != nil {
			return d, nil, err
		}
		d, err = placement.Place(load, devices)
		var wait *placement.Wait
		if !errors.As(err, &wait) {
			return d, now.before(d.Devices), err
		}
		if w.record().Problem != wait.Error() {
			w.update(func(r *record) { r.Problem = wait.Error() })
		}
		w.m.placing.Unlock() // others may have room elsewhere
		select {
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
		w.m.placing.Lock()
		if ctx.Err() != nil {
			return d, nil, err
		}
	}
}

// forRequests is what a model takes with the context of n requests, in bytes.
func forRequests(m engine.Model, n int) int64 {
	if more := int64(n - 1); m.Cache <= 0 || more <= (math.MaxInt64-m.Estimate)/m.Cache {
		return m.Estimate + more*m.Cache
	}
	return math.MaxInt64
}

func sameDevice(a operations.WorkerDevice, b gpu.Device) bool {
	if a.UUID != "" || b.UUID != "" {
		return a.UUID == b.UUID
	}
	return a.Vendor == string(b.Vendor) && a.Index == b.Index
}

// deviceKey names a device in a record: its UUID, or what it has in place of one.
func deviceKey(d operations.WorkerDevice) string {
	if d.UUID != "" {
		return d.UUID
	}
	return fmt.Sprintf("%s %d", d.Vendor, d.Index)
}

// devices are the accelerators with what other workers were promised there, and
// the picture that this was read from.
func (m *Manager) devices(ctx context.Context, self string) ([]placement.Device, picture, error) {
	at := time.Now()
	p, err := m.picture(ctx)
	if err != nil {
		return nil, p, err
	}
	reserve(p.devices, p.holders, at, m.ledgerRecords(self))
	held := p.byWorker()
	devices := make([]placement.Device, len(p.devices))
	for i, d := range p.devices {
		devices[i].Device = d
		for _, w := range m.all() {
			r := w.record()
			if r.ID == self || !r.has(d) {
				continue
			}
			switch {
			case r.State == operations.WorkerDraining, w.ending.Load():
				devices[i].Draining = append(devices[i].Draining, r.ID)
			case r.OnDemand && r.State == operations.WorkerReady && !w.answers():
				devices[i].Reclaimable += max(r.Estimate/int64(len(r.Devices)), held[r.ID+"\x00"+d.UUID])
			}
		}
	}
	return devices, p, nil
}
