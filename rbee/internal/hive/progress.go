package hive

import (
	"context"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// progressBeat is the longest time between two reports of a step, so that one whose
// counts do not change still shows that the machine works.
const progressBeat = time.Second

// progressEvery is the shortest time between two reports of one phase.
const progressEvery = 200 * time.Millisecond

// heartbeat repeats the last report of a step when nothing was sent for progressBeat.
// The zero value has nothing to repeat.
type heartbeat struct {
	mu     sync.Mutex
	last   *wire.Progress
	sent   time.Time
	paused bool
}

// note remembers what was sent.
func (h *heartbeat) note(m wire.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent = time.Now()
	if m.Progress != nil {
		h.last = m.Progress
	}
}

// reset sets the report that is repeated until there is another; nil if there is none.
func (h *heartbeat) reset(p *wire.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.sent = p, time.Now()
}

// pause stops the repeats until resume: while the other side sends, it knows best how
// much it has sent.
func (h *heartbeat) pause() (resume func()) {
	set := func(paused bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.paused, h.sent = paused, time.Now()
	}
	set(true)
	return func() { set(false) }
}

// due returns the report that has to be repeated now; nil if none has.
func (h *heartbeat) due() *wire.Progress {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paused || time.Since(h.sent) < progressBeat-progressEvery {
		return nil
	}
	return h.last
}

// phase reports how far one phase of a step is. Its methods may be called from several
// goroutines, and on a nil phase, which reports nothing.
type phase struct {
	send func(wire.Message)

	mu   sync.Mutex
	p    wire.Progress
	sent time.Time
}

// newPhase returns a phase and reports that it begins.
func newPhase(send func(wire.Message), p wire.Progress) *phase {
	ph := &phase{send: send, p: p}
	ph.report(true)
	return ph
}

// newSilentPhase returns a phase that reports nothing before the first progressEvery
// has passed.
func newSilentPhase(send func(wire.Message), p wire.Progress) *phase {
	return &phase{send: send, p: p, sent: time.Now()}
}

// report sends the phase unless it was sent a moment ago.
func (ph *phase) report(always bool) {
	ph.mu.Lock()
	defer ph.mu.Unlock()
	ph.reportLocked(always)
}

func (ph *phase) reportLocked(always bool) {
	if !always && time.Since(ph.sent) < progressEvery {
		return
	}
	ph.sent = time.Now()
	p := ph.p
	ph.send(wire.Message{Progress: &p})
}

// add counts n more items, or bytes in a phase without a unit.
func (ph *phase) add(n int64) {
	if ph == nil {
		return
	}
	ph.mu.Lock()
	defer ph.mu.Unlock()
	if ph.p.Unit == "" {
		ph.p.Bytes += n
	} else {
		ph.p.Count += n
	}
	ph.reportLocked(false)
}

// total sets how many items there are.
func (ph *phase) total(n int64) {
	if ph == nil {
		return
	}
	ph.mu.Lock()
	defer ph.mu.Unlock()
	ph.p.CountTotal = n
}

// addTotal adds n to the number of items.
func (ph *phase) addTotal(n int64) {
	if ph == nil {
		return
	}
	ph.mu.Lock()
	defer ph.mu.Unlock()
	ph.p.CountTotal += n
}

// become turns to another phase of the same step, or updates its counts. Another phase
// is reported at once.
func (ph *phase) become(p wire.Progress) {
	if ph == nil {
		return
	}
	ph.mu.Lock()
	defer ph.mu.Unlock()
	other := p.Phase != ph.p.Phase
	p.Index = ph.p.Index
	ph.p = p
	ph.reportLocked(other)
}

// phaseKey is the key of a context's phase.
type phaseKey struct{}

// withPhase returns a context whose work counts in ph.
func withPhase(ctx context.Context, ph *phase) context.Context {
	return context.WithValue(ctx, phaseKey{}, ph)
}

// phaseOf returns the phase in which the work of ctx counts; nil if none does.
func phaseOf(ctx context.Context) *phase {
	ph, _ := ctx.Value(phaseKey{}).(*phase)
	return ph
}
