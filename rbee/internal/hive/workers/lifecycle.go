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

// follows is the table of states: where a worker can go from each.
//
//	from      to        when
//	starting  loading   its process runs
//	          failed    it cannot be placed, or the process cannot be made
//	          draining  it was told to stop
//	loading   ready     its probe is answered
//	          failed    it ended, or showed no sign of life for too long
//	          draining  it was told to stop
//	ready     failed    it ended
//	          draining  it was told to stop
//	draining  stopped   its whole group is gone
//	failed    starting  its time to be tried again has come
//	          draining  it was told to stop
//	stopped             for good
var follows = map[operations.WorkerState][]operations.WorkerState{
	operations.WorkerStarting: {operations.WorkerLoading, operations.WorkerFailed, operations.WorkerDraining},
	operations.WorkerLoading:  {operations.WorkerReady, operations.WorkerFailed, operations.WorkerDraining},
	operations.WorkerReady:    {operations.WorkerFailed, operations.WorkerDraining},
	operations.WorkerDraining: {operations.WorkerStopped},
	operations.WorkerFailed:   {operations.WorkerStarting, operations.WorkerDraining},
	operations.WorkerStopped:  {},
}

// worker is one worker and what its keeper knows. Only the keeper changes the
// record once it runs.
type worker struct {
	m *Manager

	mu       sync.Mutex
	rec      record
	adopted  bool
	requests int
	idle     chan struct{} // closed when requests falls to 0; nil if nobody waits
	changed  chan struct{} // closed at the next change of the record
	how      StopOptions   // set before stop is closed
	stopping bool

	stop    chan struct{} // closed when it is told to stop
	settled chan struct{} // closed when the keeper has ended

	putAway sync.Mutex // held by who takes the last steps after the keeper has ended

	ending atomic.Bool                    // its processes are being ended because it failed
	child  atomic.Pointer[engine.Process] // nil while it has no process; the keeper's to change

	// The keeper's own.
	refused error  // why the first start was refused: the worker never came to be
	retry   bool   // the failure was of no fault of the engine's: try again at once
	tries   int    // how often so
	ended   ending // how stopping it went; read once settled is closed
}

// record is a copy of the record as it is now.
func (w *worker) record() record {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rec
}

// public is the worker as reports tell it.
func (w *worker) public() operations.WorkerProcess {
	w.mu.Lock()
	p := w.rec.public()
	p.Adopted, p.Requests = w.adopted, w.requests
	w.mu.Unlock()
	p.LogPath = w.m.logPath(p.ID)
	if p.State == operations.WorkerFailed {
		p.LogTail = w.m.logTail(p.ID, tailLines)
	}
	return p
}

// watch gives the worker as it is, and a channel that is closed at its next change.
func (w *worker) watch() (operations.WorkerProcess, <-chan struct{}) {
	w.mu.Lock()
	changed := w.changed
	w.mu.Unlock()
	return w.public(), changed
}

// update changes the record, in memory and on disk. That the disk did not take it
// is no reason to lose control of a process: it is logged, and tried again with
// the next change.
func (w *worker) update(change func(r *record)) {
	if err := w.write(change); err != nil {
		w.m.log.Error("the record of a worker cannot be written", "worker", w.rec.ID, "error", err)
	}
}

// write changes the record as update does, for what must not go on unless the disk
// took it.
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
		return fmt.Errorf("writing the worker's record: %w", err)
	}
	return nil
}

func (w *worker) save() error {
	r := w.record()
	return statefile.Write(w.m.path(r.ID), &r)
}

// upgrade rewrites a record that an earlier rbee wrote.
func (w *worker) upgrade() {
	if head, err := statefile.Head(w.m.path(w.record().ID)); err == nil && head.Schema == 0 {
		w.update(func(*record) {})
	}
}

// enter changes the state, and the record with it.
func (w *worker) enter(next operations.WorkerState, change func(r *record)) {
	w.update(func(r *record) {
		if !slices.Contains(follows[r.State], next) {
			w.m.log.Error("a worker takes a step that the table does not know", "worker", r.ID, "from", r.State, "to", next)
		}
		r.State, r.Boot = next, w.m.boot
		if change != nil {
			change(r)
		}
	})
	r := w.record()
	w.m.log.Info("worker", "id", r.ID, "state", next, "pid", r.Process.PID, "problem", r.Problem)
}

// run is the keeper. It ends when the worker has ended, or when the manager lets
// go of it.
func (w *worker) run() {
	defer close(w.settled)
	for w.m.ctx.Err() == nil {
		switch r := w.record(); r.State {
		case operations.WorkerStarting:
			w.start()
		case operations.WorkerLoading:
			w.load()
		case operations.WorkerReady:
			w.serve()
		case operations.WorkerDraining:
			w.end()
		case operations.WorkerFailed:
			if r.RestartAt.IsZero() {
				return
			}
			w.rest()
		case operations.WorkerStopped:
			return
		}
	}
}

// serve watches a worker that serves until it ends or is told to stop.
func (w *worker) serve() {
	tick, often := time.NewTicker(w.m.t.Watch), time.NewTicker(min(w.m.t.Watch, logEvery))
	defer tick.Stop()
	defer often.Stop()
	w.noteMembers()
	for {
		select {
		case <-w.m.ctx.Done():
			return
		case <-w.stop:
			w.drainNow()
			return
		case <-w.child.Load().Ended:
			w.fail("")
			return
		case <-often.C:
			w.m.rotateLog(w.rec.ID)
		case <-tick.C:
			w.noteMembers()
			if r := w.record(); r.Failures > 0 && time.Since(r.ReadyAt) > w.m.t.Steady {
				w.update(func(r *record) { r.Failures = 0 })
			}
		}
	}
}

// fail ends what is left of the worker's processes and enters the state of that
// name. why is empty if the process ended by itself.
func (w *worker) fail(why string) {
	w.ending.Store(true)
	defer w.ending.Store(false)
	ids, _ := w.endAll(why != "")
	if w.m.ctx.Err() != nil {
		return // the next hive goes on from the record
	}
	var status *int
	if c := w.child.Load(); c != nil {
		ended := ""
		if status, ended = c.Reap(); why == "" {
			why = ended
		}
		w.child.Store(nil)
		w.awaitMemory(ids) // what was not started has taken none
	}
	retry := w.retry && w.tries < 3
	w.retry = false
	if retry {
		w.tries++
	}
	w.enter(operations.WorkerFailed, func(r *record) {
		r.ExitStatus, r.Problem, r.EndedAt = status, why, time.Now().UTC()
		r.RestartAt = time.Time{}
		switch {
		case retry:
			r.RestartAt = r.EndedAt
		case r.EverReady:
			r.RestartAt = r.EndedAt.Add(w.m.t.Backoff[min(r.Failures, len(w.m.t.Backoff)-1)])
			r.Failures++
		}
	})
}

// rest waits until a worker that failed may be tried again.
func (w *worker) rest() {
	if w.stopped() {
		w.drainNow()
		return
	}
	timer := time.NewTimer(time.Until(w.record().RestartAt))
	defer timer.Stop()
	select {
	case <-w.m.ctx.Done():
	case <-w.stop:
		w.drainNow()
	case <-timer.C:
		w.enter(operations.WorkerStarting, func(r *record) {
			r.Restarts++
			r.RestartAt = time.Time{}
		})
	}
}

// resume goes on with a worker that another hive had, once what is left of a
// process without a leader is gone.
func (w *worker) resume() {
	switch r := w.record(); {
	case r.State == operations.WorkerStopped:
		close(w.settled)
		return
	case w.ending.Load():
		ids, killed := w.endAll(true)
		if killed || r.State != operations.WorkerFailed { // before it failed, that was done
			w.awaitMemory(ids)
		}
		if unfinished := r.State == operations.WorkerLoading || r.State == operations.WorkerReady; unfinished && w.m.ctx.Err() == nil {
			w.enter(operations.WorkerFailed, func(r *record) {
				r.Problem = "it ended while no hive watched; its exit status is not known"
				r.ExitStatus, r.EndedAt = nil, time.Now().UTC()
				r.RestartAt = r.EndedAt.Add(w.m.t.Backoff[min(r.Failures, len(w.m.t.Backoff)-1)])
				r.Failures++
			})
		}
		w.ending.Store(false)
	}
	w.run()
}

// afterReboot goes on with a worker of which the machine's end left nothing.
func (w *worker) afterReboot(state operations.WorkerState) {
	w.update(func(r *record) { r.Process, r.Members, r.Boot = proc.ID{}, nil, w.m.boot })
	switch state {
	case operations.WorkerLoading, operations.WorkerReady:
		w.enter(operations.WorkerFailed, func(r *record) {
			r.Problem, r.EndedAt = "the machine was started anew", time.Now().UTC()
			r.RestartAt, r.ExitStatus = r.EndedAt, nil
		})
	case operations.WorkerDraining:
		w.enter(operations.WorkerStopped, func(r *record) { r.EndedAt = time.Now().UTC() })
	case operations.WorkerStarting, operations.WorkerFailed, operations.WorkerStopped:
	}
}

// adopt takes over the process that an earlier hive started, if it still runs. Of
// one that does not, resume has to end what is left.
func (w *worker) adopt() {
	r := w.record()
	switch {
	case r.State == operations.WorkerStopped:
		return
	case r.Boot != w.m.boot:
		w.afterReboot(r.State)
		return
	case r.State == operations.WorkerStarting, r.State == operations.WorkerFailed:
		// The process was made or it was not. If it was, nobody wrote down which.
		w.ending.Store(true)
		return
	}
	id := r.Process
	if !id.Alive() {
		w.ending.Store(r.State != operations.WorkerDraining) // which ends it anyway
		return
	}
	w.child.Store(engine.Follow(w.m.ctx.Done(), id))
	w.mu.Lock()
	w.adopted = true
	w.mu.Unlock()
	w.noteMembers()
	w.m.log.Info("worker adopted", "id", r.ID, "pid", id.PID, "state", r.State)
	if now := proc.Arguments(id.PID); now != nil && !slices.Equal(now, r.Argv) {
		// Engines rename their processes. Pid, start time and boot say for sure
		// which process it is.
		w.m.log.Info("the adopted worker's command line is not the one that was started", "id", r.ID, "argv", now)
	}
}
