package operations

import (
	"fmt"
	"strings"
	"time"
)

// EventType says what an event tells.
type EventType string

// The types of events.
const (
	EventPhase    EventType = "phase"    // a hive enters a phase
	EventPlan     EventType = "plan"     // the plan is made; Plan holds it
	EventStep     EventType = "step"     // a step begins, ends or fails
	EventProgress EventType = "progress" // bytes moved, for a step or a model
	EventNote     EventType = "note"     // something worth saying, in Message
	EventWorker   EventType = "worker"   // a worker process entered a state; Worker holds it
	EventLog      EventType = "log"      // a worker wrote Text
	EventToken    EventType = "token"    // a model answered Text, a part of its answer
)

// Phase is what is going on with a hive.
type Phase string

// The phases of a hive within one operation, in order. An operation ends every
// hive in done, failed or unreachable, and skips phases it has no need of.
const (
	PhaseConnecting  Phase = "connecting"
	PhaseReading     Phase = "reading"  // its state is being read
	PhaseWaiting     Phase = "waiting"  // another run holds its lock; Message says who
	PhaseApplying    Phase = "applying" // its steps are being done
	PhaseDone        Phase = "done"
	PhaseFailed      Phase = "failed"      // Error says why
	PhaseUnreachable Phase = "unreachable" // Error says why
)

// StepStatus is how far a step is.
type StepStatus string

// The states of a step.
const (
	StepStarted StepStatus = "started"
	StepDone    StepStatus = "done"
	StepFailed  StepStatus = "failed"  // Error says why
	StepSkipped StepStatus = "skipped" // an earlier step of the hive failed
)

// StepPhase is a part of a step. New parts may be added: treat an unknown one as work
// in progress.
type StepPhase string

// The parts of a step. A step skips those that it does not need, and may enter one
// more than once.
const (
	StepPhaseFetch       StepPhase = "fetch"       // this machine fetches an artifact that it will send
	StepPhaseSend        StepPhase = "send"        // this machine sends to the hive; bytes
	StepPhaseDownload    StepPhase = "download"    // the hive downloads; bytes
	StepPhaseUnpack      StepPhase = "unpack"      // the hive unpacks an archive (bytes) or wheels (packages)
	StepPhaseEnvironment StepPhase = "environment" // the hive creates the Python environment; packages
	StepPhaseCompile     StepPhase = "compile"     // the hive compiles Python files to bytecode; files
	StepPhaseCheck       StepPhase = "check"       // the hive computes checksums of files; files
	StepPhaseSync        StepPhase = "sync"        // the hive flushes files to disk
	StepPhaseVerify      StepPhase = "verify"      // the hive runs the recipe's check
	StepPhaseRemove      StepPhase = "remove"      // the hive removes files; files
)

// Event is one thing that happened while an operation runs.
type Event struct {
	// Time is when.
	Time time.Time `json:"time"`

	// Type says which of the following fields are meaningful.
	Type EventType `json:"type"`

	// Hive is the alias of the hive; empty for events about no single hive.
	Hive string `json:"hive,omitempty"`

	// Phase is set for [EventPhase].
	Phase Phase `json:"phase,omitempty"`

	// Step and StepStatus are set for [EventStep]; Step for the [EventProgress]
	// of a step too.
	Step       *Step      `json:"step,omitempty"`
	StepStatus StepStatus `json:"step_status,omitempty"`

	// Bytes have been moved so far, of Total; a Total of 0 is not known.
	Bytes int64 `json:"bytes,omitempty"`
	Total int64 `json:"total,omitempty"`

	// StepPhase is set for the [EventProgress] of a step: the current part of it.
	StepPhase StepPhase `json:"step_phase,omitempty"`

	// Count of CountTotal items are done, in a StepPhase that does not move bytes; a
	// CountTotal of 0 is not known. Unit is the plural of the items: "files" or
	// "packages". Without a Unit there is nothing to count.
	Count      int64  `json:"count,omitempty"`
	CountTotal int64  `json:"count_total,omitempty"`
	Unit       string `json:"unit,omitempty"`

	// Message is a line for a person. May be empty.
	Message string `json:"message,omitempty"`

	// Plan is set for [EventPlan].
	Plan *Plan `json:"plan,omitempty"`

	// Worker is set for [EventWorker].
	Worker *WorkerProcess `json:"worker,omitempty"`

	// Text is set for [EventLog] and [EventToken], as it is: white space counts,
	// and a log may hold anything.
	Text string `json:"text,omitempty"`

	// Error is set for failures.
	Error *Error `json:"error,omitempty"`
}

// String returns the event as one line for people, such as "gpu-1: install_worker vllm
// 0.33.0: done". Progress is a percentage, or a number of items; Bytes of an unknown Total
// are not in the line. For [EventLog] and [EventToken] it is the text itself.
func (e Event) String() string {
	var parts []string
	add := func(part string) {
		if part != "" {
			parts = append(parts, part)
		}
	}
	add(e.Hive)
	switch e.Type {
	case EventLog, EventToken:
		return e.Text
	case EventPhase:
		add(string(e.Phase))
	case EventPlan:
		if e.Plan != nil {
			add("plan: " + counted(len(e.Plan.Steps), "step") + ", " + counted(len(e.Plan.Drift), "difference"))
		}
	case EventStep:
		add(stepText(e.Step))
		add(string(e.StepStatus))
	case EventProgress:
		add(stepText(e.Step))
		add(strings.TrimSpace(string(e.StepPhase) + " " + e.progressText()))
	case EventWorker:
		if e.Worker != nil {
			add(fmt.Sprintf("worker %s: %s", e.Worker.ID, e.Worker.State))
		}
	}
	add(e.Message)
	if e.Error != nil {
		add(e.Error.Message)
	}
	return strings.Join(parts, ": ")
}

// counted returns a number with its noun: 1 step, 2 steps.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

func stepText(s *Step) string {
	if s == nil {
		return ""
	}
	version := s.Version
	if version == "" {
		version = s.From // what is removed
	}
	return strings.Join(strings.Fields(string(s.Action)+" "+s.Worker+" "+version), " ")
}

// progressText returns how far something is: a percentage where the total is known.
func (e Event) progressText() string {
	switch {
	case e.Total > 0:
		return fmt.Sprintf("%d%%", 100*e.Bytes/e.Total)
	case e.Unit != "" && e.CountTotal > 0:
		return fmt.Sprintf("%d of %d %s", e.Count, e.CountTotal, e.Unit)
	case e.Unit != "":
		return fmt.Sprintf("%d %s", e.Count, e.Unit)
	}
	return ""
}
