package workers

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// transitions is the state table: the possible next states of each state.
//
//	from      to        when
//	starting  loading   the process runs
//	          failed    placement failed, or the process cannot be started
//	          draining  a stop was requested
//	loading   ready     the probe and the prepare requests succeeded
//	          failed    the process exited, or made no progress for too long
//	          draining  a stop was requested
//	ready     failed    the process exited
//	          draining  a stop was requested
//	draining  stopped   all processes of the worker have exited
//	failed    starting  the backoff has passed
//	          draining  a stop was requested
//	stopped             final
var transitions = map[operations.WorkerState][]operations.WorkerState{
	operations.WorkerStarting: {operations.WorkerLoading, operations.WorkerFailed, operations.WorkerDraining},
	operations.WorkerLoading:  {operations.WorkerReady, operations.WorkerFailed, operations.WorkerDraining},
	operations.WorkerReady:    {operations.WorkerFailed, operations.WorkerDraining},
	operations.WorkerDraining: {operations.WorkerStopped},
	operations.WorkerFailed:   {operations.WorkerStarting, operations.WorkerDraining},
	operations.WorkerStopped:  {},
}

// worker is one worker and the state of its supervisor. While the supervisor runs, only
// it changes the record.
type worker struct {
	m *Manager

	mu            sync.Mutex
	rec           record
	adopted       bool
	requests      int
	idle          chan struct{} // closed when requests falls to 0; nil if no caller waits
	changed       chan struct{} // closed at the next change of the record
	stopOptions   StopOptions   // set before stop is closed
	stopRequested bool

	stop chan struct{} // closed when a stop is requested
	done chan struct{} // closed when the supervisor has returned

	finishMu sync.Mutex // serializes the last transitions after the supervisor has returned

	isCleaningUp atomic.Bool                    // the processes of a failed worker are being stopped
	process      atomic.Pointer[engine.Process] // nil without a process; set by the supervisor

	// Used only by the supervisor, except result.
	startErr         error      // why the first start failed; such a worker is removed
	retryNow         bool       // the failure was not caused by the engine: retry without delay
	immediateRetries int        // number of retries without delay
	result           stopResult // valid once done is closed
}

// record returns a copy of the record.
func (w *worker) record() record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rec
}

// report returns the worker as shown in reports.
func (w *worker) report() operations.WorkerProcess {
	w.mu.Lock()
	p := w.rec.report()
	p.Adopted, p.Requests = w.adopted, w.requests
	w.mu.Unlock()
	p.LogPath = w.m.logPath(p.ID)
	if p.State == operations.WorkerFailed {
		p.LogTail = w.m.logTail(p.ID, tailLines)
	}
	return p
}

// watch returns the worker as shown in reports, and a channel that is closed when the worker
// changes.
func (w *worker) watch() (operations.WorkerProcess, <-chan struct{}) {
	w.mu.Lock()
	changed := w.changed
	w.mu.Unlock()
	return w.report(), changed
}

// update changes the record in memory and on disk. If the write fails, update logs the
// error and keeps the change in memory, because the supervisor must know the process. The
// next change writes the record again.
func (w *worker) update(change func(r *record)) {
	if err := w.write(change); err != nil {
		w.m.log.Error("cannot write worker record", "worker", w.rec.ID, "error", err)
	}
}

// write changes the record like update and returns the write error, for callers that
// must not continue without a record on disk.
func (w *worker) write(change func(r *record)) error {
	w.mu.Lock()
	change(&w.rec)
	w.mu.Unlock()
	err := w.save()
	w.mu.Lock()
	close(w.changed)
	w.changed = make(chan struct{})
	w.mu.Unlock()
	if err != nil {
		return fmt.Errorf("cannot write the worker's record: %w", err)
	}
	return nil
}

func (w *worker) save() error {
	r := w.record()
	return statefile.Write(w.m.path(r.ID), &r)
}

// upgradeRecord rewrites a record that has the schema of an earlier rbee.
func (w *worker) upgradeRecord() {
	if head, err := statefile.ReadSchema(w.m.path(w.record().ID)); err == nil && head.Schema == 0 {
		w.update(func(*record) {})
	}
}

// enter sets the state to next and applies change, if not nil, to the record.
func (w *worker) enter(next operations.WorkerState, change func(r *record)) {
	w.update(func(r *record) {
		if !slices.Contains(transitions[r.State], next) {
			w.m.log.Error("invalid worker state transition", "worker", r.ID, "from", r.State, "to", next)
		}
		r.State, r.Boot = next, w.m.boot
		if change != nil {
			change(r)
		}
	})
	r := w.record()
	w.m.log.Info("worker state changed", "worker", r.ID, "state", next, "pid", r.Process.PID, "problem", r.Problem)
}

// run supervises the worker. It returns when the worker is in a final state or the manager
// closes.
func (w *worker) run() {
	defer close(w.done)
	for w.m.ctx.Err() == nil {
		switch r := w.record(); r.State {
		case operations.WorkerStarting:
			w.start()
		case operations.WorkerLoading:
			w.awaitReady()
		case operations.WorkerReady:
			w.monitor()
		case operations.WorkerDraining:
			w.shutDown()
		case operations.WorkerFailed:
			if r.RestartAt.IsZero() {
				return
			}
			w.awaitRestart()
		case operations.WorkerStopped:
			return
		}
	}
}

// monitor watches a ready worker until it exits or a stop is requested.
func (w *worker) monitor() {
	watchTick, logTick := time.NewTicker(w.m.timing.WatchInterval), time.NewTicker(min(w.m.timing.WatchInterval, logCheckInterval))
	defer watchTick.Stop()
	defer logTick.Stop()
	w.recordMembers()
	for {
		select {
		case <-w.m.ctx.Done():
			return
		case <-w.stop:
			w.startDraining()
			return
		case <-w.process.Load().Exited:
			w.fail("")
			return
		case <-logTick.C:
			w.m.rotateLog(w.rec.ID)
		case <-watchTick.C:
			w.recordMembers()
			if r := w.record(); r.Failures > 0 && time.Since(r.ReadyAt) > w.m.timing.SteadyAfter {
				w.update(func(r *record) { r.Failures = 0 })
			}
		}
	}
}

// fail stops the remaining processes of the worker and enters the state failed. problem is
// empty if the process exited by itself.
func (w *worker) fail(problem string) {
	w.isCleaningUp.Store(true)
	defer w.isCleaningUp.Store(false)
	ids, _ := w.terminateAll(problem != "")
	if w.m.ctx.Err() != nil {
		return // the next hive daemon continues from the record
	}
	var status *int
	if c := w.process.Load(); c != nil {
		exit := ""
		if status, exit = c.Reap(); problem == "" {
			problem = exit
		}
		w.process.Store(nil)
		w.awaitMemory(ids) // without a process, no memory was allocated
	}
	retry := w.retryNow && w.immediateRetries < 3
	w.retryNow = false
	if retry {
		w.immediateRetries++
	}
	w.enter(operations.WorkerFailed, func(r *record) {
		r.ExitStatus, r.Problem, r.EndedAt = status, problem, time.Now().UTC()
		r.RestartAt = time.Time{}
		switch {
		case retry:
			r.RestartAt = r.EndedAt
		case r.EverReady:
			r.RestartAt = r.EndedAt.Add(w.m.timing.Backoff[min(r.Failures, len(w.m.timing.Backoff)-1)])
			r.Failures++
		}
	})
}

// awaitRestart waits until a failed worker may be restarted.
func (w *worker) awaitRestart() {
	if w.isStopRequested() {
		w.startDraining()
		return
	}
	timer := time.NewTimer(time.Until(w.record().RestartAt))
	defer timer.Stop()
	select {
	case <-w.m.ctx.Done():
	case <-w.stop:
		w.startDraining()
	case <-timer.C:
		w.enter(operations.WorkerStarting, func(r *record) {
			r.Restarts++
			r.RestartAt = time.Time{}
		})
	}
}

// resume continues a worker of an earlier hive daemon. If its leader has exited, resume
// first stops its remaining processes.
func (w *worker) resume() {
	switch r := w.record(); {
	case r.State == operations.WorkerStopped:
		close(w.done)
		return
	case w.isCleaningUp.Load():
		ids, killed := w.terminateAll(true)
		if killed || r.State != operations.WorkerFailed { // a failed worker has already waited for its memory
			w.awaitMemory(ids)
		}
		if wasRunning := r.State == operations.WorkerLoading || r.State == operations.WorkerReady; wasRunning && w.m.ctx.Err() == nil {
			w.enter(operations.WorkerFailed, func(r *record) {
				r.Problem = "the process exited with unknown status while no hive daemon was running"
				r.ExitStatus, r.EndedAt = nil, time.Now().UTC()
				r.RestartAt = r.EndedAt.Add(w.m.timing.Backoff[min(r.Failures, len(w.m.timing.Backoff)-1)])
				r.Failures++
			})
		}
		w.isCleaningUp.Store(false)
	}
	w.run()
}

// resetAfterReboot updates the record of a worker after a reboot of the machine.
func (w *worker) resetAfterReboot(state operations.WorkerState) {
	w.update(func(r *record) { r.Process, r.Members, r.Boot = proc.ID{}, nil, w.m.boot })
	switch state {
	case operations.WorkerLoading, operations.WorkerReady:
		w.enter(operations.WorkerFailed, func(r *record) {
			r.Problem, r.EndedAt = "the host rebooted", time.Now().UTC()
			r.RestartAt, r.ExitStatus = r.EndedAt, nil
		})
	case operations.WorkerDraining:
		w.enter(operations.WorkerStopped, func(r *record) { r.EndedAt = time.Now().UTC() })
	case operations.WorkerStarting, operations.WorkerFailed, operations.WorkerStopped:
	}
}

// adopt takes over the process that an earlier hive daemon started, if it still runs.
// Otherwise resume stops the remaining processes.
func (w *worker) adopt() {
	r := w.record()
	switch {
	case r.State == operations.WorkerStopped:
		return
	case r.Boot != w.m.boot:
		w.resetAfterReboot(r.State)
		return
	case r.State == operations.WorkerStarting, r.State == operations.WorkerFailed:
		// A process may have been started without being recorded.
		w.isCleaningUp.Store(true)
		return
	}
	id := r.Process
	if !id.Alive() {
		w.isCleaningUp.Store(r.State != operations.WorkerDraining) // shutDown stops the processes of a draining worker
		return
	}
	w.process.Store(engine.WatchProcess(w.m.ctx.Done(), id))
	w.mu.Lock()
	w.adopted = true
	w.mu.Unlock()
	w.recordMembers()
	w.m.log.Info("worker adopted", "worker", r.ID, "pid", id.PID, "state", r.State)
	if argv := proc.Arguments(id.PID); argv != nil && !slices.Equal(argv, r.Argv) {
		// Some engines change their command line. The PID, the start time and the boot
		// identify the process with certainty.
		w.m.log.Info("worker command line changed", "worker", r.ID, "argv", argv)
	}
}
