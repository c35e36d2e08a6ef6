package client

import (
	"encoding/json"
	"net/url"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// JobState is the state of a job.
type JobState string

// The states of a job. A running job changes to one other state, which is final.
const (
	JobRunning  JobState = "running"  // the job has not ended
	JobDone     JobState = "done"     // the job ended with a report of any outcome
	JobFailed   JobState = "failed"   // the job ended with an error
	JobCanceled JobState = "canceled" // the job was canceled before it was done; it may have a report
)

// Job describes one operation that runs or has run on a queen or a hive. It contains no
// prompts, variables or tokens.
type Job struct {
	// ID is the ID of the job, which the server generates. IDs are not reused.
	ID string `json:"id"`

	// RequestID is the request ID of the job; see [RequestID]. Empty if the server is a
	// version of rbee without request IDs.
	RequestID string `json:"request_id,omitempty"`

	// Operation is the kind of the operation.
	Operation operations.Kind `json:"operation"`

	// HiveID is the alias of the hive. Empty if the operation does not select exactly
	// one hive.
	HiveID string `json:"hive_id,omitempty"`

	// Model is the model of the operation; if it is a URL, the query is removed. Worker
	// is the worker type or worker ID. Empty if the operation has none.
	Model  string `json:"model,omitempty"`
	Worker string `json:"worker,omitempty"`

	State JobState `json:"state"`

	// CreatedAt and EndedAt are the start and end times, by the clock of the server.
	// EndedAt is zero while the job is running.
	CreatedAt time.Time `json:"created_at,omitzero"`
	EndedAt   time.Time `json:"ended_at,omitzero"`

	// Events is the number of events so far, which is also the ID of the last event.
	Events int64 `json:"events"`

	// Outcome is the outcome of the report. Empty without a report.
	Outcome operations.Outcome `json:"outcome,omitempty"`

	// Error is the error of the job; nil if it has none.
	Error *operations.Error `json:"error,omitempty"`

	// Report is the report of the job. Only [Client.Job] sets it, and only for kinds of
	// operations that this version of rbee knows.
	Report operations.Report `json:"report,omitempty"`
}

// NewJob returns a running job for an operation. Its times are zero.
func NewJob(id string, op operations.Operation) Job {
	job := Job{ID: id, Operation: op.Kind(), State: JobRunning}
	var fields struct {
		HiveID string             `json:"hive_id"`
		Alias  string             `json:"alias"`
		Hives  operations.Aliases `json:"hive_alias"`
		Model  string             `json:"model"`
		Worker string             `json:"worker"`
		ID     string             `json:"id"`
	}
	data, err := op.MarshalJSON()
	if err != nil || json.Unmarshal(data, &fields) != nil {
		return job // without the optional fields
	}
	job.HiveID, job.Model, job.Worker = fields.HiveID, redactURL(fields.Model), fields.Worker
	if fields.Alias != "" {
		job.HiveID = fields.Alias
	}
	if len(fields.Hives) == 1 {
		job.HiveID = fields.Hives[0]
	}
	switch job.Operation {
	case operations.KindModelGet, operations.KindModelDelete:
		job.Model = redactURL(fields.ID)
	case operations.KindWorkerProcessGet, operations.KindWorkerProcessDelete, operations.KindWorkerProcessLogs:
		job.Worker = fields.ID
	default: // other operations have no ID
	}
	return job
}

// redactURL removes the user, query and fragment, which may contain secrets, from a URL. It
// returns other names unchanged.
func redactURL(name string) string {
	u, err := url.Parse(name)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return name
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// UnmarshalJSON implements [json.Unmarshaler]. The type of the report depends on the
// operation.
func (j *Job) UnmarshalJSON(data []byte) error {
	type fields Job // does not have this method
	in := struct {
		*fields
		Report json.RawMessage `json:"report"` // shadows fields.Report
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
