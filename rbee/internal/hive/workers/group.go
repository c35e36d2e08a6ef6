package workers

import (
	"errors"
	"os"
	"slices"
	"sort"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// members returns the running processes of the worker. If deep is set, it also searches the
// environment of every process of this user for the worker's marker.
func (w *worker) members(deep bool) []proc.Process {
	r := w.record()
	if r.Process.PID == 0 && !deep {
		return nil
	}
	all, err := proc.List()
	if err != nil {
		w.m.log.Error("cannot list processes", "error", err)
		return nil
	}
	var marked []proc.ID
	if deep {
		marked, _ = proc.FindByEnv(engine.MarkerEnv, r.Marker) // listing processes just succeeded
	}
	isMember := map[int]bool{}
	// The process group belongs to the worker while the leader's PID is reserved, or
	// while an identified process of the worker is in the group.
	group := w.process.Load().PIDReserved()
	for _, p := range all {
		if p.ID == r.Process || slices.Contains(r.Members, p.ID) || slices.Contains(marked, p.ID) {
			isMember[p.PID] = true
			group = group || p.Group == r.Process.PID
		}
	}
	if group && r.Process.PID > 1 {
		for _, p := range all {
			isMember[p.PID] = isMember[p.PID] || p.Group == r.Process.PID
		}
	}
	for more := true; more; {
		more = false
		for _, p := range all {
			if !isMember[p.PID] && isMember[p.Parent] {
				isMember[p.PID], more = true, true
			}
		}
	}
	self := os.Getpid()
	return slices.DeleteFunc(all, func(p proc.Process) bool { return !isMember[p.PID] || p.PID == self })
}

// processes returns all identified processes of the worker: the running ones and the
// ones in the record, which may have exited.
func (w *worker) processes() []proc.ID {
	var ids []proc.ID
	for _, p := range w.members(true) {
		ids = append(ids, p.ID)
	}
	r := w.record()
	for _, id := range append([]proc.ID{r.Process}, r.Members...) {
		if id.PID != 0 && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// recordMembers records the processes of the worker. The record is needed if the leader
// exits while no hive daemon is running: then the other processes have another parent,
// and may have overwritten the marker in their environment.
func (w *worker) recordMembers() { w.setMembers(w.members(false)) }

// setMembers stores members in the record.
func (w *worker) setMembers(members []proc.Process) {
	if len(members) == 0 {
		return // also if processes could not be listed
	}
	r := w.record()
	var ids []proc.ID
	for _, p := range members {
		if p.ID != r.Process {
			ids = append(ids, p.ID)
		}
	}
	sort.Slice(ids, func(i, j int) bool { return ids[i].PID < ids[j].PID })
	if !slices.Equal(r.Members, ids) {
		w.update(func(r *record) { r.Members = ids })
	}
}

// terminateGroup stops all processes of the worker. If kill is set, it sends SIGKILL
// immediately. Otherwise it sends SIGTERM, and SIGKILL after the grace period. killed
// reports whether SIGKILL was needed. left contains the processes that did not exit, such
// as processes that are blocked in the kernel.
func (w *worker) terminateGroup(kill bool, grace time.Duration) (killed bool, left []proc.Process) {
	if !kill {
		w.signal(syscall.SIGTERM)
		if left = w.awaitExit(grace, true); len(left) == 0 || w.m.ctx.Err() != nil {
			return false, left // all have exited, or the next hive daemon continues
		}
	}
	for end := time.Now().Add(w.m.timing.KillTimeout); ; {
		// A process that is being created may miss the signal.
		if w.signal(syscall.SIGKILL) == 0 {
			return killed, nil
		}
		killed = true
		if left = w.awaitExit(500*time.Millisecond, false); len(left) == 0 || time.Now().After(end) || w.m.ctx.Err() != nil {
			return killed, left
		}
	}
}

// terminateAll stops all processes of the worker, and retries until none is left or the
// manager closes. It returns their IDs, and reports whether SIGKILL was needed.
func (w *worker) terminateAll(kill bool) (ids []proc.ID, killed bool) {
	ids = w.processes()
	killed, left := w.terminateGroup(kill, w.m.timing.KillTimeout)
	for len(left) > 0 && w.m.ctx.Err() == nil {
		w.update(func(r *record) { r.Problem = describeStuck(left) })
		w.sleep(time.Second)
		_, left = w.terminateGroup(true, 0)
	}
	return ids, killed
}

// signal sends sig to every process of the worker once and returns their number.
func (w *worker) signal(sig syscall.Signal) int {
	members := w.members(true)
	leader := w.record().Process.PID
	groupReserved := w.process.Load().PIDReserved() && leader > 1
	if groupReserved && slices.ContainsFunc(members, func(p proc.Process) bool { return p.Group == leader }) {
		_ = syscall.Kill(-leader, sig) // the caller checks for remaining processes
	}
	for _, p := range members {
		if groupReserved && p.Group == leader {
			continue
		}
		if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			w.m.log.Warn("cannot signal worker process", "pid", p.PID, "error", err)
		}
	}
	return len(members)
}

// awaitExit waits until all processes of the worker have exited, but at most for limit. If
// gentle is set, it also returns when a stop with force is requested.
func (w *worker) awaitExit(limit time.Duration, gentle bool) (left []proc.Process) {
	delays := &backoff.ExponentialBackOff{InitialInterval: 5 * time.Millisecond, Multiplier: 2, MaxInterval: 100 * time.Millisecond}
	for end := time.Now().Add(limit); ; {
		// The deep search is expensive, so it runs only if the other search finds nothing.
		if left = w.members(false); len(left) == 0 {
			left = w.members(true)
		}
		if len(left) == 0 || time.Now().After(end) || w.m.ctx.Err() != nil || gentle && w.latestStopOptions().Force {
			return left
		}
		w.sleep(delays.NextBackOff())
	}
}

// sleep waits for d, or until the manager closes.
func (w *worker) sleep(d time.Duration) {
	select {
	case <-w.m.ctx.Done():
	case <-time.After(d):
	}
}
