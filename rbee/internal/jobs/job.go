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

// job is one operation: running, until done is closed, or ended.
//
//	running --report--------------------------> done
//	running --error---------------------------> failed
//	running --canceled, and not all was done--> canceled
type job struct {
	id            string
	key           string            // its Idempotency-Key; empty: none
	digest        [sha256.Size]byte // of what asked for it
	createdAt     time.Time
	endedAt       time.Time // set once it is in Server.ended
	cancel        context.CancelCauseFunc
	done          chan struct{}
	reserved      int64       // bytes of its operation, as far as they count
	noReaderTimer *time.Timer // ends it unless somebody reads; nil: it needs nobody

	mu      sync.Mutex
	info    client.Job
	report  []byte // what it ended with, as JSON; nil: nothing
	events  *buffer
	readers int
	trailer []byte        // what ends every stream; nil while it runs
	wake    chan struct{} // closed at the next change; nil: nobody waits
}

// newJob makes the job of what was asked for. ctx is the one it works in.
func newJob(ctx context.Context, id string, a *request, o Options, cancel context.CancelCauseFunc) *job {
	j := &job{
		id: id, key: a.key, digest: a.digest, createdAt: time.Now(), cancel: cancel, done: make(chan struct{}),
		info: a.job, events: newBuffer(o.MaxEvents), reserved: a.reserved,
	}
	j.info.ID, j.info.CreatedAt, j.info.RequestID = id, j.createdAt.UTC(), client.RequestID(ctx)
	if follows(a.op) {
		j.noReaderTimer = time.AfterFunc(o.NoReaderTimeout, func() { cancel(errNoReader) })
	}
	return j
}

// follows reports whether an operation changes nothing and reports what happens for
// as long as that goes on, such as [operations.WorkerProcessLogs] with Follow. Without
// a reader it has no effect.
func follows(op operations.Operation) bool {
	logs, ok := op.(operations.WorkerProcessLogs)
	return ok && logs.Follow
}

var errNoReader = &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: "nobody listens any more"}

// addReader counts a reader, until leave is called.
func (j *job) addReader(unheard time.Duration) (leave func()) {
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
			j.noReaderTimer.Reset(unheard)
		}
	}
}

// jobResult is how a job ends.
type jobResult struct {
	state   client.JobState
	report  []byte            // as JSON, as it was then: the runner may go on to use what it points to; nil: none
	err     *operations.Error // nil: none
	trailer []byte            // the end of its streams

	outcome operations.Outcome // of the report
}

var errGoexit = errors.New("the operation ended its goroutine")

// run performs the operation and ends the job, whatever the runner does.
func (s *Server) run(ctx context.Context, j *job, op operations.Operation) {
	kind := op.Kind()
	s.log.Info("job begins", "job", j.id, "operation", kind, "hive", j.describe().HiveID, "request", client.RequestID(ctx))
	end := newJobResult(ctx, kind, nil, errGoexit)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("job panicked", "job", j.id, "operation", kind, "panic", p, "stack", string(debug.Stack()))
			end = newJobResult(ctx, kind, nil, fmt.Errorf("%s panicked, which is a mistake in rbee: %v", kind, p))
		}
		s.finishJob(j, end)
	}()
	report, err := s.runner.Run(ctx, op, func(e operations.Event) { s.addEvent(j, e) })
	end = newJobResult(ctx, kind, report, err)
}

// finishJob ends a job, for those who read it and for the server at once: whoever has
// read the end may begin the next.
func (s *Server) finishJob(j *job, end jobResult) {
	s.mu.Lock()
	j.finish(end)
	s.running--
	s.reserved -= j.reserved
	s.finished = append(s.finished, j)
	s.reportBytes += int64(len(end.report))
	s.prune()
	s.mu.Unlock()

	duration := j.endedAt.Sub(j.createdAt).Round(time.Millisecond)
	if end.err != nil {
		s.log.Warn("job ends", "job", j.id, "state", end.state, "duration", duration, "error", end.err)
	} else {
		s.log.Info("job ends", "job", j.id, "state", end.state, "duration", duration)
	}
	j.cancel(nil)
	close(j.done)
	time.AfterFunc(s.opts.KeepFor, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.prune()
	})
}

// newJobResult decides how a job ends whose runner returned this. ctx has ended if
// the job was canceled.
func newJobResult(ctx context.Context, kind operations.Kind, report operations.Report, err error) jobResult {
	var e jobResult
	if report != nil {
		data, wrong := json.Marshal(report)
		if wrong != nil {
			return newJobResult(ctx, kind, nil, fmt.Errorf("the report of %s cannot be written: %w", kind, wrong))
		}
		e.report, e.outcome = data, report.Outcome()
	}
	if err == nil && report == nil {
		err = fmt.Errorf("%s ended without a report", kind)
	}
	if err != nil {
		e.err = asError(err)
	}
	whole := err == nil && e.outcome == operations.OutcomeOK
	switch {
	case ctx.Err() != nil && !whole:
		e.state = client.JobCanceled
		if e.err != nil && e.err.Code != operations.CodeCanceled {
			e.err.Code = operations.CodeCanceled
			if cause := context.Cause(ctx).Error(); e.err.Message != cause {
				e.err.Message = cause + ": " + e.err.Message
			}
		}
	case err != nil:
		e.state = client.JobFailed
	default:
		e.state = client.JobDone
	}
	result := struct {
		Operation operations.Kind   `json:"operation"`
		Report    json.RawMessage   `json:"report,omitempty"`
		Bytes     int               `json:"report_bytes,omitempty"` // of a report that went before it, in pieces
		Error     *operations.Error `json:"error,omitempty"`
	}{kind, e.report, 0, e.err}
	if len(e.report) > maxPieceBytes {
		result.Report, result.Bytes = nil, len(e.report)
	}
	data, _ := json.Marshal(result) // of parts that can be written
	word := "[DONE]"
	switch e.state {
	default:
	case client.JobCanceled:
		word = "[CANCELLED]"
	case client.JobFailed:
		word = "[ERROR] " + strings.Join(strings.Fields(e.err.Error()), " ")
	}
	e.trailer = sse.Append(sse.Append(nil, sse.Event{Name: "result", Data: data}), sse.Event{Data: []byte(word)})
	return e
}

// describe gives a copy of what is known of the job.
func (j *job) describe() client.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	info := j.info
	info.Events = j.events.last
	return info
}

// add keeps an event, and returns how many bytes more are kept now. After the end it
// does nothing.
func (j *job) add(e operations.Event) (more int) {
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

// eventBytes is how much its events take.
func (j *job) eventBytes() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.events.bytes
}

// shrink drops its oldest events until so many bytes are gone, and returns how many
// that were.
func (j *job) shrink(by int) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := j.events.bytes
	j.events.shrink(by)
	return before - j.events.bytes
}

// result is the report that it ended with, as JSON; nil: none.
func (j *job) result() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.report
}

func (j *job) finish(e jobResult) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.endedAt = time.Now()
	j.info.State, j.info.EndedAt, j.info.Error = e.state, j.endedAt.UTC(), e.err
	j.report, j.info.Outcome = e.report, e.outcome
	j.trailer = e.trailer
	if j.noReaderTimer != nil {
		j.noReaderTimer.Stop()
	}
	j.notify()
}

// notify wakes all who wait. j.mu is held.
func (j *job) notify() {
	if j.wake != nil {
		close(j.wake)
		j.wake = nil
	}
}

// parseRequest writes the events after one id to out, as many as fit a batch, and returns
// the id of the last of them. Without any, it returns the end, or what is closed
// when there is more.
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
