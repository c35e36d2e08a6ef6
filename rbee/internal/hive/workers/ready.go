package workers

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// awaitReady waits until the worker is ready. Loading may take any time as long as the log
// or the memory of the worker changes.
func (w *worker) awaitReady() {
	r := w.record()
	ctx, cancel := w.untilStopped()
	defer cancel()
	stall := w.m.timing.StallTimeout
	if r.Launch.StallSeconds > 0 {
		stall = seconds(r.Launch.StallSeconds)
	}
	monitor := w.startLoadMonitor(ctx, stall)
	delays := &backoff.ExponentialBackOff{InitialInterval: 2 * time.Millisecond, Multiplier: 1.25, MaxInterval: 250 * time.Millisecond}
	var prepared chan error // nil until the probe succeeds
	for {
		if prepared == nil && engine.Probe(ctx, r.Port, r.Launch) && !w.hasExited() {
			if pid, known := w.listener(r.Port); known && pid == 0 {
				w.retryNow = r.RequestedPort == 0
				w.fail(fmt.Sprintf("port %d is used by another process", r.Port))
				return
			}
			prepared = make(chan error, 1)
			if len(r.Prepare) == 0 {
				prepared <- nil
			} else {
				go func() { prepared <- engine.Prepare(ctx, r.Port, r.Prepare) }()
			}
		}
		select {
		case err := <-prepared:
			if w.hasExited() || ctx.Err() != nil {
				break // the cases below report the cause
			}
			if err != nil {
				w.fail(err.Error())
				return
			}
			w.enter(operations.WorkerReady, func(r *record) {
				r.ReadyAt, r.EverReady, r.Problem = time.Now().UTC(), true, ""
			})
			return
		default:
		}
		select {
		case <-w.m.ctx.Done():
			return
		case <-w.stop:
			w.startDraining()
			return
		case <-w.process.Load().Exited:
			// Another process may have taken the port; a retry selects another one.
			w.retryNow = r.RequestedPort == 0 && engine.PortInUse(ctx, r.Port)
			w.fail("")
			return
		case <-time.After(delays.NextBackOff()):
		}
		if idle := monitor.check(ctx); idle > stall {
			w.fail(fmt.Sprintf("the worker did not become ready: no change in its log or memory for %s", idle.Round(time.Second/10)))
			return
		}
	}
}

// hasExited reports whether the worker's process has exited.
func (w *worker) hasExited() bool {
	select {
	case <-w.process.Load().Exited:
		return true
	default:
		return false
	}
}

// activity is a sample of values that change while a worker loads.
type activity struct {
	log    int64 // bytes
	memory int64 // MiB of all its processes
	device int64 // MiB on devices
}

// loadMonitor runs periodic tasks while a worker loads: it records the worker's processes,
// rotates the log, and checks for activity.
type loadMonitor struct {
	w                               *worker
	checkInterval, activityInterval time.Duration
	checkedAt, sampledAt, activeAt  time.Time // times of the last check, sample, and change of the sample
	last                            activity  // last sample
}

// startLoadMonitor returns a new monitor after its first check.
func (w *worker) startLoadMonitor(ctx context.Context, stall time.Duration) *loadMonitor {
	m := &loadMonitor{w: w, checkInterval: min(logCheckInterval, stall/4), activeAt: time.Now()}
	if m.activityInterval = m.checkInterval; len(w.record().Devices) > 0 {
		m.activityInterval = min(5*time.Second, stall/4) // each sample runs the vendors' tools
	}
	m.check(ctx)
	return m
}

// check runs the tasks that are due. It returns the time since the last activity, or 0 if no
// sample was due.
func (m *loadMonitor) check(ctx context.Context) (idle time.Duration) {
	now := time.Now()
	if now.Sub(m.checkedAt) < m.checkInterval {
		return 0
	}
	first := m.checkedAt.IsZero()
	m.checkedAt = now
	members := m.w.members(false)
	m.w.setMembers(members)
	if now.Sub(m.sampledAt) >= m.activityInterval {
		m.sampledAt = now
		if sample := m.w.activity(ctx, members); sample != m.last {
			m.last, m.activeAt = sample, now
		}
		idle = now.Sub(m.activeAt)
	}
	if !first { // before the first check, startProcess rotated the log without losing a line
		m.w.m.rotateLog(m.w.record().ID)
	}
	return idle
}

// activity returns a sample of the worker's log size and memory.
func (w *worker) activity(ctx context.Context, members []proc.Process) (s activity) {
	r := w.record()
	if info, err := os.Stat(w.m.logPath(r.ID)); err == nil {
		s.log = info.Size()
	}
	for _, p := range members {
		s.memory += proc.Memory(p.PID)
	}
	s.memory >>= 20
	if len(r.Devices) == 0 || w.m.o.Processes == nil {
		return s
	}
	list, _ := w.m.o.Processes(ctx) // unknown memory counts as unchanged
	for _, holder := range list {
		for _, p := range members {
			if holder.PID == p.PID && holder.Memory != nil {
				s.device += int64(*holder.Memory >> 20)
			}
		}
	}
	return s
}

// listener returns the worker's process that listens on a port; see [proc.Listener].
func (w *worker) listener(port int) (pid int, known bool) {
	var pids []int
	for _, p := range w.members(true) {
		pids = append(pids, p.PID)
	}
	return proc.Listener(port, pids)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
