package ui

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Progress draws the events of one operation. Handle is an [operations.Handler].
type Progress interface {
	Handle(operations.Event)

	// Suspend takes the drawing off the terminal, so that something else can
	// be written or asked there, until resume is called.
	Suspend() (resume func())

	// Close ends the drawing. Handle must not be called after it.
	Close()
}

// Silent draws nothing.
type Silent struct{}

// Handle does nothing.
func (Silent) Handle(operations.Event) {}

// Suspend does nothing.
func (Silent) Suspend() func() { return func() {} }

// Close does nothing.
func (Silent) Close() {}

// Plain writes one line of text for each event that tells something, for
// outputs that are no terminal. Of bytes that move it tells now and then. The
// zero value of Verbose leaves phases and what workers write out. The cause of a
// failure is left to the report or the error that ends the operation, which show it
// once. Its methods may be called from any goroutine.
type Plain struct {
	W       io.Writer
	Verbose bool // every phase too

	mu     sync.Mutex
	models map[string]*plainModel // by hive
	steps  map[string]*plainStep  // by hive
}

// plainModel is what was told of a download.
type plainModel struct {
	meter  meter
	told   time.Time
	tenths int64
}

const (
	plainPause = 2 * time.Second  // the shortest time between two lines on a download
	plainLong  = 30 * time.Second // the longest, while there is something to tell
)

// Handle writes the event's line, if it has one.
func (p *Plain) Handle(e operations.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := p.line(e)
	if text == "" {
		return
	}
	if e.Hive != "" {
		text = e.Hive + ": " + text
	}
	fmt.Fprintln(p.W, oneLine(text))
}

func (p *Plain) line(e operations.Event) string {
	switch e.Type {
	case operations.EventPhase:
		switch {
		case e.Error != nil && p.Verbose:
			return string(e.Phase)
		case e.Error != nil:
			return ""
		case e.Phase == operations.PhaseWaiting || p.Verbose:
			return string(e.Phase) + format.Prefixed(": ", e.Message)
		}
	case operations.EventStep:
		delete(p.steps, e.Hive)
		switch {
		case e.StepStatus == operations.StepFailed && e.Step != nil && p.Verbose:
			return "cannot " + todo(*e.Step)
		case e.StepStatus == operations.StepFailed:
			return ""
		}
		return stepLine(e, p.Verbose)
	case operations.EventNote:
		return e.Message
	case operations.EventProgress:
		if e.Step == nil {
			return p.progress(e)
		}
		return p.step(e)
	case operations.EventWorker:
		switch {
		case e.Worker == nil:
		case e.Worker.State != operations.WorkerFailed:
			return e.Worker.ID + ": " + string(e.Worker.State) + format.Prefixed(": ", e.Worker.Problem)
		case p.Verbose:
			return e.Worker.ID + ": " + string(e.Worker.State)
		}
	case operations.EventLog:
		if p.Verbose {
			return lastLine(e.Text)
		}
	}
	return ""
}

// progress tells of a download for each tenth of it, and when nothing was told
// for long.
func (p *Plain) progress(e operations.Event) string {
	m := p.models[e.Hive]
	if m == nil || e.Bytes < m.meter.bytes {
		m = &plainModel{told: e.Time}
		if p.models == nil {
			p.models = map[string]*plainModel{}
		}
		p.models[e.Hive] = m
	}
	m.meter.add(e.Time, e.Bytes)
	tenths := int64(0)
	if e.Total > 0 {
		tenths = int64(float64(e.Bytes) / float64(e.Total) * 10)
	}
	since := e.Time.Sub(m.told)
	if since < plainPause || tenths == m.tenths && since < plainLong {
		return ""
	}
	m.told, m.tenths = e.Time, tenths
	parts := append([]string{moved(e.Bytes, e.Total)}, m.meter.parts(e.Time, e.Total)...)
	return strings.Join(parts, ", ") + format.Prefixed(": ", e.Message)
}

func stepLine(e operations.Event, verbose bool) string {
	if e.Step == nil {
		return ""
	}
	switch e.StepStatus {
	case operations.StepStarted:
		if !verbose {
			return ""
		}
		return doing(*e.Step)
	case operations.StepDone:
		return done(*e.Step)
	case operations.StepFailed:
		if e.Error != nil {
			return "cannot " + todo(*e.Step) + ": " + e.Error.Message
		}
		return "cannot " + todo(*e.Step)
	case operations.StepSkipped:
		return "skipped: " + todo(*e.Step)
	}
	return ""
}

// Suspend does nothing: lines need no room.
func (*Plain) Suspend() func() { return func() {} }

// Close does nothing.
func (*Plain) Close() {}
