package jobs

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/operations/httpjson"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// apiError is an error response.
type apiError struct {
	status int
	err    *operations.Error
}

func apiErrorf(status int, code operations.Code, reason operations.Reason, format string, args ...any) *apiError {
	return &apiError{status, &operations.Error{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

// request is a parsed request to create a job.
type request struct {
	op       operations.Operation
	job      client.Job        // description of op
	digest   [sha256.Size]byte // of the body
	key      string            // Idempotency-Key; may be empty
	age      time.Duration     // Idempotency-Age: time since the key was first used
	id       string            // X-Request-Id; may be empty
	reserved int64             // share of Server.reserved; startJob moves it to the job
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	var req request
	defer func() { s.release(req.reserved) }()
	apiErr := s.parseRequest(w, r, &req)
	var j *job
	if apiErr == nil {
		j, apiErr = s.admit(&req)
	}
	if apiErr != nil {
		if apiErr.status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		writeError(w, apiErr.status, apiErr.err)
		return
	}
	w.Header().Set("Location", "/v1/jobs/"+j.id)
	writeJSON(w, http.StatusCreated, struct {
		JobID  string `json:"job_id"`
		SSEURL string `json:"sse_url"`
	}{j.id, "/v1/jobs/" + j.id + "/stream"})
}

// parseRequest parses a request.
func (s *Server) parseRequest(w http.ResponseWriter, r *http.Request, req *request) *apiError {
	// Only JSON is accepted: a browser sends this type to another origin only if CORS
	// allows it.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return apiErrorf(http.StatusUnsupportedMediaType, operations.CodeBadOperation, operations.ReasonUnsupportedMediaType,
			"invalid content type %q: want application/json", r.Header.Get("Content-Type"))
	}
	req.id, req.key = r.Header.Get(client.RequestIDHeader), r.Header.Get("Idempotency-Key")
	if len(req.key) > 200 {
		return apiErrorf(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "invalid Idempotency-Key of %d bytes: want at most 200", len(req.key))
	}
	if age := r.Header.Get("Idempotency-Age"); age != "" {
		seconds, err := strconv.ParseFloat(age, 64)
		if err != nil || !(seconds >= 0 && seconds < 1e9) {
			return apiErrorf(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "invalid Idempotency-Age %q: want seconds", age)
		}
		req.age = time.Duration(seconds*float64(time.Second)) + keyAgeMargin
	}
	body, apiErr := s.readBody(w, r, req)
	if apiErr != nil {
		return apiErr
	}
	req.digest = sha256.Sum256(body)
	var err error
	if req.op, err = operations.Parse(body); err != nil {
		return &apiError{http.StatusBadRequest, asError(err)}
	}
	req.job = client.NewJob("", req.op) // before s.mu is locked, because large operations take a while
	return nil
}

// readBody reads the body of an operation, if the memory limit allows it.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, req *request) ([]byte, *apiError) {
	control := http.NewResponseController(w)
	in := &bodyReader{Reader: r.Body, control: control, start: time.Now()}
	defer func() {
		if !in.failed { // after an error the deadline limits how long net/http drains the body
			_ = control.SetReadDeadline(time.Time{})
		}
	}()
	reject := func(status int, reason operations.Reason, format string, args ...any) ([]byte, *apiError) {
		_, _ = io.CopyN(io.Discard, in, s.opts.MaxBody) // most clients read the response only after sending the body
		return nil, apiErrorf(status, operations.CodeBadOperation, reason, format, args...)
	}
	expected := r.ContentLength
	if expected < 0 { // unknown
		expected = s.opts.MaxBody
	}
	if expected > s.opts.MaxBody {
		return reject(http.StatusRequestEntityTooLarge, operations.ReasonBodyTooLarge, "operation too large: want at most %s", bytesize.Format(s.opts.MaxBody))
	}
	if !s.reserve(req, expected) {
		return reject(http.StatusTooManyRequests, operations.ReasonBusy, "too many operations in progress: their size would exceed %s", bytesize.Format(s.opts.MaxBodyMemory))
	}
	body, err := io.ReadAll(io.LimitReader(in, s.opts.MaxBody+1))
	switch {
	case err != nil:
		return nil, apiErrorf(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "cannot read the operation: %v", err)
	case int64(len(body)) > s.opts.MaxBody:
		return reject(http.StatusRequestEntityTooLarge, operations.ReasonBodyTooLarge, "operation too large: want at most %s", bytesize.Format(s.opts.MaxBody))
	}
	s.reserve(req, int64(len(body))) // never fails: the body is not larger than expected
	return body, nil
}

// bodyReader limits the time to read each piece of a body, and requires the average rate
// minBodyRate.
type bodyReader struct {
	io.Reader
	control *http.ResponseController
	start   time.Time
	count   int64
	failed  bool // an error other than io.EOF
}

func (r *bodyReader) Read(p []byte) (int, error) {
	deadline := r.start.Add(2*readTimeout + time.Duration(r.count)*(time.Second/minBodyRate))
	if now := time.Now(); deadline.After(now.Add(readTimeout)) {
		deadline = now.Add(readTimeout)
	}
	_ = r.control.SetReadDeadline(deadline) // ignored if not supported
	n, err := r.Reader.Read(p)
	r.count += int64(n)
	r.failed = r.failed || err != nil && !errors.Is(err, io.EOF)
	return n, err
}

// reserve changes the reservation of a request to the given number of bytes, if the memory
// limit allows it.
func (s *Server) reserve(req *request, bytes int64) bool {
	if bytes <= minCountedBody {
		bytes = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes > req.reserved && s.reserved+bytes-req.reserved > s.opts.MaxBodyMemory {
		return false
	}
	s.reserved += bytes - req.reserved
	req.reserved = bytes
	return true
}

func (s *Server) release(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= bytes
}

// admit returns the job with the request's key, or starts a new job.
func (s *Server) admit(req *request) (*job, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune()
	if j := s.keys[req.key]; j != nil {
		if j.digest != req.digest {
			return nil, apiErrorf(http.StatusConflict, operations.CodeBadOperation, operations.ReasonInvalidOperation, "the Idempotency-Key was used for another operation")
		}
		return j, nil
	}
	switch {
	case s.closed:
		return nil, apiErrorf(http.StatusServiceUnavailable, operations.CodeFailed, operations.ReasonStopping, "rbee is shutting down and accepts no new jobs")
	case req.key != "" && req.age > 0 && time.Now().Add(-req.age).Before(s.keysSince):
		return nil, apiErrorf(http.StatusConflict, operations.CodeFailed, operations.ReasonFailed,
			"cannot determine whether the operation was started before the connection was lost: check before you run it again")
	case s.running >= s.opts.MaxRunning:
		return nil, apiErrorf(http.StatusTooManyRequests, operations.CodeFailed, operations.ReasonBusy, "%d jobs are already running, which is the limit", s.running)
	}
	return s.startJob(req), nil
}

// startJob creates a job and runs it. The caller holds s.mu.
func (s *Server) startJob(req *request) *job {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	id := hex.EncodeToString(random[:])
	ctx := client.WithRequestID(client.WithRequestID(context.Background(), id), req.id)
	ctx, cancel := context.WithCancelCause(ctx)
	j := newJob(ctx, id, req, s.opts, cancel)
	req.reserved = 0
	s.jobs[j.id] = j
	s.order = append(s.order, j)
	if req.key != "" {
		s.keys[req.key] = j
	}
	s.running++
	go s.run(ctx, j, req.op)
	return j
}

// methodNotAllowed returns a handler for requests with an unsupported method.
func methodNotAllowed(allowed string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowed)
		writeError(w, http.StatusMethodNotAllowed, &operations.Error{
			Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Subject: operations.SubjectAddress.WithName(r.URL.Path), Message: fmt.Sprintf("method %s is not allowed at %s", r.Method, r.URL.Path),
		})
	}
}

// writeError responds with an error.
func writeError(w http.ResponseWriter, status int, err *operations.Error) {
	writeJSON(w, status, httpjson.ErrorBody{Error: err})
}

// writeJSON responds with JSON.
func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // cannot happen: reports were encoded before
		httpjson.Write(w, status, v)
		return
	}
	data = append(data, '\n')
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	out := newTimedWriter(w) // resets the write deadline, which includes the time to read the request
	defer out.end()
	writeHeader(w, status)
	_ = out.send(data) // the client may have disconnected
}

// writeJob responds with a job and its report, which may be nil.
func writeJob(w http.ResponseWriter, job client.Job, report []byte) {
	data, err := json.Marshal(job)
	if err != nil || report == nil {
		writeJSON(w, http.StatusOK, job)
		return
	}
	writeHeader(w, http.StatusOK)
	out := newTimedWriter(w)
	defer out.end()
	data = append(data[:len(data)-1], `,"report":`...) // replaces the closing brace
	for _, part := range [][]byte{data, report, []byte("}\n")} {
		for len(part) > 0 {
			n := min(len(part), maxPieceBytes)
			if out.write(part[:n]) != nil {
				return // the client has disconnected
			}
			part = part[n:]
		}
	}
}

// writeHeader writes the header of a JSON response.
func writeHeader(w http.ResponseWriter, status int) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
}
