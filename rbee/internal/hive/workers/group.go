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

// members are the processes of the worker that run now. deep also looks for the
// worker's mark in the environment of every process of this user.
func (w *worker) members(deep bool) []proc.Process {
	r := w.record()
	if r.Process.PID == 0 && !deep {
		return nil
	}
	all, err := proc.List()
	if err != nil {
		w.m.log.Error("processes cannot be listed", "error", err)
		return nil
	}
	var marked []proc.ID
	if deep {
		marked, _ = proc.Marked(engine.MarkName, r.Mark) // the list just worked
	}
	ours := map[int]bool{}
	// The number of the group is the worker's for as long as the leader's pid is
	// held, or a process that is known for sure is in the group.
	group := w.child.Load().HoldsPID()
	for _, p := range all {
		if p.ID == r.Process || slices.Contains(r.Members, p.ID) || slices.Contains(marked, p.ID) {
			ours[p.PID] = true
			group = group || p.Group == r.Process.PID
		}
	}
	if group && r.Process.PID > 1 {
		for _, p := range all {
			ours[p.PID] = ours[p.PID] || p.Group == r.Process.PID
		}
	}
	for more := true; more; {
		more = false
		for _, p := range all {
			if !ours[p.PID] && ours[p.Parent] {
				ours[p.PID], more = true, true
			}
		}
	}
	self := os.Getpid()
	return slices.DeleteFunc(all, func(p proc.Process) bool { return !ours[p.PID] || p.PID == self })
}

// processes are all that are known to be the worker's: those that run, and those
// on record that may have ended.
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

// noteMembers writes down who belongs to the worker, for when its leader has ended
// and no hive holds its pid: their parent is another then, and one that wrote over
// its environment has no mark.
func (w *worker) noteMembers() { w.note(w.members(false)) }

func (w *worker) note(members []proc.Process) {
	if len(members) == 0 {
		return // also where they could not be listed
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

// endGroup ends all processes of the worker. With kill they get no chance to end
// by themselves; else that is grace. It reports whether SIGKILL was needed, and
// who is left, which is nobody unless the kernel itself holds a process.
func (w *worker) endGroup(kill bool, grace time.Duration) (killed bool, left []proc.Process) {
	if !kill {
		w.signal(syscall.SIGTERM)
		if left = w.awaitGone(grace, true); len(left) == 0 || w.m.ctx.Err() != nil {
			return false, left // it ended by itself, or is the next hive's
		}
	}
	for end := time.Now().Add(w.m.t.Kill); ; {
		// A process that is just being made can slip through.
		if w.signal(syscall.SIGKILL) == 0 {
			return killed, nil
		}
		killed = true
		if left = w.awaitGone(500*time.Millisecond, false); len(left) == 0 || time.Now().After(end) || w.m.ctx.Err() != nil {
			return killed, left
		}
	}
}

// endAll ends all processes of the worker, for as long as that takes. It gives
// those that are known, and reports whether SIGKILL was needed.
func (w *worker) endAll(kill bool) (ids []proc.ID, killed bool) {
	ids = w.processes()
	killed, left := w.endGroup(kill, w.m.t.Kill)
	for len(left) > 0 && w.m.ctx.Err() == nil {
		w.update(func(r *record) { r.Problem = stuck(left) })
		w.pause(time.Second)
		_, left = w.endGroup(true, 0)
	}
	return ids, killed
}

// signal signals every process of the worker once, and counts them.
func (w *worker) signal(sig syscall.Signal) int {
	members := w.members(true)
	leader := w.record().Process.PID
	held := w.child.Load().HoldsPID() && leader > 1
	if held && slices.ContainsFunc(members, func(p proc.Process) bool { return p.Group == leader }) {
		_ = syscall.Kill(-leader, sig) // what is left is seen afterwards
	}
	for _, p := range members {
		if held && p.Group == leader {
			continue
		}
		if err := p.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			w.m.log.Warn("a worker's process cannot be signaled", "pid", p.PID, "error", err)
		}
	}
	return len(members)
}

// awaitGone waits until no process of the worker is left, at most for limit; and,
// when they were asked gently, until somebody wants them killed.
func (w *worker) awaitGone(limit time.Duration, gentle bool) (left []proc.Process) {
	pauses := &backoff.ExponentialBackOff{InitialInterval: 5 * time.Millisecond, Multiplier: 2, MaxInterval: 100 * time.Millisecond}
	for end := time.Now().Add(limit); ; {
		// Only when nobody is left at first sight is it worth to look closely.
		if left = w.members(false); len(left) == 0 {
			left = w.members(true)
		}
		if len(left) == 0 || time.Now().After(end) || w.m.ctx.Err() != nil || gentle && w.options().Force {
			return left
		}
		w.pause(pauses.NextBackOff())
	}
}

// pause waits, but no longer than the manager lives.
func (w *worker) pause(d time.Duration) {
	select {
	case <-w.m.ctx.Done():
	case <-time.After(d):
	}
}
