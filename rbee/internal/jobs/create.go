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
)

// apiError is an answer that is an error.
type apiError struct {
	status int
	err    *operations.Error
}

func apiErrorf(status int, code operations.Code, reason operations.Reason, format string, args ...any) *apiError {
	return &apiError{status, &operations.Error{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

// request is what a client sent.
type request struct {
	op       operations.Operation
	job      client.Job        // op, described
	digest   [sha256.Size]byte // of the body
	key      string            // Idempotency-Key; empty: none
	age      time.Duration     // Idempotency-Age: how long ago the key was used first
	id       string            // X-Request-Id; empty: none
	reserved int64             // how much of Server.held is its; its job takes that over
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	var a request
	defer func() { s.release(a.reserved) }()
	no := s.parseRequest(w, r, &a)
	var j *job
	if no == nil {
		j, no = s.admit(&a)
	}
	if no != nil {
		if no.status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		writeError(w, no.status, no.err)
		return
	}
	w.Header().Set("Location", "/v1/jobs/"+j.id)
	writeJSON(w, http.StatusCreated, struct {
		JobID  string `json:"job_id"`
		SSEURL string `json:"sse_url"`
	}{j.id, "/v1/jobs/" + j.id + "/stream"})
}

// parseRequest takes the request apart.
func (s *Server) parseRequest(w http.ResponseWriter, r *http.Request, a *request) *apiError {
	// A page in a browser cannot send this type to another site without being
	// allowed to, so nothing else is taken for JSON.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return apiErrorf(http.StatusUnsupportedMediaType, operations.CodeBadOperation, operations.ReasonUnsupportedMediaType,
			"the content type is %q, want application/json", r.Header.Get("Content-Type"))
	}
	a.id, a.key = r.Header.Get(client.RequestIDHeader), r.Header.Get("Idempotency-Key")
	if len(a.key) > 200 {
		return apiErrorf(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "the Idempotency-Key has %d bytes, want at most 200", len(a.key))
	}
	if age := r.Header.Get("Idempotency-Age"); age != "" {
		seconds, err := strconv.ParseFloat(age, 64)
		if err != nil || !(seconds >= 0 && seconds < 1e9) {
			return apiErrorf(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "the Idempotency-Age is %q, want seconds", age)
		}
		a.age = time.Duration(seconds*float64(time.Second)) + keyAgeMargin
	}
	body, no := s.readBody(w, r, a)
	if no != nil {
		return no
	}
	a.digest = sha256.Sum256(body)
	var err error
	if a.op, err = operations.Parse(body); err != nil {
		return &apiError{http.StatusBadRequest, asError(err)}
	}
	a.job = client.NewJob("", a.op) // a long one takes a while
	return nil
}

// readBody reads an operation, at the sender's pace, if there is room for it.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, a *request) ([]byte, *apiError) {
	control := http.NewResponseController(w)
	from := &bodyReader{Reader: r.Body, control: control, start: time.Now()}
	defer func() {
		if !from.failed { // else what is left of the body would be waited for without a limit
			_ = control.SetReadDeadline(time.Time{})
		}
	}()
	refuse := func(status int, reason operations.Reason, format string, args ...any) ([]byte, *apiError) {
		_, _ = io.CopyN(io.Discard, from, s.opts.MaxBody) // most clients read the answer only once they have sent all
		return nil, apiErrorf(status, operations.CodeBadOperation, reason, format, args...)
	}
	expected := r.ContentLength
	if expected < 0 { // it does not say
		expected = s.opts.MaxBody
	}
	if expected > s.opts.MaxBody {
		return refuse(http.StatusRequestEntityTooLarge, operations.ReasonBodyTooLarge, "the operation has more than %d bytes", s.opts.MaxBody)
	}
	if !s.reserve(a, expected) {
		return refuse(http.StatusTooManyRequests, operations.ReasonBusy, "the operations that run there have %d bytes already, and this one has no room beside them", s.opts.MaxBodyMemory)
	}
	body, err := io.ReadAll(io.LimitReader(from, s.opts.MaxBody+1))
	switch {
	case err != nil:
		return nil, apiErrorf(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "reading the operation: %v", err)
	case int64(len(body)) > s.opts.MaxBody:
		return refuse(http.StatusRequestEntityTooLarge, operations.ReasonBodyTooLarge, "the operation has more than %d bytes", s.opts.MaxBody)
	}
	s.reserve(a, int64(len(body))) // never more than before
	return body, nil
}

// bodyReader gives every piece of a body its time, and the whole as much as its bytes are
// worth: it must not trickle for ever.
type bodyReader struct {
	io.Reader
	control *http.ResponseController
	start   time.Time
	count   int64
	failed  bool // it ended otherwise than with its end
}

func (t *bodyReader) Read(p []byte) (int, error) {
	due := t.start.Add(2*readTimeout + time.Duration(t.count)*(time.Second/minBodyRate))
	if now := time.Now(); due.After(now.Add(readTimeout)) {
		due = now.Add(readTimeout)
	}
	_ = t.control.SetReadDeadline(due) // where it can be set
	n, err := t.Reader.Read(p)
	t.count += int64(n)
	t.failed = t.failed || err != nil && !errors.Is(err, io.EOF)
	return n, err
}

// reserve counts so many bytes for an operation, in place of what it had, if there is
// room for them.
func (s *Server) reserve(a *request, bytes int64) bool {
	if bytes <= minCountedBody {
		bytes = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes > a.reserved && s.reserved+bytes-a.reserved > s.opts.MaxBodyMemory {
		return false
	}
	s.reserved += bytes - a.reserved
	a.reserved = bytes
	return true
}

func (s *Server) release(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= bytes
}

// admit returns the job of the key, or begins one.
func (s *Server) admit(a *request) (*job, *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune()
	if j := s.keys[a.key]; j != nil {
		if j.digest != a.digest {
			return nil, apiErrorf(http.StatusConflict, operations.CodeBadOperation, operations.ReasonInvalidOperation, "the Idempotency-Key was used for another operation")
		}
		return j, nil
	}
	switch {
	case s.closed:
		return nil, apiErrorf(http.StatusServiceUnavailable, operations.CodeFailed, operations.ReasonStopping, "rbee there is ending and takes no new jobs")
	case a.key != "" && a.age > 0 && time.Now().Add(-a.age).Before(s.keysSince):
		return nil, apiErrorf(http.StatusConflict, operations.CodeFailed, operations.ReasonFailed,
			"the connection was lost while the operation was sent, and rbee there cannot tell whether it was begun: look before it is asked for again")
	case s.running >= s.opts.MaxRunning:
		return nil, apiErrorf(http.StatusTooManyRequests, operations.CodeFailed, operations.ReasonBusy, "%d jobs run there already, which is the most", s.running)
	}
	return s.startJob(a), nil
}

// startJob makes a job and runs it. s.mu is held.
func (s *Server) startJob(a *request) *job {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	id := hex.EncodeToString(random[:])
	ctx := client.WithRequestID(client.WithRequestID(context.Background(), id), a.id)
	ctx, cancel := context.WithCancelCause(ctx)
	j := newJob(ctx, id, a, s.opts, cancel)
	a.reserved = 0
	s.jobs[j.id] = j
	s.order = append(s.order, j)
	if a.key != "" {
		s.keys[a.key] = j
	}
	s.running++
	go s.run(ctx, j, a.op)
	return j
}

// methodNotAllowed answers requests with a method that there is not.
func methodNotAllowed(allowed string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowed)
		writeError(w, http.StatusMethodNotAllowed, &operations.Error{
			Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Subject: operations.SubjectAddress.Named(r.URL.Path), Message: fmt.Sprintf("%s is not possible at %s", r.Method, r.URL.Path),
		})
	}
}

// writeError answers with an error.
func writeError(w http.ResponseWriter, status int, err *operations.Error) {
	writeJSON(w, status, httpjson.ErrorBody{Error: err})
}

// writeJSON answers with JSON.
func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // a report that has been written once already: cannot be
		httpjson.Write(w, status, v)
		return
	}
	data = append(data, '\n')
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	out := newTimedWriter(w) // what the request took to come is not the answer's time
	defer out.end()
	writeHeader(w, status)
	_ = out.send(data) // a client that has gone needs no answer
}

// writeJob answers with a job and its report, if there is one, at the reader's pace.
func writeJob(w http.ResponseWriter, job client.Job, report []byte) {
	data, err := json.Marshal(job)
	if err != nil || report == nil {
		writeJSON(w, http.StatusOK, job)
		return
	}
	writeHeader(w, http.StatusOK)
	out := newTimedWriter(w)
	defer out.end()
	data = append(data[:len(data)-1], `,"report":`...) // before the end of the object
	for _, part := range [][]byte{data, report, []byte("}\n")} {
		for len(part) > 0 {
			n := min(len(part), maxPieceBytes)
			if out.write(part[:n]) != nil {
				return // a client that has gone needs no more
			}
			part = part[n:]
		}
	}
}

// writeHeader sends the head of an answer in JSON.
func writeHeader(w http.ResponseWriter, status int) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
}
