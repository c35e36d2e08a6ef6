// Package jobs serves an [operations.Runner] over HTTP. Queens and hives use it as their
// jobs API. [client.Client] is the client.
//
// # API
//
//	POST   /v1/jobs              start an operation (JSON): 201 {"job_id","sse_url"}
//	GET    /v1/jobs              list the jobs: {"jobs":[…]}, oldest first
//	GET    /v1/jobs/{id}         get a job, with its report if it has ended
//	GET    /v1/jobs/{id}/stream  stream the events and the result
//	DELETE /v1/jobs/{id}         cancel a job: 202, or 200 if it has ended
//
// A job starts immediately and runs in its own context, with or without readers. Jobs are
// [client.Job] values. Errors are {"error":{…}} with an [operations.Error] and a matching
// HTTP status.
//
// # Stream
//
// The stream consists of server-sent events
// (https://html.spec.whatwg.org/multipage/server-sent-events.html). Each event has an ID,
// starting at 1:
//
//	id: 7
//	event: event
//	data: {"time":"…","type":"phase","hive":"gpu-1","phase":"reading"}
//
// The result has no ID. The last line is "[DONE]", "[ERROR]" with the message, or
// "[CANCELLED]":
//
//	event: result
//	data: {"operation":"package_status","report":{…}}
//
//	data: [DONE]
//
// A report of more than 256 KiB is sent before the result, in pieces whose data the client
// concatenates. The result then has its length in bytes instead of the report:
//
//	event: report
//	data: {"model":"…","files":[{"name":"bee.png","data":"iVBORw0KGgo
//
//	event: result
//	data: {"operation":"infer","report_bytes":1398256}
//
// A reader resumes a stream with the header Last-Event-ID or the query ?after=N. After 15
// seconds without an event the server sends a comment.
//
// The server buffers events for late and slow readers; a job never waits for a reader. The
// buffer is limited by the number of events per job and by the total size for all jobs.
// Progress replaces earlier progress of the same step. When the total size is exceeded, the
// server drops the oldest events of the job with the largest buffer. A reader of dropped
// events receives a note instead.
//
// A job that only reports events, such as [operations.WorkerProcessLogs] with Follow, is
// canceled after some time without a reader.
//
// # Request IDs
//
// The request ID of a job is the X-Request-Id of the request that started it, or the ID of
// the job. It is logged, and available in the runner's context as [client.RequestID], so
// that clients that the runner uses forward it.
//
// # Idempotency
//
// A request with an Idempotency-Key (at most 200 bytes) returns the existing job with that
// key, if any. A client that repeats a request after a lost response also sends
// Idempotency-Age, the number of seconds since its first attempt. If the server cannot know
// whether the first attempt started a job, because the server started later or has already
// dropped jobs of that time, it rejects the request (409): starting a worker twice is worse.
//
// # Authentication
//
// The handler does not authenticate clients: wrap it in a handler that does. Set the time
// limits for request headers in the [net/http.Server].
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

// Options configure a server. The zero value uses the defaults.
type Options struct {
	// Log receives a line when a job starts and when it ends, and the stack traces of
	// panicking runners. Nil discards them.
	Log *slog.Logger

	// KeepFinished limits the number of ended jobs that are kept; 0 means 100, a negative
	// number keeps none.
	KeepFinished int

	// KeepFor is the time for which an ended job is kept; 0 means 10 minutes.
	KeepFor time.Duration

	// KeepBytes limits the total size of the reports of ended jobs; 0 means 64 MiB. The jobs
	// that ended first are dropped first. The last one is always kept.
	KeepBytes int64

	// MaxEvents limits the number of buffered events per job; 0 means 10000.
	MaxEvents int

	// MaxBytes limits the total size of the buffered events of all jobs; 0 means 32 MiB.
	MaxBytes int64

	// MaxRunning limits the number of running jobs; 0 means 256.
	MaxRunning int

	// MaxBody limits the size of an operation in bytes; 0 means 64 MiB.
	MaxBody int64

	// MaxBodyMemory limits the total size of the operations that are received or running;
	// 0 means twice MaxBody. Operations of up to 64 KiB do not count.
	MaxBodyMemory int64

	// NoReaderTimeout is the time without a reader after which a job that only reports
	// events is canceled; 0 means 2 minutes.
	NoReaderTimeout time.Duration
}

const (
	heartbeatInterval = 15 * time.Second // time without an event until a comment is sent
	writeTimeout      = 30 * time.Second // for one write to a stream or response
	readTimeout       = 30 * time.Second // for one read of a request body
	minBodyRate       = 16 << 10         // bytes per second at which a body must arrive, after twice readTimeout
	maxBatchBytes     = 64 << 10         // bytes of events per write
	maxPieceBytes     = 256 << 10        // bytes of a report per write
	maxEvent          = 15 << 20         // bytes of an event; clients accept at most 16 MiB
	minCountedBody    = 64 << 10         // bytes; smaller operations do not count for MaxBodyMemory
	keyAgeMargin      = 5 * time.Second  // tolerance for Idempotency-Age
)

// Server is the jobs API of one runner. It is an [http.Handler] for the path /v1/jobs and
// all paths below it.
type Server struct {
	runner operations.Runner
	opts   Options
	log    *slog.Logger
	mux    *http.ServeMux

	mu          sync.Mutex
	closed      bool
	jobs        map[string]*job // by ID
	order       []*job          // by creation time
	finished    []*job          // by end time
	keys        map[string]*job // by Idempotency-Key
	keysSince   time.Time       // keys contains every key that was first used after this time
	running     int
	reserved    int64 // bytes of the operations that are received or running
	reportBytes int64 // bytes of the reports of finished jobs

	events atomic.Int64 // bytes of the buffered events of all jobs
}

// New returns a server. Its jobs run until they end or the server is closed.
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
		writeError(w, http.StatusNotFound, &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotFound, Subject: operations.SubjectAddress.WithName(r.URL.Path), Message: "unknown path " + r.URL.Path})
	})
	return s
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Running returns the number of running jobs.
func (s *Server) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

var errClosed = &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonStopping, Message: "rbee is shutting down"}

// Drain stops accepting jobs and waits until the running jobs have ended. It cancels jobs
// that only report events, which never end by themselves. If ctx is done first, it returns
// an error, and the other jobs continue.
func (s *Server) Drain(ctx context.Context) error {
	jobs := s.stopAccepting()
	for _, j := range jobs {
		if j.noReaderTimer != nil {
			j.cancel(errClosed)
		}
	}
	return s.wait(ctx, jobs)
}

// Close stops accepting jobs, cancels the running jobs and waits until they have ended. If
// ctx is done first, it returns an error. Streams are still served to their end, so shut
// down the HTTP server afterward.
func (s *Server) Close(ctx context.Context) error {
	jobs := s.stopAccepting()
	for _, j := range jobs {
		j.cancel(errClosed) // no effect on a job that has ended
	}
	return s.wait(ctx, jobs)
}

// stopAccepting makes the server reject new jobs, and returns the existing ones.
func (s *Server) stopAccepting() []*job {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return append([]*job{}, s.order...)
}

// wait waits until the jobs have ended or ctx is done.
func (s *Server) wait(ctx context.Context, jobs []*job) error {
	for _, j := range jobs {
		select {
		case <-j.done:
		case <-ctx.Done():
			return fmt.Errorf("%d jobs are still running: %w", s.Running(), context.Cause(ctx))
		}
	}
	return nil
}

// find returns the job of a request. If the job is unknown, it responds with an error and
// returns nil.
func (s *Server) find(w http.ResponseWriter, r *http.Request) *job {
	id := r.PathValue("id")
	s.mu.Lock()
	j := s.jobs[id]
	s.mu.Unlock()
	if j == nil {
		writeError(w, http.StatusNotFound, &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotFound, Subject: operations.SubjectJob.WithName(id), Message: fmt.Sprintf("unknown job %q", id)})
	}
	return j
}

func (s *Server) list(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	jobs := append([]*job{}, s.order...)
	s.mu.Unlock()
	body := struct {
		Jobs []client.Job `json:"jobs"`
	}{make([]client.Job, len(jobs))}
	for i, j := range jobs {
		body.Jobs[i] = j.describe()
	}
	writeJSON(w, http.StatusOK, body)
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	if j := s.find(w, r); j != nil {
		writeJob(w, j.describe(), j.reportJSON())
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
		s.log.Info("job canceled by request", "job", job.ID, "operation", job.Operation)
		j.cancel(errCanceled)
	}
	writeJSON(w, status, j.describe())
}

// addEvent adds an event to the buffer of a job, and trims the buffers if they exceed
// MaxBytes.
func (s *Server) addEvent(j *job, e operations.Event) {
	if s.events.Add(int64(j.add(e))) > s.opts.MaxBytes {
		s.trimEvents()
	}
}

// trimEvents drops the oldest events of the jobs with the largest buffers until the total
// is below 7/8 of MaxBytes, so that a job with many events does not displace the events of
// other jobs.
func (s *Server) trimEvents() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.events.Load() <= s.opts.MaxBytes {
		return
	}
	for {
		excess := int(s.events.Load() - s.opts.MaxBytes*7/8)
		var largest *job
		size := 0
		for _, j := range s.order {
			if n := j.eventBytes(); n > size {
				largest, size = j, n
			}
		}
		if excess <= 0 || largest == nil {
			return
		}
		s.events.Add(-int64(largest.shrink(min(excess, (size+1)/2))))
	}
}

// prune drops ended jobs that exceed KeepFor, KeepFinished or KeepBytes. The caller holds
// s.mu.
func (s *Server) prune() {
	oldest := time.Now().Add(-s.opts.KeepFor)
	isExcess := func() bool { return len(s.finished) > 1 && s.reportBytes > s.opts.KeepBytes }
	for len(s.finished) > 0 && (len(s.finished) > s.opts.KeepFinished || !s.finished[0].endedAt.After(oldest) || isExcess()) {
		j := s.finished[0]
		s.finished[0], s.finished = nil, s.finished[1:]
		s.reportBytes -= int64(len(j.reportJSON()))
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

// asError converts an error for the response.
func asError(err error) *operations.Error {
	var known *operations.Error
	switch {
	case errors.As(err, &known):
		errCopy := *known
		return &errCopy
	case errors.Is(err, context.Canceled):
		return &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: err.Error()}
	}
	return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Message: err.Error()}
}
