// Package progress reports how far a step of a request is.
package progress

import (
	"context"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// MaxInterval is the longest time between two reports of a step, so that one whose
// counts do not change still shows that the machine works.
const MaxInterval = time.Second

// MinInterval is the shortest time between two reports of one phase.
const MinInterval = 200 * time.Millisecond

// Heartbeat repeats the last report of a step when nothing was sent for [MaxInterval].
// The zero value has nothing to repeat.
type Heartbeat struct {
	mu     sync.Mutex
	last   *wire.Progress
	sent   time.Time
	paused bool
}

// RecordSent remembers what was sent.
func (h *Heartbeat) RecordSent(m wire.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent = time.Now()
	if m.Progress != nil {
		h.last = m.Progress
	}
}

// Reset sets the report that is repeated until there is another; nil if there is none.
func (h *Heartbeat) Reset(p *wire.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.sent = p, time.Now()
}

// Pause stops the repeats until resume: while the other side sends, it knows best how
// much it has sent.
func (h *Heartbeat) Pause() (resume func()) {
	set := func(paused bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.paused, h.sent = paused, time.Now()
	}
	set(true)
	return func() { set(false) }
}

// Due returns the report that has to be repeated now; nil if none has.
func (h *Heartbeat) Due() *wire.Progress {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paused || time.Since(h.sent) < MaxInterval-MinInterval {
		return nil
	}
	return h.last
}

// Phase reports how far one phase of a step is. Its methods may be called from several
// goroutines, and on a nil phase, which reports nothing.
type Phase struct {
	send func(wire.Message)

	mu   sync.Mutex
	p    wire.Progress
	sent time.Time
}

// New returns a phase and reports that it begins.
func New(send func(wire.Message), p wire.Progress) *Phase {
	ph := &Phase{send: send, p: p}
	ph.report(true)
	return ph
}

// NewSilent returns a phase that reports nothing before the first [MinInterval] has passed.
func NewSilent(send func(wire.Message), p wire.Progress) *Phase {
	return &Phase{send: send, p: p, sent: time.Now()}
}

// report sends the phase unless it was sent a moment ago.
func (ph *Phase) report(always bool) {
	ph.mu.Lock()
	defer ph.mu.Unlock()
	ph.reportLocked(always)
}

func (ph *Phase) reportLocked(always bool) {
	if !always && time.Since(ph.sent) < MinInterval {
		return
	}
	ph.sent = time.Now()
	p := ph.p
	ph.send(wire.Message{Progress: &p})
}

// Add counts n more items, or bytes in a phase without a unit.
func (ph *Phase) Add(n int64) {
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

// SetTotal sets how many items there are.
func (ph *Phase) SetTotal(n int64) {
	if ph == nil {
		return
	}
	ph.mu.Lock()
	defer ph.mu.Unlock()
	ph.p.CountTotal = n
}

// AddTotal adds n to the number of items.
func (ph *Phase) AddTotal(n int64) {
	if ph == nil {
		return
	}
	ph.mu.Lock()
	defer ph.mu.Unlock()
	ph.p.CountTotal += n
}

// Update turns to another phase of the same step, or updates its counts. Another phase
// is reported at once.
func (ph *Phase) Update(p wire.Progress) {
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

// NewContext returns a context whose work counts in ph.
func NewContext(ctx context.Context, ph *Phase) context.Context {
	return context.WithValue(ctx, phaseKey{}, ph)
}

// Of returns the phase in which the work of ctx counts; nil if none does.
func FromContext(ctx context.Context) *Phase {
	ph, _ := ctx.Value(phaseKey{}).(*Phase)
	return ph
}
