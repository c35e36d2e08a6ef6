package client

import (
	"encoding/json"
	"net/url"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// JobState is how far a job is.
type JobState string

// The states of a job. A running one ends in exactly one of the others and
// stays there.
const (
	JobRunning  JobState = "running"
	JobDone     JobState = "done"     // it ended in a report, whatever its outcome
	JobFailed   JobState = "failed"   // it ended in an error
	JobCanceled JobState = "canceled" // it was canceled before all was done; it may have a report
)

// Job is one operation that a queen or a hive does, or has done, for a [Client].
// It tells what is worked on, never prompts, variables or tokens.
type Job struct {
	// ID names the job. It is made by the server and never used again.
	ID string `json:"id"`

	// RequestID is by what the logs here and elsewhere name what is done: as
	// [RequestID] has it. Empty from an rbee that does not tell.
	RequestID string `json:"request_id,omitempty"`

	// Operation is what is done.
	Operation operations.Kind `json:"operation"`

	// HiveID is the alias of the one hive that the operation names; empty for
	// none or several.
	HiveID string `json:"hive_id,omitempty"`

	// Model is the model that the operation names, an address without its
	// query; Worker is the worker type or the worker's id. Empty if it names none.
	Model  string `json:"model,omitempty"`
	Worker string `json:"worker,omitempty"`

	State JobState `json:"state"`

	// CreatedAt is when it was begun and EndedAt when it ended, by the clock of
	// the server. EndedAt is zero while it runs.
	CreatedAt time.Time `json:"created_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`

	// Events is the id of its last event: how many there were. Ids count from 1.
	Events int64 `json:"events"`

	// Outcome is that of its report; empty without one.
	Outcome operations.Outcome `json:"outcome,omitempty"`

	// Error is the error that it ended with; nil if it has none.
	Error *operations.Error `json:"error,omitempty"`

	// Report is what it ended with. Only [Client.Job] gives it, and only for
	// kinds of operations that this rbee knows.
	Report operations.Report `json:"report,omitempty"`
}

// NewJob describes an operation that begins now, as a running job without a time.
func NewJob(id string, op operations.Operation) Job {
	job := Job{ID: id, Operation: op.Kind(), State: JobRunning}
	var words struct {
		HiveID string             `json:"hive_id"`
		Alias  string             `json:"alias"`
		Hives  operations.Aliases `json:"hive_alias"`
		Model  string             `json:"model"`
		Worker string             `json:"worker"`
		ID     string             `json:"id"`
	}
	data, err := op.MarshalJSON()
	if err != nil || json.Unmarshal(data, &words) != nil {
		return job // without its words it is a job still
	}
	job.HiveID, job.Model, job.Worker = words.HiveID, plainAddress(words.Model), words.Worker
	if words.Alias != "" {
		job.HiveID = words.Alias
	}
	if len(words.Hives) == 1 {
		job.HiveID = words.Hives[0]
	}
	switch job.Operation {
	case operations.KindModelGet, operations.KindModelDelete:
		job.Model = plainAddress(words.ID)
	case operations.KindWorkerProcessGet, operations.KindWorkerProcessDelete, operations.KindWorkerProcessLogs:
		job.Worker = words.ID
	default: // no other operation has an id
	}
	return job
}

// plainAddress takes away what may be secret in an address. Names that are no
// addresses stay as they are.
func plainAddress(name string) string {
	u, err := url.Parse(name)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return name
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// UnmarshalJSON reads a job, with the report of the type that its operation has.
func (j *Job) UnmarshalJSON(data []byte) error {
	type fields Job // without this method
	in := struct {
		*fields
		Report json.RawMessage `json:"report"` // hides the one of fields
	}{fields: (*fields)(j)}
	if err := json.Unmarshal(data, &in); err != nil {
		return err
	}
	j.Report = nil
	if len(in.Report) == 0 || string(in.Report) == "null" || !slices.Contains(operations.Kinds(), j.Operation) {
		return nil
	}
	var err error
	j.Report, err = operations.ParseReport(j.Operation, in.Report)
	return err
}
