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

// load waits until the worker serves. There is no limit but that of silence: a
// large model may take as long as it takes, while the log or the memory moves.
func (w *worker) load() {
	r := w.record()
	ctx, cancel := w.untilStopped()
	defer cancel()
	stall := w.m.t.Stall
	if r.Launch.StallSeconds > 0 {
		stall = seconds(r.Launch.StallSeconds)
	}
	v := w.watchOver(ctx, stall)
	pauses := &backoff.ExponentialBackOff{InitialInterval: 2 * time.Millisecond, Multiplier: 1.25, MaxInterval: 250 * time.Millisecond}
	var prepared chan error // nil until it answers
	for {
		if prepared == nil && engine.Probe(ctx, r.Port, r.Launch) && !w.over() {
			if pid, known := w.listener(r.Port); known && pid == 0 {
				w.retry = r.AskedPort == 0
				w.fail(fmt.Sprintf("port %d is answered by a process that is not the worker's", r.Port))
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
			if w.over() || ctx.Err() != nil {
				break // which says more than that a request failed
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
			w.drainNow()
			return
		case <-w.child.Load().Ended:
			// A port that somebody else was faster to take is worth another try.
			w.retry = r.AskedPort == 0 && engine.PortTaken(ctx, r.Port)
			w.fail("")
			return
		case <-time.After(pauses.NextBackOff()):
		}
		if silent := v.look(ctx); silent > stall {
			w.fail(fmt.Sprintf("it did not become ready: for %s neither its log nor its memory moved", silent.Round(time.Second/10)))
			return
		}
	}
}

func (w *worker) over() bool {
	select {
	case <-w.child.Load().Ended:
		return true
	default:
		return false
	}
}

// signs are what moves while a worker loads.
type signs struct {
	log    int64 // bytes
	memory int64 // MiB of its processes together
	device int64 // MiB on devices
}

// vigil is what is done now and then while a worker loads: who belongs to it is
// noted, its log kept small, and signs of life looked for.
type vigil struct {
	w                    *worker
	lookEvery, signEvery time.Duration
	looked, asked, alive time.Time // last looked, last looked for signs, last seen any
	life                 signs
}

// watchOver begins a vigil.
func (w *worker) watchOver(ctx context.Context, stall time.Duration) *vigil {
	v := &vigil{w: w, lookEvery: min(logEvery, stall/4), alive: time.Now()}
	if v.signEvery = v.lookEvery; len(w.record().Devices) > 0 {
		v.signEvery = min(5*time.Second, stall/4) // the vendors' tools are asked each time
	}
	v.look(ctx)
	return v
}

// look does what is due, and tells how long the worker has shown no sign of life.
func (v *vigil) look(ctx context.Context) (silent time.Duration) {
	now := time.Now()
	if now.Sub(v.looked) < v.lookEvery {
		return 0
	}
	first := v.looked.IsZero()
	v.looked = now
	members := v.w.members(false)
	v.w.note(members)
	if due := now.Sub(v.asked) >= v.signEvery; due {
		v.asked = now
		if life := v.w.life(ctx, members); life != v.life {
			v.life, v.alive = life, now
		}
		silent = now.Sub(v.alive)
	}
	if !first { // before its process was made, that was done without losing a line
		v.w.m.rotateLog(v.w.record().ID)
	}
	return silent
}

func (w *worker) life(ctx context.Context, members []proc.Process) (s signs) {
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
	list, _ := w.m.o.Processes(ctx) // what is not known does not move
	for _, held := range list {
		for _, p := range members {
			if held.PID == p.PID && held.Memory != nil {
				s.device += int64(*held.Memory >> 20)
			}
		}
	}
	return s
}

// listener is the worker's process that listens on its port.
func (w *worker) listener(port int) (pid int, known bool) {
	var pids []int
	for _, p := range w.members(true) {
		pids = append(pids, p.PID)
	}
	return proc.Listener(port, pids)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
