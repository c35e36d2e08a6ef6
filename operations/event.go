package operations

import (
	"fmt"
	"strings"
	"time"
)

// EventType is the type of an [Event].
type EventType string

// The types of events.
const (
	EventPhase    EventType = "phase"    // a hive enters Phase
	EventPlan     EventType = "plan"     // the operation computed Plan
	EventStep     EventType = "step"     // Step starts, completes or fails
	EventProgress EventType = "progress" // a step or a model download makes progress
	EventNote     EventType = "note"     // Message is information for the user
	EventWorker   EventType = "worker"   // a worker process changes state; Worker is its new state
	EventLog      EventType = "log"      // Text is output of a worker process
	EventToken    EventType = "token"    // Text is a part of a model's answer
)

// Phase is the progress of an operation on one hive.
type Phase string

// The phases of a hive within one operation, in order. The last phase of every hive is
// done, failed or unreachable. An operation skips phases that it does not need.
const (
	PhaseConnecting  Phase = "connecting"  // connecting to the hive
	PhaseReading     Phase = "reading"     // reading the state of the hive
	PhaseWaiting     Phase = "waiting"     // waiting for the lock of the hive; Message names its holder
	PhaseApplying    Phase = "applying"    // executing the steps of the plan
	PhaseDone        Phase = "done"        // finished without an error
	PhaseFailed      Phase = "failed"      // failed; Error is the cause
	PhaseUnreachable Phase = "unreachable" // cannot reach the hive; Error is the cause
)

// StepStatus is the status of a step.
type StepStatus string

// The states of a step.
const (
	StepStarted StepStatus = "started" // in progress
	StepDone    StepStatus = "done"    // completed
	StepFailed  StepStatus = "failed"  // failed; Error is the cause
	StepSkipped StepStatus = "skipped" // not started because an earlier step of the hive failed
)

// StepPhase is a phase of a step. Later versions may add phases. Treat an unknown phase
// as work in progress.
type StepPhase string

// The phases of a step. A step skips phases that it does not need, and may enter a phase
// more than once.
const (
	StepPhaseFetch       StepPhase = "fetch"       // this machine downloads an artifact to send to the hive
	StepPhaseSend        StepPhase = "send"        // this machine sends data to the hive; counts bytes
	StepPhaseDownload    StepPhase = "download"    // the hive downloads an artifact; counts bytes
	StepPhaseUnpack      StepPhase = "unpack"      // the hive unpacks an archive (bytes) or wheels (packages)
	StepPhaseEnvironment StepPhase = "environment" // the hive creates the Python environment; counts packages
	StepPhaseCompile     StepPhase = "compile"     // the hive compiles Python files to bytecode; counts files
	StepPhaseCheck       StepPhase = "check"       // the hive computes checksums of files; counts files
	StepPhaseSync        StepPhase = "sync"        // the hive flushes files to disk
	StepPhaseVerify      StepPhase = "verify"      // the hive runs the verify command of the recipe
	StepPhaseRemove      StepPhase = "remove"      // the hive removes files; counts files
)

// Event reports the progress of a running operation.
type Event struct {
	// Time is the time of the event.
	Time time.Time `json:"time"`

	// Type determines which of the following fields are set.
	Type EventType `json:"type"`

	// Hive is the alias of the hive. Empty if the event does not concern a single hive.
	Hive string `json:"hive,omitempty"`

	// Phase is set for [EventPhase].
	Phase Phase `json:"phase,omitempty"`

	// Step and StepStatus are set for [EventStep]. Step is also set for the
	// [EventProgress] of a step.
	Step       *Step      `json:"step,omitempty"`
	StepStatus StepStatus `json:"step_status,omitempty"`

	// Bytes is the number of bytes transferred so far, out of Total. Total is 0 if it
	// is not known.
	Bytes int64 `json:"bytes,omitempty"`
	Total int64 `json:"total,omitempty"`

	// StepPhase is the current phase of the step, for the [EventProgress] of a step.
	StepPhase StepPhase `json:"step_phase,omitempty"`

	// Count is the number of items completed so far, out of CountTotal, in a StepPhase
	// that does not count bytes. CountTotal is 0 if it is not known. Unit is "files"
	// or "packages"; it is empty if the phase does not count items.
	Count      int64  `json:"count,omitempty"`
	CountTotal int64  `json:"count_total,omitempty"`
	Unit       string `json:"unit,omitempty"`

	// Message is a line of text for the user. May be empty.
	Message string `json:"message,omitempty"`

	// Plan is set for [EventPlan].
	Plan *Plan `json:"plan,omitempty"`

	// Worker is set for [EventWorker].
	Worker *WorkerProcess `json:"worker,omitempty"`

	// Text is set for [EventLog] and [EventToken]. White space is significant. The text
	// of a log may contain control characters.
	Text string `json:"text,omitempty"`

	// Error is set for failures.
	Error *Error `json:"error,omitempty"`
}

// String returns the event as one line of text, such as "gpu-1: install_worker vllm
// 0.33.0: done". Progress is shown as a percentage or a number of items; Bytes is omitted
// if Total is not known. For [EventLog] and [EventToken], String returns Text.
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
			add("plan: " + pluralize(len(e.Plan.Steps), "step") + ", " + pluralize(len(e.Plan.Drift), "difference"))
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

// pluralize returns n followed by the noun: "1 step", "2 steps".
func pluralize(n int, noun string) string {
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
		version = s.From // of a step that removes a component
	}
	return strings.Join(strings.Fields(string(s.Action)+" "+s.Worker+" "+version), " ")
}

// progressText returns a percentage, a number of items, or "".
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
