package jobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/operations/sse"
)

// job is one operation. It runs until done is closed.
//
//	running --report--------------------------> done
//	running --error---------------------------> failed
//	running --canceled, incomplete------------> canceled
type job struct {
	id            string
	key           string            // Idempotency-Key; may be empty
	digest        [sha256.Size]byte // of the request body
	createdAt     time.Time
	endedAt       time.Time // set before the job is in Server.finished
	cancel        context.CancelCauseFunc
	done          chan struct{}
	reserved      int64       // share of Server.reserved
	noReaderTimer *time.Timer // cancels a job without readers; nil if the job needs none

	mu      sync.Mutex
	info    client.Job
	report  []byte // JSON; nil if the job has no report
	events  *buffer
	readers int
	trailer []byte        // end of every stream; nil while the job is running
	wake    chan struct{} // closed at the next change; nil if no reader waits
}

// newJob returns the job of a request. ctx is the context of the operation.
func newJob(ctx context.Context, id string, req *request, o Options, cancel context.CancelCauseFunc) *job {
	j := &job{
		id: id, key: req.key, digest: req.digest, createdAt: time.Now(), cancel: cancel, done: make(chan struct{}),
		info: req.job, events: newBuffer(o.MaxEvents), reserved: req.reserved,
	}
	j.info.ID, j.info.CreatedAt, j.info.RequestID = id, j.createdAt.UTC(), client.RequestID(ctx)
	if follows(req.op) {
		j.noReaderTimer = time.AfterFunc(o.NoReaderTimeout, func() { cancel(errNoReader) })
	}
	return j
}

// follows reports whether an operation only reports events and never ends by itself, such
// as [operations.WorkerProcessLogs] with Follow. Such an operation is useless without a reader.
func follows(op operations.Operation) bool {
	logs, ok := op.(operations.WorkerProcessLogs)
	return ok && logs.Follow
}

var errNoReader = &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: "no client reads the events of the job"}

// addReader registers a reader of a job that needs readers, until remove is called.
func (j *job) addReader(timeout time.Duration) (remove func()) {
	if j.noReaderTimer == nil {
		return func() {}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.readers++; j.readers == 1 {
		j.noReaderTimer.Stop()
	}
	return func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		if j.readers--; j.readers == 0 && j.trailer == nil {
			j.noReaderTimer.Reset(timeout)
		}
	}
}

// jobResult is the result of a job.
type jobResult struct {
	state   client.JobState
	report  []byte            // JSON, encoded when the job ends, because the runner may modify the report later; may be nil
	err     *operations.Error // may be nil
	trailer []byte            // end of every stream

	outcome operations.Outcome // of the report
}

var errGoexit = errors.New("the operation exited its goroutine")

// run runs the operation and finishes the job, even if the runner panics.
func (s *Server) run(ctx context.Context, j *job, op operations.Operation) {
	kind := op.Kind()
	s.log.Info("job started", "job", j.id, "operation", kind, "hive", j.describe().HiveID, "request", client.RequestID(ctx))
	result := newJobResult(ctx, kind, nil, errGoexit)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("job panicked", "job", j.id, "operation", kind, "panic", p, "stack", string(debug.Stack()))
			result = newJobResult(ctx, kind, nil, fmt.Errorf("%s panicked, which is a bug in rbee: %v", kind, p))
		}
		s.finishJob(j, result)
	}()
	report, err := s.runner.Run(ctx, op, func(e operations.Event) { s.addEvent(j, e) })
	result = newJobResult(ctx, kind, report, err)
}

// finishJob stores the result of a job and frees its share of the limits in one critical
// section, so that a client that has read the end of the stream can start the next job.
func (s *Server) finishJob(j *job, result jobResult) {
	s.mu.Lock()
	j.finish(result)
	s.running--
	s.reserved -= j.reserved
	s.finished = append(s.finished, j)
	s.reportBytes += int64(len(result.report))
	s.prune()
	s.mu.Unlock()

	duration := j.endedAt.Sub(j.createdAt).Round(time.Millisecond)
	if result.err != nil {
		s.log.Warn("job finished", "job", j.id, "state", result.state, "duration", duration, "error", result.err)
	} else {
		s.log.Info("job finished", "job", j.id, "state", result.state, "duration", duration)
	}
	j.cancel(nil)
	close(j.done)
	time.AfterFunc(s.opts.KeepFor, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.prune()
	})
}

// newJobResult returns the result of a job from the values that its runner returned. ctx is
// done if the job was canceled.
func newJobResult(ctx context.Context, kind operations.Kind, report operations.Report, err error) jobResult {
	var result jobResult
	if report != nil {
		data, encodeErr := json.Marshal(report)
		if encodeErr != nil {
			return newJobResult(ctx, kind, nil, fmt.Errorf("cannot encode the report of %s: %w", kind, encodeErr))
		}
		result.report, result.outcome = data, report.Outcome()
	}
	if err == nil && report == nil {
		err = fmt.Errorf("%s returned neither a report nor an error", kind)
	}
	if err != nil {
		result.err = asError(err)
	}
	complete := err == nil && result.outcome == operations.OutcomeOK
	switch {
	case ctx.Err() != nil && !complete:
		result.state = client.JobCanceled
		if result.err != nil && result.err.Code != operations.CodeCanceled {
			result.err.Code = operations.CodeCanceled
			if cause := context.Cause(ctx).Error(); result.err.Message != cause {
				result.err.Message = cause + ": " + result.err.Message
			}
		}
	case err != nil:
		result.state = client.JobFailed
	default:
		result.state = client.JobDone
	}
	body := struct {
		Operation operations.Kind   `json:"operation"`
		Report    json.RawMessage   `json:"report,omitempty"`
		Bytes     int               `json:"report_bytes,omitempty"` // length of a report that was sent in pieces
		Error     *operations.Error `json:"error,omitempty"`
	}{kind, result.report, 0, result.err}
	if len(result.report) > maxPieceBytes {
		body.Report, body.Bytes = nil, len(result.report)
	}
	data, _ := json.Marshal(body) // never fails
	marker := "[DONE]"
	switch result.state {
	default:
	case client.JobCanceled:
		marker = "[CANCELLED]"
	case client.JobFailed:
		marker = "[ERROR] " + strings.Join(strings.Fields(result.err.Error()), " ")
	}
	result.trailer = sse.Append(sse.Append(nil, sse.Event{Name: "result", Data: data}), sse.Event{Data: []byte(marker)})
	return result
}

// describe returns the current description of the job.
func (j *job) describe() client.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	info := j.info
	info.Events = j.events.last
	return info
}

// add stores an event, and returns the increase of the buffer in bytes. It does nothing
// after the end of the job.
func (j *job) add(e operations.Event) (growth int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.trailer != nil {
		return 0
	}
	before := j.events.bytes
	j.events.add(e)
	j.notify()
	return j.events.bytes - before
}

// eventBytes returns the size of the buffered events.
func (j *job) eventBytes() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.events.bytes
}

// shrink drops the oldest events until n bytes are free, and returns the number of bytes
// dropped.
func (j *job) shrink(n int) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := j.events.bytes
	j.events.shrink(n)
	return before - j.events.bytes
}

// reportJSON returns the report as JSON, or nil.
func (j *job) reportJSON() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.report
}

// finish stores the result of the job and wakes the waiting readers.
func (j *job) finish(result jobResult) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.endedAt = time.Now()
	j.info.State, j.info.EndedAt, j.info.Error = result.state, j.endedAt.UTC(), result.err
	j.report, j.info.Outcome = result.report, result.outcome
	j.trailer = result.trailer
	if j.noReaderTimer != nil {
		j.noReaderTimer.Stop()
	}
	j.notify()
}

// notify wakes the waiting readers. The caller holds j.mu.
func (j *job) notify() {
	if j.wake != nil {
		close(j.wake)
		j.wake = nil
	}
}

// read writes the events after an ID to out, up to maxBatchBytes, and returns the ID of the
// last one. After the last event it returns the trailer of an ended job, or a channel that is
// closed when a running job changes.
func (j *job) read(after int64, out *bytes.Buffer) (last int64, end []byte, wake <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	last = j.events.copy(after, maxBatchBytes, out)
	if out.Len() > 0 || j.trailer != nil {
		return last, j.trailer, nil
	}
	if j.wake == nil {
		j.wake = make(chan struct{})
	}
	return last, nil, j.wake
}
