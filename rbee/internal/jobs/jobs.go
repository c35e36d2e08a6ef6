// Package jobs serves a [operations.Runner] over HTTP: the jobs API of queen and
// hive alike. [operations.Client] is its other side.
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
// [operations.Job] values. An error is {"error":{…}} with an [operations.Error]
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
// A reader goes on where it stopped by the header Last-Event-ID or the query
// ?after=N. Every 15 seconds without an event a comment is sent.
//
// Events are kept for readers that come later or are slow; a job never waits for
// a reader. What is kept is bounded, in number and in bytes: progress that
// follows progress of the same thing replaces it, and the oldest events go
// first. A reader that asks for some that are gone gets a note in their place.
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
	"time"

	"github.com/rbee-keeper/rbee/operations"
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

	// MaxEvents is how many events of one job are kept; 0 means 10000. They
	// never take more than 16 MiB.
	MaxEvents int

	// MaxRunning is how many jobs may run at once; 0 means 256.
	MaxRunning int

	// MaxBody is how many bytes an operation may have; 0 means 1 MiB.
	MaxBody int64
}

const (
	maxBytes     = 16 << 20         // of the events of one job
	heartbeat    = 15 * time.Second // without an event
	writeTimeout = 30 * time.Second // for one piece of a stream
	readTimeout  = 30 * time.Second // for the body of a request
	batchBytes   = 64 << 10         // of events written at once
	keyMargin    = 5 * time.Second  // by which a key's age may be wrong
)

// Server is the jobs API of one runner. It is an [http.Handler] for "/v1/jobs"
// and all below it.
type Server struct {
	runner operations.Runner
	opts   Options
	log    *slog.Logger
	mux    *http.ServeMux

	mu      sync.Mutex
	closed  bool
	jobs    map[string]*job // by id
	order   []*job          // by creation
	ended   []*job          // by end
	keys    map[string]*job // by Idempotency-Key
	since   time.Time       // a key that was first used after this is in keys, or unused
	running int
}

// New makes a server. Its jobs run until they end or the server is closed.
func New(r operations.Runner, o Options) *Server {
	o.KeepFinished = orDefault(o.KeepFinished, 100)
	o.KeepFor = orDefault(o.KeepFor, 10*time.Minute)
	o.MaxEvents = orDefault(o.MaxEvents, 10000)
	o.MaxRunning = orDefault(o.MaxRunning, 256)
	o.MaxBody = orDefault(o.MaxBody, 1<<20)
	s := &Server{
		runner: r, opts: o, log: o.Log, mux: http.NewServeMux(),
		jobs: map[string]*job{}, keys: map[string]*job{}, since: time.Now(),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.mux.HandleFunc("POST /v1/jobs", s.create)
	s.mux.HandleFunc("GET /v1/jobs", s.list)
	s.mux.HandleFunc("GET /v1/jobs/{id}", s.get)
	s.mux.HandleFunc("DELETE /v1/jobs/{id}", s.cancel)
	s.mux.HandleFunc("GET /v1/jobs/{id}/stream", s.stream)
	s.mux.HandleFunc("/v1/jobs", notAllowed("GET, POST"))
	s.mux.HandleFunc("/v1/jobs/{id}", notAllowed("GET, DELETE"))
	s.mux.HandleFunc("/v1/jobs/{id}/stream", notAllowed("GET"))
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, &operations.Error{Code: operations.CodeNotFound, Message: "there is nothing at " + r.URL.Path})
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

var errClosed = &operations.Error{Code: operations.CodeCanceled, Message: "rbee there is ending"}

// Close takes no new jobs, cancels those that run and waits until they have
// ended. If ctx ends before, it returns an error and they go on ending. Streams
// are served to their end meanwhile and later: shut the HTTP server down after.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	jobs := append([]*job{}, s.order...)
	s.mu.Unlock()
	for _, j := range jobs {
		j.cancel(errClosed) // does nothing to one that has ended
	}
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
		refuse(w, http.StatusNotFound, &operations.Error{Code: operations.CodeNotFound, Message: fmt.Sprintf("there is no job %q", id)})
	}
	return j
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	jobs := append([]*job{}, s.order...)
	s.mu.Unlock()
	answer := struct {
		Jobs []operations.Job `json:"jobs"`
	}{make([]operations.Job, len(jobs))}
	for i, j := range jobs {
		answer.Jobs[i] = j.describe()
		answer.Jobs[i].Report = nil
	}
	reply(w, http.StatusOK, answer)
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	if j := s.find(w, r); j != nil {
		reply(w, http.StatusOK, j.describe())
	}
}

var errCanceled = &operations.Error{Code: operations.CodeCanceled, Message: "canceled by request"}

func (s *Server) cancel(w http.ResponseWriter, r *http.Request) {
	j := s.find(w, r)
	if j == nil {
		return
	}
	status := http.StatusOK
	if job := j.describe(); job.State == operations.JobRunning {
		status = http.StatusAccepted
		s.log.Info("job is canceled", "job", job.ID, "operation", job.Operation)
		j.cancel(errCanceled)
	}
	job := j.describe()
	job.Report = nil
	reply(w, status, job)
}

// prune forgets jobs that ended long ago, or before many others. s.mu is held.
func (s *Server) prune() {
	oldest := time.Now().Add(-s.opts.KeepFor)
	for len(s.ended) > 0 && (len(s.ended) > s.opts.KeepFinished || !s.ended[0].endedAt.After(oldest)) {
		j := s.ended[0]
		s.ended[0], s.ended = nil, s.ended[1:]
		delete(s.jobs, j.id)
		for i, other := range s.order {
			if other == j {
				s.order = append(s.order[:i:i], s.order[i+1:]...)
				break
			}
		}
		if j.key != "" {
			delete(s.keys, j.key)
			if j.createdAt.After(s.since) {
				s.since = j.createdAt
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
		return &operations.Error{Code: operations.CodeCanceled, Message: err.Error()}
	}
	return &operations.Error{Code: operations.CodeFailed, Message: err.Error()}
}
