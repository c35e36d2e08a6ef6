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

// redrawInterval is the time between two updates of the lines.
const redrawInterval = 100 * time.Millisecond

// LiveOptions configure a [Live].
type LiveOptions struct {
	W     io.Writer // the terminal
	Style Style

	// Size returns the columns and rows of the terminal; nil means 80 and 24.
	Size func() (columns, rows int)

	// Now is the clock; nil is [time.Now].
	Now func() time.Time

	// Tick, if not nil, replaces the timer: each value draws once.
	Tick <-chan time.Time
}

// Live draws one line per hive on a terminal and updates it: the state of the
// hive, transferred bytes and elapsed time. It never draws more lines than the
// terminal has rows. Its methods are safe for concurrent use.
type Live struct {
	o LiveOptions

	mu        sync.Mutex
	hives     map[string]*hiveLine
	notes     []string // lines to write above the drawing
	lineCount int      // lines on the terminal now
	suspended int
	closed    bool

	stop chan struct{} // closed by Close
	done chan struct{} // closed when run has returned
}

// hiveLine is the state of one hive.
type hiveLine struct {
	alias        string
	phase        operations.Phase
	state        string // shown instead of the phase
	worker       string // ID of the worker that is starting; its log is shown
	text         string
	bytes, total int64
	meter        *meter // nil: speed is not shown
	start, end   time.Time
}

// NewLive starts to draw. Close must be called.
func NewLive(o LiveOptions) *Live {
	if o.Size == nil {
		o.Size = func() (int, int) { return 80, 24 }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	l := &Live{o: o, hives: map[string]*hiveLine{}, stop: make(chan struct{}), done: make(chan struct{})}
	go l.run()
	return l
}

func (l *Live) run() {
	defer close(l.done)
	tick := l.o.Tick
	if tick == nil {
		t := time.NewTicker(redrawInterval)
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

// Handle processes an event; the next tick draws it.
func (l *Live) Handle(e operations.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.hives[e.Hive]; h != nil && h.worker != "" && e.Type == operations.EventNote {
		e.Type, e.Text = operations.EventLog, e.Message // notes of a loading worker are its log
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
		h = &hiveLine{alias: oneLine(e.Hive), start: l.o.Now()}
		l.hives[e.Hive] = h
	}
	h.update(e, l.o.Now())
}

// update applies an event.
func (h *hiveLine) update(e operations.Event, now time.Time) {
	switch e.Type {
	case operations.EventPhase:
		*h = hiveLine{alias: h.alias, phase: e.Phase, text: oneLine(e.Message), start: h.start}
		if e.Error != nil {
			h.text = oneLine(e.Error.Message)
		}
	case operations.EventStep:
		h.bytes, h.total = 0, 0
		if e.Step != nil && e.StepStatus == operations.StepStarted {
			h.text = gerund(*e.Step)
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
		if line := lastLine(e.Text); line != "" {
			h.text = strings.TrimPrefix(h.worker+": "+line, ": ")
		}
	}
	if !h.isFinished() {
		h.end = time.Time{}
	} else if h.end.IsZero() {
		h.end = now
	}
}

// lastLine returns the last line of text that is not empty, or "".
func lastLine(text string) string {
	lines := strings.Split(strings.ReplaceAll(text, "\r", "\n"), "\n")
	for _, line := range slices.Backward(lines) {
		if line = oneLine(printable(line)); line != "" {
			return line
		}
	}
	return ""
}

// isFinished reports whether the operation of the hive has ended.
func (h *hiveLine) isFinished() bool {
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

// frame returns at most rows lines, each at most columns wide. If not all hives fit,
// busy ones come first.
func (l *Live) frame(columns, rows int, now time.Time) []string {
	hives := make([]*hiveLine, 0, len(l.hives))
	for _, h := range l.hives {
		hives = append(hives, h)
	}
	slices.SortFunc(hives, func(a, b *hiveLine) int { return strings.Compare(a.alias, b.alias) })
	rest := ""
	if rows = max(rows, 2); len(hives) > rows {
		hives, rest = selectBusy(hives, rows-1)
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

// selectBusy returns n of the hives, busy ones before finished ones, and a text
// that counts the rest.
func selectBusy(hives []*hiveLine, n int) (kept []*hiveLine, rest string) {
	var finished []*hiveLine
	for _, h := range hives {
		if h.isFinished() {
			finished = append(finished, h)
		} else {
			kept = append(kept, h)
		}
	}
	kept = append(kept, finished...)[:n]
	left := len(hives) - n
	rest = fmt.Sprintf("… and %d more", left)
	if len(finished) > 0 {
		rest += fmt.Sprintf(" (%d of %d finished)", len(finished), len(hives))
	}
	return kept, rest
}

func (h *hiveLine) line(s Style, width, columns int, now time.Time) string {
	end := now
	if h.isFinished() {
		end = h.end
	}
	text := h.text
	if h.bytes > 0 || h.total > 0 {
		parts := []string{formatTransfer(h.bytes, h.total)}
		if h.meter != nil && !h.isFinished() {
			parts = append(parts, h.meter.parts(now, h.total)...)
		}
		text = strings.TrimSpace(strings.Join(parts, "  ") + "  " + text)
	}
	alias := cut(h.alias, width)
	alias += strings.Repeat(" ", width-utf8.RuneCountInString(alias))
	state := fmt.Sprintf("%-11s", cmp.Or(h.state, string(h.phase)))
	elapsed := fmt.Sprintf("%6s", format.Seconds(end.Sub(h.start).Seconds()))
	available := columns - 1 - utf8.RuneCountInString(alias+"  "+state+"  "+elapsed+"  ")
	if available < 4 {
		return cut(alias+"  "+state, columns-1)
	}
	line := alias + "  " + s.paint(h.color(), state) + "  " + s.paint(format.Faint, elapsed)
	if text != "" {
		line += "  " + cut(text, available)
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

// draw replaces the lines on the terminal with the current ones.
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
	l.lineCount = len(lines)
	_, _ = io.WriteString(l.o.W, b.String())
}

// erase removes the drawn lines and moves the cursor to their start.
func (l *Live) erase(b *strings.Builder) {
	if l.lineCount > 0 {
		fmt.Fprintf(b, "\r\x1b[%dA\x1b[J", l.lineCount)
		l.lineCount = 0
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

// Close removes the lines from the terminal, since the report has the same
// information, and writes pending notes.
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
	<-l.done
}
