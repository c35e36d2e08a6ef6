// Package jobs serves a [operations.Runner] over HTTP: the jobs API of queen and
// hive alike. [client.Client] is its other side.
//
// # The API
//
//	POST   /v1/jobs              an operation, as JSON: 201 {"job_id","sse_url"}
//	GET    /v1/jobs              {"jobs":[…]}, oldest first
//	GET    /v1/jobs/{id}         one job, with its report once it has one
//	GET    /v1/jobs/{id}/stream  its events, as they happen, and its result
//	DELETE /v1/jobs/{id}         cancels it: 202; 200 if it had ended
//
// A job begins at once and runs in its own context, watched or not. Jobs are
// [client.Job] values. An error is {"error":{…}} with an [operations.Error]
// in it, under the status that fits.
//
// # The stream
//
// The stream has the form of server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html). Each event
// has an id, counted from 1:
//
//	id: 7
//	event: event
//	data: {"time":"…","type":"phase","hive":"gpu-1","phase":"reading"}
//
// The end has none. Its last line is "[DONE]", "[ERROR]" and the message, or
// "[CANCELLED]":
//
//	event: result
//	data: {"operation":"package_status","report":{…}}
//
//	data: [DONE]
//
// A report of more than 256 KiB goes before the end, in pieces whose data is to be
// put together as it comes; the result then has its length in bytes in place of it:
//
//	event: report
//	data: {"model":"…","files":[{"name":"bee.png","data":"iVBORw0KGgo
//
//	event: result
//	data: {"operation":"infer","report_bytes":1398256}
//
// A reader goes on where it stopped by the header Last-Event-ID or the query
// ?after=N. Every 15 seconds without an event a comment is sent.
//
// Events are kept for readers that come later or are slow; a job never waits for
// a reader. What is kept is bounded, in number for each job and in bytes for all
// together: progress that follows progress of the same thing replaces it, and the
// oldest events go first, of the job that has most. A reader that asks for some
// that are gone gets a note in their place.
//
// A job that only tells of what happens, as that of [operations.WorkerProcessLogs] with
// Follow, is canceled when
// nobody has read its stream for a while: a reader that fell asleep cannot do it.
//
// # Request ids
//
// A job works under the X-Request-Id that it was asked for with, or its own id: the
// log has it, and [client.RequestID] of the runner's context, by which a client
// that the runner uses hands it on.
//
// # Asking twice
//
// A request with an Idempotency-Key (at most 200 bytes) gets the job that was
// made for the key before, if there is one. A client that repeats a request
// because the answer was lost also says in Idempotency-Age how many seconds ago
// it sent it first. A server that cannot know what happened then, because it was
// started later or has forgotten a job of that time, refuses (409): it is better
// to ask than to start a worker twice.
//
// # Guarding
//
// There is no authentication here: wrap the handler. Limits on the time to read a
// request's header are the [net/http.Server]'s.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
)

// Options limits what a server keeps and does at once. The zero value works.
type Options struct {
	// Log gets a line when a job begins and one when it ends, and the stacks of
	// runners that panic. Nil discards them.
	Log *slog.Logger

	// KeepFinished is how many jobs that have ended are kept; 0 means 100, a
	// negative number none.
	KeepFinished int

	// KeepFor is how long a job is kept after it ended; 0 means 10 minutes.
	KeepFor time.Duration

	// KeepBytes is how many bytes the reports of jobs that have ended may have
	// together before the first that ended is forgotten; 0 means 64 MiB. The one
	// that ended last is kept, whatever its report has.
	KeepBytes int64

	// MaxEvents is how many events of one job are kept; 0 means 10000.
	MaxEvents int

	// MaxBytes is how many bytes the events of all jobs may have together before
	// the oldest of the job with most are dropped; 0 means 32 MiB.
	MaxBytes int64

	// MaxRunning is how many jobs may run at once; 0 means 256.
	MaxRunning int

	// MaxBody is how many bytes an operation may have; 0 means 64 MiB.
	MaxBody int64

	// MaxBodyMemory is how many bytes the operations that come in and run may have
	// together; 0 means twice MaxBody. Those of less than 64 KiB do not count.
	MaxBodyMemory int64

	// NoReaderTimeout is how long a job that only tells of what happens goes on
	// without a reader before it is canceled; 0 means 2 minutes.
	NoReaderTimeout time.Duration
}

const (
	heartbeatInterval = 15 * time.Second // without an event
	writeTimeout      = 30 * time.Second // for one piece of a stream or an answer
	readTimeout       = 30 * time.Second // for one piece of the body of a request
	minBodyRate       = 16 << 10         // bytes a second that a body must come at, after twice that
	maxBatchBytes     = 64 << 10         // of events written at once
	maxPieceBytes     = 256 << 10        // of a report written at once
	maxEvent          = 15 << 20         // bytes; clients read 16 MiB at most
	minCountedBody    = 64 << 10         // bytes of an operation that are not worth counting
	keyAgeMargin      = 5 * time.Second  // by which a key's age may be wrong
)

// Server is the jobs API of one runner. It is an [http.Handler] for "/v1/jobs"
// and all below it.
type Server struct {
	runner operations.Runner
	opts   Options
	log    *slog.Logger
	mux    *http.ServeMux

	mu          sync.Mutex
	closed      bool
	jobs        map[string]*job // by id
	order       []*job          // by creation
	finished    []*job          // by end
	keys        map[string]*job // by Idempotency-Key
	keysSince   time.Time       // a key that was first used after this is in keys, or unused
	running     int
	reserved    int64 // bytes of operations that come in and run
	reportBytes int64 // bytes of the reports of those in ended

	events atomic.Int64 // bytes of the events of all jobs
}

// New makes a server. Its jobs run until they end or the server is closed.
func New(r operations.Runner, o Options) *Server {
	o.KeepFinished = orDefault(o.KeepFinished, 100)
	o.KeepFor = orDefault(o.KeepFor, 10*time.Minute)
	o.MaxEvents = orDefault(o.MaxEvents, 10000)
	o.KeepBytes = orDefault(o.KeepBytes, 64<<20)
	o.MaxBytes = orDefault(o.MaxBytes, 32<<20)
	o.MaxRunning = orDefault(o.MaxRunning, 256)
	o.MaxBody = orDefault(o.MaxBody, 64<<20)
	o.MaxBodyMemory = orDefault(o.MaxBodyMemory, 2*o.MaxBody)
	o.NoReaderTimeout = orDefault(o.NoReaderTimeout, 2*time.Minute)
	s := &Server{
		runner: r, opts: o, log: o.Log, mux: http.NewServeMux(),
		jobs: map[string]*job{}, keys: map[string]*job{}, keysSince: time.Now(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.mux.HandleFunc("POST /v1/jobs", s.create)
	s.mux.HandleFunc("GET /v1/jobs", s.list)
	s.mux.HandleFunc("GET /v1/jobs/{id}", s.get)
	s.mux.HandleFunc("DELETE /v1/jobs/{id}", s.cancel)
	s.mux.HandleFunc("GET /v1/jobs/{id}/stream", s.stream)
	s.mux.HandleFunc("/v1/jobs", methodNotAllowed("GET, POST"))
	s.mux.HandleFunc("/v1/jobs/{id}", methodNotAllowed("GET, DELETE"))
	s.mux.HandleFunc("/v1/jobs/{id}/stream", methodNotAllowed("GET"))
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, http.StatusNotFound, &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotFound, Subject: operations.SubjectAddress.Named(r.URL.Path), Message: "there is nothing at " + r.URL.Path})
	})
	return s
}

func orDefault[T int | int64 | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Running is how many jobs run now.
func (s *Server) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

var errClosed = &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonStopping, Message: "rbee there is ending"}

// Drain takes no new jobs and waits until those that run have ended by themselves.
// Those that only tell have no end of their own, and are canceled. If ctx ends
// before, it returns an error and the others run on.
func (s *Server) Drain(ctx context.Context) error {
	jobs := s.stopAccepting()
	for _, j := range jobs {
		if j.noReaderTimer != nil {
			j.cancel(errClosed)
		}
	}
	return s.wait(ctx, jobs)
}

// Close takes no new jobs, cancels those that run and waits until they have
// ended. If ctx ends before, it returns an error and they go on ending. Streams
// are served to their end meanwhile and later: shut the HTTP server down after.
func (s *Server) Close(ctx context.Context) error {
	jobs := s.stopAccepting()
	for _, j := range jobs {
		j.cancel(errClosed) // does nothing to one that has ended
	}
	return s.wait(ctx, jobs)
}

// stopAccepting takes no new jobs from now on, and returns those that there are.
func (s *Server) stopAccepting() []*job {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return append([]*job{}, s.order...)
}

// wait waits until these jobs have ended, or ctx has.
func (s *Server) wait(ctx context.Context, jobs []*job) error {
	for _, j := range jobs {
		select {
		case <-j.done:
		case <-ctx.Done():
			return fmt.Errorf("%d jobs have not ended: %w", s.Running(), context.Cause(ctx))
		}
	}
	return nil
}

// find returns the job that the request names; nil, after the answer, if there is none.
func (s *Server) find(w http.ResponseWriter, r *http.Request) *job {
	id := r.PathValue("id")
	s.mu.Lock()
	j := s.jobs[id]
	s.mu.Unlock()
	if j == nil {
		writeError(w, http.StatusNotFound, &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotFound, Subject: operations.SubjectJob.Named(id), Message: fmt.Sprintf("there is no job %q", id)})
	}
	return j
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	jobs := append([]*job{}, s.order...)
	s.mu.Unlock()
	answer := struct {
		Jobs []client.Job `json:"jobs"`
	}{make([]client.Job, len(jobs))}
	for i, j := range jobs {
		answer.Jobs[i] = j.describe()
	}
	writeJSON(w, http.StatusOK, answer)
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	if j := s.find(w, r); j != nil {
		writeJob(w, j.describe(), j.result())
	}
}

var errCanceled = &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: "canceled by request"}

func (s *Server) cancel(w http.ResponseWriter, r *http.Request) {
	j := s.find(w, r)
	if j == nil {
		return
	}
	status := http.StatusOK
	if job := j.describe(); job.State == client.JobRunning {
		status = http.StatusAccepted
		s.log.Info("job is canceled", "job", job.ID, "operation", job.Operation)
		j.cancel(errCanceled)
	}
	writeJSON(w, status, j.describe())
}

// addEvent hands an event of a job on to its readers. When the events of all jobs take
// too much, some go.
func (s *Server) addEvent(j *job, e operations.Event) {
	if s.events.Add(int64(j.add(e))) > s.opts.MaxBytes {
		s.trimEvents()
	}
}

// trimEvents drops the oldest events of the job that has most, and again, until there
// is room for a while: who tells little loses nothing to who tells much.
func (s *Server) trimEvents() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events.Load() <= s.opts.MaxBytes {
		return
	}
	for {
		over := int(s.events.Load() - s.opts.MaxBytes*7/8)
		var biggest *job
		most := 0
		for _, j := range s.order {
			if n := j.eventBytes(); n > most {
				biggest, most = j, n
			}
		}
		if over <= 0 || biggest == nil {
			return
		}
		s.events.Add(-int64(biggest.shrink(min(over, (most+1)/2))))
	}
}

// prune forgets jobs that ended long ago, or before many others. s.mu is held.
func (s *Server) prune() {
	oldest := time.Now().Add(-s.opts.KeepFor)
	excess := func() bool { return len(s.finished) > 1 && s.reportBytes > s.opts.KeepBytes }
	for len(s.finished) > 0 && (len(s.finished) > s.opts.KeepFinished || !s.finished[0].endedAt.After(oldest) || excess()) {
		j := s.finished[0]
		s.finished[0], s.finished = nil, s.finished[1:]
		s.reportBytes -= int64(len(j.result()))
		s.events.Add(-int64(j.eventBytes()))
		delete(s.jobs, j.id)
		for i, other := range s.order {
			if other == j {
				s.order = append(s.order[:i:i], s.order[i+1:]...)
				break
			}
		}
		if j.key != "" {
			delete(s.keys, j.key)
			if j.createdAt.After(s.keysSince) {
				s.keysSince = j.createdAt
			}
		}
	}
}

// asError gives an error the form in which it goes over the wire.
func asError(err error) *operations.Error {
	var known *operations.Error
	switch {
	case errors.As(err, &known):
		own := *known
		return &own
	case errors.Is(err, context.Canceled):
		return &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: err.Error()}
	}
	return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Message: err.Error()}
}
