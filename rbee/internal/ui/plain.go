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

	// Suspend removes the drawing from the terminal until resume is called, so
	// that messages and prompts can be written.
	Suspend() (resume func())

	// Close ends the drawing. Handle must not be called afterward.
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

// Plain writes events as lines of text, for outputs that are not a terminal. It
// reports the progress of transfers periodically. It omits the cause of a failure,
// since the final report or error contains it. Its methods are safe for concurrent
// use.
type Plain struct {
	W       io.Writer
	Verbose bool // also write phases and the logs of workers

	mu     sync.Mutex
	models map[string]*plainModel // by hive
	steps  map[string]*plainStep  // by hive
}

// plainModel is the state of the last line about a download.
type plainModel struct {
	meter  meter
	at     time.Time // time of the line
	tenths int64
}

const (
	minLineInterval = 2 * time.Second  // minimum time between two lines about a transfer
	maxLineInterval = 30 * time.Second // maximum time between two lines about a running transfer
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
			return "cannot " + infinitive(*e.Step)
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

// progress returns a line about a download after each tenth of it and after
// maxLineInterval, and "" otherwise.
func (p *Plain) progress(e operations.Event) string {
	m := p.models[e.Hive]
	if m == nil || e.Bytes < m.meter.bytes {
		m = &plainModel{at: e.Time}
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
	since := e.Time.Sub(m.at)
	if since < minLineInterval || tenths == m.tenths && since < maxLineInterval {
		return ""
	}
	m.at, m.tenths = e.Time, tenths
	parts := append([]string{formatTransfer(e.Bytes, e.Total)}, m.meter.parts(e.Time, e.Total)...)
	return strings.Join(parts, ", ") + format.Prefixed(": ", e.Message)
}

// stepLine describes the status of a step; it is empty for a start unless verbose.
func stepLine(e operations.Event, verbose bool) string {
	if e.Step == nil {
		return ""
	}
	switch e.StepStatus {
	case operations.StepStarted:
		if !verbose {
			return ""
		}
		return gerund(*e.Step)
	case operations.StepDone:
		return pastTense(*e.Step)
	case operations.StepFailed:
		if e.Error != nil {
			return "cannot " + infinitive(*e.Step) + ": " + e.Error.Message
		}
		return "cannot " + infinitive(*e.Step)
	case operations.StepSkipped:
		return "skipped: " + infinitive(*e.Step)
	}
	return ""
}

// Suspend does nothing.
func (*Plain) Suspend() func() { return func() {} }

// Close does nothing.
func (*Plain) Close() {}
