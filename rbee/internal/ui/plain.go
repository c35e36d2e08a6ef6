package ui

import (
	"fmt"
	"io"

	"github.com/rbee-keeper/rbee/operations"
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
// outputs that are no terminal. The zero value of Verbose leaves phases out.
type Plain struct {
	W       io.Writer
	Verbose bool // every phase too
}

// Handle writes the event's line, if it has one.
func (p Plain) Handle(e operations.Event) {
	text := p.line(e)
	if text == "" {
		return
	}
	if e.Hive != "" {
		text = e.Hive + ": " + text
	}
	fmt.Fprintln(p.W, oneLine(text))
}

func (p Plain) line(e operations.Event) string {
	switch e.Type {
	case operations.EventPhase:
		switch {
		case e.Error != nil:
			return string(e.Phase) + ": " + e.Error.Message
		case e.Phase == operations.PhaseWaiting || p.Verbose:
			return string(e.Phase) + prefixed(": ", e.Message)
		}
	case operations.EventStep:
		return stepLine(e, p.Verbose)
	case operations.EventNote:
		return e.Message
	}
	return ""
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
func (Plain) Suspend() func() { return func() {} }

// Close does nothing.
func (Plain) Close() {}
