package jobs

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// refusal is an answer that is an error.
type refusal struct {
	status int
	err    *operations.Error
}

func refusef(status int, code operations.Code, format string, args ...any) *refusal {
	return &refusal{status, &operations.Error{Code: code, Message: fmt.Sprintf(format, args...)}}
}

// asked is what a client sent.
type asked struct {
	op     operations.Operation
	digest [sha256.Size]byte // of the body
	key    string            // Idempotency-Key; empty: none
	age    time.Duration     // Idempotency-Age: how long ago the key was used first
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	a, no := s.read(w, r)
	var j *job
	if no == nil {
		j, no = s.admit(a)
	}
	if no != nil {
		if no.status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		refuse(w, no.status, no.err)
		return
	}
	w.Header().Set("Location", "/v1/jobs/"+j.id)
	reply(w, http.StatusCreated, struct {
		JobID  string `json:"job_id"`
		SSEURL string `json:"sse_url"`
	}{j.id, "/v1/jobs/" + j.id + "/stream"})
}

// read takes the request apart.
func (s *Server) read(w http.ResponseWriter, r *http.Request) (a asked, no *refusal) {
	// A page in a browser cannot send this type to another site without being
	// allowed to, so nothing else is taken for JSON.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return a, refusef(http.StatusUnsupportedMediaType, operations.CodeBadOperation,
			"the content type is %q, want application/json", r.Header.Get("Content-Type"))
	}
	a.key = r.Header.Get("Idempotency-Key")
	if len(a.key) > 200 {
		return a, refusef(http.StatusBadRequest, operations.CodeBadOperation, "the Idempotency-Key has %d bytes, want at most 200", len(a.key))
	}
	if age := r.Header.Get("Idempotency-Age"); age != "" {
		seconds, err := strconv.ParseFloat(age, 64)
		if err != nil || !(seconds >= 0 && seconds < 1e9) {
			return a, refusef(http.StatusBadRequest, operations.CodeBadOperation, "the Idempotency-Age is %q, want seconds", age)
		}
		a.age = time.Duration(seconds*float64(time.Second)) + keyMargin
	}

	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(readTimeout)) // where it can be set
	defer func() { _ = control.SetReadDeadline(time.Time{}) }()
	body, err := io.ReadAll(io.LimitReader(r.Body, s.opts.MaxBody+1))
	switch {
	case err != nil:
		return a, refusef(http.StatusBadRequest, operations.CodeBadOperation, "reading the operation: %v", err)
	case int64(len(body)) > s.opts.MaxBody:
		_, _ = io.CopyN(io.Discard, r.Body, 16<<20) // most clients read the answer only once they have sent all
		return a, refusef(http.StatusRequestEntityTooLarge, operations.CodeBadOperation, "the operation has more than %d bytes", s.opts.MaxBody)
	}
	a.digest = sha256.Sum256(body)
	if a.op, err = operations.Parse(body); err != nil {
		return a, &refusal{http.StatusBadRequest, asError(err)}
	}
	return a, nil
}

// admit returns the job of the key, or begins one.
func (s *Server) admit(a asked) (*job, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune()
	if j := s.keys[a.key]; j != nil {
		if j.digest != a.digest {
			return nil, refusef(http.StatusConflict, operations.CodeBadOperation, "the Idempotency-Key was used for another operation")
		}
		return j, nil
	}
	switch {
	case s.closed:
		return nil, refusef(http.StatusServiceUnavailable, operations.CodeFailed, "rbee there is ending and takes no new jobs")
	case a.key != "" && a.age > 0 && time.Now().Add(-a.age).Before(s.since):
		return nil, refusef(http.StatusConflict, operations.CodeFailed,
			"the connection was lost while the operation was sent, and rbee there cannot tell whether it was begun: look before it is asked for again")
	case s.running >= s.opts.MaxRunning:
		return nil, refusef(http.StatusTooManyRequests, operations.CodeFailed, "%d jobs run there already, which is the most", s.running)
	}
	return s.begin(a), nil
}

// begin makes a job and runs it. s.mu is held.
func (s *Server) begin(a asked) *job {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	ctx, cancel := context.WithCancelCause(context.Background())
	j := newJob(hex.EncodeToString(id[:]), a, s.opts.MaxEvents, cancel)
	s.jobs[j.id] = j
	s.order = append(s.order, j)
	if a.key != "" {
		s.keys[a.key] = j
	}
	s.running++
	go s.run(ctx, j, a.op)
	return j
}

// notAllowed answers requests with a method that there is not.
func notAllowed(allowed string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allowed)
		refuse(w, http.StatusMethodNotAllowed, &operations.Error{
			Code: operations.CodeUnsupported, Message: fmt.Sprintf("%s is not possible at %s", r.Method, r.URL.Path),
		})
	}
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, status int, err *operations.Error) {
	reply(w, status, struct {
		Error *operations.Error `json:"error"`
	}{err})
}

// reply answers with JSON.
func reply(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // a report that has been written once already: cannot be
		status, data = http.StatusInternalServerError, []byte(`{"error":{"code":"failed","message":"the answer cannot be written"}}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that has gone needs no answer
}
