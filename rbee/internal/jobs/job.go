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
)

// job is one operation: running, until done is closed, or ended.
//
//	running --report--------------------------> done
//	running --error---------------------------> failed
//	running --canceled, and not all was done--> canceled
type job struct {
	id        string
	key       string            // its Idempotency-Key; empty: none
	digest    [sha256.Size]byte // of what asked for it
	createdAt time.Time
	endedAt   time.Time // set once it is in Server.ended
	cancel    context.CancelCauseFunc
	done      chan struct{}

	mu     sync.Mutex
	info   operations.Job
	events *buffer
	last   []byte        // what ends every stream; nil while it runs
	wake   chan struct{} // closed at the next change; nil: nobody waits
}

func newJob(id string, a asked, maxEvents int, cancel context.CancelCauseFunc) *job {
	j := &job{
		id: id, key: a.key, digest: a.digest, createdAt: time.Now(), cancel: cancel, done: make(chan struct{}),
		info: operations.NewJob(id, a.op), events: newBuffer(maxEvents, maxBytes),
	}
	j.info.CreatedAt = j.createdAt.UTC()
	return j
}

// ending is how a job ends.
type ending struct {
	state  operations.JobState
	report *written          // nil: none
	err    *operations.Error // nil: none
	last   []byte            // the end of its streams
}

// written is a report as it was when the job ended: the runner may go on to use
// what its report points to.
type written struct {
	json.RawMessage
	outcome operations.Outcome
}

func (w *written) Outcome() operations.Outcome { return w.outcome }

var errExited = errors.New("the operation ended its goroutine")

// run performs the operation and ends the job, whatever the runner does.
func (s *Server) run(ctx context.Context, j *job, op operations.Operation) {
	kind := op.Kind()
	s.log.Info("job begins", "job", j.id, "operation", kind, "hive", j.describe().HiveID)
	end := conclude(ctx, kind, nil, errExited)
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("job panicked", "job", j.id, "operation", kind, "panic", p, "stack", string(debug.Stack()))
			end = conclude(ctx, kind, nil, fmt.Errorf("%s panicked, which is a mistake in rbee: %v", kind, p))
		}
		s.leave(j, end)
	}()
	report, err := s.runner.Run(ctx, op, j.add)
	end = conclude(ctx, kind, report, err)
}

// leave ends a job, for those who read it and for the server at once: whoever has
// read the end may begin the next.
func (s *Server) leave(j *job, end ending) {
	s.mu.Lock()
	j.end(end)
	s.running--
	s.ended = append(s.ended, j)
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

// conclude decides how a job ends whose runner returned this. ctx has ended if
// the job was canceled.
func conclude(ctx context.Context, kind operations.Kind, report operations.Report, err error) ending {
	var e ending
	if report != nil {
		data, wrong := json.Marshal(report)
		if wrong != nil {
			return conclude(ctx, kind, nil, fmt.Errorf("the report of %s cannot be written: %w", kind, wrong))
		}
		e.report = &written{data, report.Outcome()}
	}
	if err == nil && report == nil {
		err = fmt.Errorf("%s ended without a report", kind)
	}
	if err != nil {
		e.err = asError(err)
	}
	whole := err == nil && e.report.outcome == operations.OutcomeOK
	switch {
	case ctx.Err() != nil && !whole:
		e.state = operations.JobCanceled
		if e.err != nil && e.err.Code != operations.CodeCanceled {
			e.err.Code, e.err.Message = operations.CodeCanceled, context.Cause(ctx).Error()+": "+e.err.Message
		}
	case err != nil:
		e.state = operations.JobFailed
	default:
		e.state = operations.JobDone
	}
	data, _ := json.Marshal(struct { // of parts that can be written
		Operation operations.Kind   `json:"operation"`
		Report    *written          `json:"report,omitempty"`
		Error     *operations.Error `json:"error,omitempty"`
	}{kind, e.report, e.err})
	word := "[DONE]"
	switch e.state {
	default:
	case operations.JobCanceled:
		word = "[CANCELLED]"
	case operations.JobFailed:
		word = "[ERROR] " + strings.Join(strings.Fields(e.err.Error()), " ")
	}
	e.last = fmt.Appendf(nil, "event: result\ndata: %s\n\ndata: %s\n\n", data, word)
	return e
}

// describe gives a copy of what is known of the job.
func (j *job) describe() operations.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	info := j.info
	info.Events = j.events.last
	return info
}

// add is the handler of the job's events. After the end it does nothing.
func (j *job) add(e operations.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.last != nil {
		return
	}
	j.events.add(e)
	j.changed()
}

func (j *job) end(e ending) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.endedAt = time.Now()
	j.info.State, j.info.EndedAt, j.info.Error = e.state, j.endedAt.UTC(), e.err
	if e.report != nil {
		j.info.Report, j.info.Outcome = e.report, e.report.outcome
	}
	j.last = e.last
	j.changed()
}

// changed wakes all who wait. j.mu is held.
func (j *job) changed() {
	if j.wake != nil {
		close(j.wake)
		j.wake = nil
	}
}

// read writes the events after one id to out, as many as fit a batch, and returns
// the id of the last of them. Without any, it returns the end, or what is closed
// when there is more.
func (j *job) read(after int64, out *bytes.Buffer) (last int64, end []byte, wake <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	last = j.events.copy(after, batchBytes, out)
	if out.Len() > 0 || j.last != nil {
		return last, j.last, nil
	}
	if j.wake == nil {
		j.wake = make(chan struct{})
	}
	return last, nil, j.wake
}
