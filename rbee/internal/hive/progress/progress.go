// Package progress reports the progress of the steps of a request.
package progress

import (
	"context"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// MaxInterval is the longest time between two reports of a step. A step whose counts do
// not change repeats its last report, to show that it is still running.
const MaxInterval = time.Second

// MinInterval is the shortest time between two reports of the same phase.
const MinInterval = 200 * time.Millisecond

// Heartbeat determines when to repeat the last report of a step, so that a message is sent
// at least once per [MaxInterval]. The zero value repeats no report.
type Heartbeat struct {
	mu     sync.Mutex
	last   *wire.Progress
	sent   time.Time
	paused bool
}

// RecordSent records that m was sent.
func (h *Heartbeat) RecordSent(m wire.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent = time.Now()
	if m.Progress != nil {
		h.last = m.Progress
	}
}

// Reset sets the report to repeat until the next report is sent; nil means no report.
func (h *Heartbeat) Reset(p *wire.Progress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last, h.sent = p, time.Now()
}

// Pause stops the repetition until resume is called. Reports are not needed while the client
// uploads, because the client knows its own progress.
func (h *Heartbeat) Pause() (resume func()) {
	set := func(paused bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.paused, h.sent = paused, time.Now()
	}
	set(true)
	return func() { set(false) }
}

// Due returns the report to repeat now; nil if no report is due.
func (h *Heartbeat) Due() *wire.Progress {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paused || time.Since(h.sent) < MaxInterval-MinInterval {
		return nil
	}
	return h.last
}

// Phase reports the progress of one phase of a step. Its methods are safe for concurrent
// use. A nil Phase reports nothing.
type Phase struct {
	send func(wire.Message)

	mu   sync.Mutex
	p    wire.Progress
	sent time.Time
}

// New returns a phase and reports its start.
func New(send func(wire.Message), p wire.Progress) *Phase {
	ph := &Phase{send: send, p: p}
	ph.report(true)
	return ph
}

// NewSilent returns a phase that sends its first report after [MinInterval].
func NewSilent(send func(wire.Message), p wire.Progress) *Phase {
	return &Phase{send: send, p: p, sent: time.Now()}
}

// report sends the counts of the phase. Unless force is set, it does nothing within
// [MinInterval] of the last report.
func (ph *Phase) report(force bool) {
	ph.mu.Lock()
	defer ph.mu.Unlock()
	ph.reportLocked(force)
}

func (ph *Phase) reportLocked(force bool) {
	if !force && time.Since(ph.sent) < MinInterval {
		return
	}
	ph.sent = time.Now()
	p := ph.p
	ph.send(wire.Message{Progress: &p})
}

// Add adds n to the count of finished items, or of bytes in a phase without a unit.
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

// SetTotal sets the total number of items.
func (ph *Phase) SetTotal(n int64) {
	if ph == nil {
		return
	}
	ph.mu.Lock()
	defer ph.mu.Unlock()
	ph.p.CountTotal = n
}

// AddTotal adds n to the total number of items.
func (ph *Phase) AddTotal(n int64) {
	if ph == nil {
		return
	}
	ph.mu.Lock()
	defer ph.mu.Unlock()
	ph.p.CountTotal += n
}

// Update replaces the phase and its counts with the values in p, and keeps the index of the
// step. It reports a change of the phase immediately.
func (ph *Phase) Update(p wire.Progress) {
	if ph == nil {
		return
	}
	ph.mu.Lock()
	defer ph.mu.Unlock()
	changed := p.Phase != ph.p.Phase
	p.Index = ph.p.Index
	ph.p = p
	ph.reportLocked(changed)
}

// phaseKey is the context key of the phase.
type phaseKey struct{}

// NewContext returns a context that carries ph.
func NewContext(ctx context.Context, ph *Phase) context.Context {
	return context.WithValue(ctx, phaseKey{}, ph)
}

// FromContext returns the phase that ctx carries; nil if it carries none.
func FromContext(ctx context.Context) *Phase {
	ph, _ := ctx.Value(phaseKey{}).(*Phase)
	return ph
}
