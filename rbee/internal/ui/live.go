package ui

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// redraw is how often the lines are drawn: often enough to look alive.
const redraw = 100 * time.Millisecond

// LiveOptions says where and how a [Live] draws.
type LiveOptions struct {
	W     io.Writer // the terminal
	Style Style

	// Size tells the terminal's columns and rows; nil stands for 80 and 24.
	Size func() (columns, rows int)

	// Now is the clock; nil is [time.Now].
	Now func() time.Time

	// Tick, if not nil, takes the place of a timer: each value draws once.
	Tick <-chan time.Time
}

// Live draws one line for each hive on a terminal and keeps it up to date: what
// the hive is doing, bytes moved, and seconds. It never draws more lines than
// the terminal has rows. All methods may be called from any goroutine.
type Live struct {
	o LiveOptions

	mu        sync.Mutex
	hives     map[string]*hiveLine
	notes     []string // lines to write above the drawing
	drawn     int      // lines on the terminal now
	suspended int
	closed    bool

	stop  chan struct{}
	ended chan struct{}
}

// hiveLine is what is known of a hive.
type hiveLine struct {
	alias        string
	phase        operations.Phase
	state        string // shown in place of the phase
	worker       string // that it starts; what it writes is shown
	text         string
	bytes, total int64
	meter        *meter // nil: speed is not shown
	began, ended time.Time
}

// NewLive starts to draw. Close must be called.
func NewLive(o LiveOptions) *Live {
	if o.Size == nil {
		o.Size = func() (int, int) { return 80, 24 }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Live{o: o, hives: map[string]*hiveLine{}, stop: make(chan struct{}), ended: make(chan struct{})}
	go l.run()
	return l
}

func (l *Live) run() {
	defer close(l.ended)
	tick := l.o.Tick
	if tick == nil {
		t := time.NewTicker(redraw)
		defer t.Stop()
		tick = t.C
	}
	for {
		select {
		case <-l.stop:
			return
		case <-tick:
			l.mu.Lock()
			l.draw()
			l.mu.Unlock()
		}
	}
}

// Handle takes an event over; it is drawn with the next tick.
func (l *Live) Handle(e operations.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.hives[e.Hive]; h != nil && h.worker != "" && e.Type == operations.EventNote {
		e.Type, e.Text = operations.EventLog, e.Message // what is noted while a worker loads is its log
	}
	if e.Type == operations.EventNote {
		l.notes = append(l.notes, oneLine(strings.TrimPrefix(e.Hive+": "+e.Message, ": ")))
		return
	}
	if e.Hive == "" {
		return
	}
	h := l.hives[e.Hive]
	if h == nil {
		h = &hiveLine{alias: oneLine(e.Hive), began: l.o.Now()}
		l.hives[e.Hive] = h
	}
	h.take(e, l.o.Now())
}

func (h *hiveLine) take(e operations.Event, now time.Time) {
	switch e.Type {
	case operations.EventPhase:
		*h = hiveLine{alias: h.alias, phase: e.Phase, text: oneLine(e.Message), began: h.began}
		if e.Error != nil {
			h.text = oneLine(e.Error.Message)
		}
	case operations.EventStep:
		h.bytes, h.total = 0, 0
		if e.Step != nil && e.StepStatus == operations.StepStarted {
			h.text = doing(*e.Step)
		} else {
			h.text = stepLine(e, true)
		}
	case operations.EventProgress:
		if e.Step != nil && e.StepPhase != "" {
			h.text, h.bytes, h.total = stepProgress(e), 0, 0
			break
		}
		h.bytes, h.total = e.Bytes, e.Total
		if e.Step == nil { // a model
			h.state, h.text = "downloading", oneLine(e.Message)
			if h.meter == nil {
				h.meter = &meter{}
			}
			h.meter.add(now, e.Bytes)
		}
	case operations.EventWorker:
		if e.Worker != nil {
			h.state, h.worker = string(e.Worker.State), oneLine(e.Worker.ID)
			h.text, h.bytes, h.total = oneLine(h.worker+format.Prefixed(": ", e.Worker.Problem)), 0, 0
		}
	case operations.EventLog:
		if said := lastLine(e.Text); said != "" {
			h.text = strings.TrimPrefix(h.worker+": "+said, ": ")
		}
	}
	if !h.over() {
		h.ended = time.Time{}
	} else if h.ended.IsZero() {
		h.ended = now
	}
}

// lastLine is the last line of a text that is not empty.
func lastLine(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r", "\n"), "\n")
	for _, line := range slices.Backward(lines) {
		if line = oneLine(printable(line)); line != "" {
			return line
		}
	}
	return ""
}

func (h *hiveLine) over() bool {
	switch operations.WorkerState(h.state) {
	case operations.WorkerReady, operations.WorkerStopped, operations.WorkerFailed:
		return true
	}
	if h.state != "" {
		return false
	}
	switch h.phase {
	case operations.PhaseDone, operations.PhaseFailed, operations.PhaseUnreachable:
		return true
	}
	return false
}

// frame lays the lines out: at most rows of them, each at most columns wide.
// Busy hives come first when there is not room for all.
func (l *Live) frame(columns, rows int, now time.Time) []string {
	hives := make([]*hiveLine, 0, len(l.hives))
	for _, h := range l.hives {
		hives = append(hives, h)
	}
	slices.SortFunc(hives, func(a, b *hiveLine) int { return strings.Compare(a.alias, b.alias) })
	rest := ""
	if rows = max(rows, 2); len(hives) > rows {
		hives, rest = busiest(hives, rows-1)
	}
	width := 0
	for _, h := range hives {
		width = max(width, utf8.RuneCountInString(h.alias))
	}
	width = min(width, max(columns/3, 8))
	lines := make([]string, 0, len(hives)+1)
	for _, h := range hives {
		lines = append(lines, h.line(l.o.Style, width, columns, now))
	}
	if rest != "" {
		lines = append(lines, cut(rest, columns))
	}
	return lines
}

// busiest keeps n hives, busy ones before those that are over, and words the rest.
func busiest(hives []*hiveLine, n int) (kept []*hiveLine, rest string) {
	var over []*hiveLine
	for _, h := range hives {
		if h.over() {
			over = append(over, h)
		} else {
			kept = append(kept, h)
		}
	}
	kept = append(kept, over...)[:n]
	left := len(hives) - n
	rest = fmt.Sprintf("… and %d more", left)
	if len(over) > 0 {
		rest += fmt.Sprintf(" (%d of %d ended)", len(over), len(hives))
	}
	return kept, rest
}

func (h *hiveLine) line(s Style, width, columns int, now time.Time) string {
	end := now
	if h.over() {
		end = h.ended
	}
	text := h.text
	if h.bytes > 0 || h.total > 0 {
		parts := []string{moved(h.bytes, h.total)}
		if h.meter != nil && !h.over() {
			parts = append(parts, h.meter.parts(now, h.total)...)
		}
		text = strings.TrimSpace(strings.Join(parts, "  ") + "  " + text)
	}
	alias := cut(h.alias, width)
	alias += strings.Repeat(" ", width-utf8.RuneCountInString(alias))
	state := fmt.Sprintf("%-11s", cmp.Or(h.state, string(h.phase)))
	took := fmt.Sprintf("%6s", format.Seconds(end.Sub(h.began).Seconds()))
	room := columns - 1 - utf8.RuneCountInString(alias+"  "+state+"  "+took+"  ")
	if room < 4 {
		return cut(alias+"  "+state, columns-1)
	}
	line := alias + "  " + s.paint(h.color(), state) + "  " + s.paint(format.Faint, took)
	if text != "" {
		line += "  " + cut(text, room)
	}
	return line
}

func (h *hiveLine) color() string {
	switch operations.WorkerState(h.state) {
	case operations.WorkerReady:
		return format.Green
	case operations.WorkerFailed:
		return format.Red
	}
	if h.state != "" {
		return format.Bold
	}
	switch h.phase {
	case operations.PhaseDone:
		return format.Green
	case operations.PhaseFailed, operations.PhaseUnreachable:
		return format.Red
	case operations.PhaseWaiting:
		return format.Yellow
	}
	return format.Bold
}

// draw replaces what is on the terminal by the current lines.
func (l *Live) draw() {
	if l.suspended > 0 || l.closed {
		return
	}
	var b strings.Builder
	l.erase(&b)
	for _, note := range l.notes {
		b.WriteString(note + "\n")
	}
	l.notes = nil
	columns, rows := l.o.Size()
	lines := l.frame(columns, rows-1, l.o.Now())
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	l.drawn = len(lines)
	_, _ = io.WriteString(l.o.W, b.String())
}

// erase takes the drawn lines away and leaves the cursor where they began.
func (l *Live) erase(b *strings.Builder) {
	if l.drawn > 0 {
		fmt.Fprintf(b, "\r\x1b[%dA\x1b[J", l.drawn)
		l.drawn = 0
	}
}

// Suspend implements [Progress].
func (l *Live) Suspend() (resume func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	l.erase(&b)
	_, _ = io.WriteString(l.o.W, b.String())
	l.suspended++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.suspended--
	})
}

// Close takes the lines off the terminal: the report says what they said. Notes
// that were not written yet are.
func (l *Live) Close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	var b strings.Builder
	l.erase(&b)
	for _, note := range l.notes {
		b.WriteString(note + "\n")
	}
	_, _ = io.WriteString(l.o.W, b.String())
	l.closed = true
	l.mu.Unlock()
	close(l.stop)
	<-l.ended
}
