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

// refusal is an answer that is an error.
type refusal struct {
	status int
	err    *operations.Error
}

func refusef(status int, code operations.Code, reason operations.Reason, format string, args ...any) *refusal {
	return &refusal{status, &operations.Error{Code: code, Reason: reason, Message: fmt.Sprintf(format, args...)}}
}

// asked is what a client sent.
type asked struct {
	op     operations.Operation
	job    client.Job        // op, described
	digest [sha256.Size]byte // of the body
	key    string            // Idempotency-Key; empty: none
	age    time.Duration     // Idempotency-Age: how long ago the key was used first
	id     string            // X-Request-Id; empty: none
	held   int64             // how much of Server.held is its; its job takes that over
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	var a asked
	defer func() { s.release(a.held) }()
	no := s.read(w, r, &a)
	var j *job
	if no == nil {
		j, no = s.admit(&a)
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
func (s *Server) read(w http.ResponseWriter, r *http.Request, a *asked) *refusal {
	// A page in a browser cannot send this type to another site without being
	// allowed to, so nothing else is taken for JSON.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return refusef(http.StatusUnsupportedMediaType, operations.CodeBadOperation, operations.ReasonUnsupportedMediaType,
			"the content type is %q, want application/json", r.Header.Get("Content-Type"))
	}
	a.id, a.key = r.Header.Get(client.RequestIDHeader), r.Header.Get("Idempotency-Key")
	if len(a.key) > 200 {
		return refusef(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "the Idempotency-Key has %d bytes, want at most 200", len(a.key))
	}
	if age := r.Header.Get("Idempotency-Age"); age != "" {
		seconds, err := strconv.ParseFloat(age, 64)
		if err != nil || !(seconds >= 0 && seconds < 1e9) {
			return refusef(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "the Idempotency-Age is %q, want seconds", age)
		}
		a.age = time.Duration(seconds*float64(time.Second)) + keyMargin
	}
	body, no := s.body(w, r, a)
	if no != nil {
		return no
	}
	a.digest = sha256.Sum256(body)
	var err error
	if a.op, err = operations.Parse(body); err != nil {
		return &refusal{http.StatusBadRequest, asError(err)}
	}
	a.job = client.NewJob("", a.op) // a long one takes a while
	return nil
}

// body reads an operation, at the sender's pace, if there is room for it.
func (s *Server) body(w http.ResponseWriter, r *http.Request, a *asked) ([]byte, *refusal) {
	control := http.NewResponseController(w)
	from := &timed{Reader: r.Body, control: control, begun: time.Now()}
	defer func() {
		if !from.failed { // else what is left of the body would be waited for without a limit
			_ = control.SetReadDeadline(time.Time{})
		}
	}()
	refuse := func(status int, reason operations.Reason, format string, args ...any) ([]byte, *refusal) {
		_, _ = io.CopyN(io.Discard, from, s.opts.MaxBody) // most clients read the answer only once they have sent all
		return nil, refusef(status, operations.CodeBadOperation, reason, format, args...)
	}
	expected := r.ContentLength
	if expected < 0 { // it does not say
		expected = s.opts.MaxBody
	}
	if expected > s.opts.MaxBody {
		return refuse(http.StatusRequestEntityTooLarge, operations.ReasonBodyTooLarge, "the operation has more than %d bytes", s.opts.MaxBody)
	}
	if !s.reserve(a, expected) {
		return refuse(http.StatusTooManyRequests, operations.ReasonBusy, "the operations that run there have %d bytes already, and this one has no room beside them", s.opts.MaxBodies)
	}
	body, err := io.ReadAll(io.LimitReader(from, s.opts.MaxBody+1))
	switch {
	case err != nil:
		return nil, refusef(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "reading the operation: %v", err)
	case int64(len(body)) > s.opts.MaxBody:
		return refuse(http.StatusRequestEntityTooLarge, operations.ReasonBodyTooLarge, "the operation has more than %d bytes", s.opts.MaxBody)
	}
	s.reserve(a, int64(len(body))) // never more than before
	return body, nil
}

// timed gives every piece of a body its time, and the whole as much as its bytes are
// worth: it must not trickle for ever.
type timed struct {
	io.Reader
	control *http.ResponseController
	begun   time.Time
	got     int64
	failed  bool // it ended otherwise than with its end
}

func (t *timed) Read(p []byte) (int, error) {
	due := t.begun.Add(2*readTimeout + time.Duration(t.got)*(time.Second/slowest))
	if now := time.Now(); due.After(now.Add(readTimeout)) {
		due = now.Add(readTimeout)
	}
	_ = t.control.SetReadDeadline(due) // where it can be set
	n, err := t.Reader.Read(p)
	t.got += int64(n)
	t.failed = t.failed || err != nil && !errors.Is(err, io.EOF)
	return n, err
}

// reserve counts so many bytes for an operation, in place of what it had, if there is
// room for them.
func (s *Server) reserve(a *asked, bytes int64) bool {
	if bytes <= smallBody {
		bytes = 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes > a.held && s.held+bytes-a.held > s.opts.MaxBodies {
		return false
	}
	s.held += bytes - a.held
	a.held = bytes
	return true
}

func (s *Server) release(bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held -= bytes
}

// admit returns the job of the key, or begins one.
func (s *Server) admit(a *asked) (*job, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prune()
	if j := s.keys[a.key]; j != nil {
		if j.digest != a.digest {
			return nil, refusef(http.StatusConflict, operations.CodeBadOperation, operations.ReasonInvalidOperation, "the Idempotency-Key was used for another operation")
		}
		return j, nil
	}
	switch {
	case s.closed:
		return nil, refusef(http.StatusServiceUnavailable, operations.CodeFailed, operations.ReasonStopping, "rbee there is ending and takes no new jobs")
	case a.key != "" && a.age > 0 && time.Now().Add(-a.age).Before(s.since):
		return nil, refusef(http.StatusConflict, operations.CodeFailed, operations.ReasonFailed,
			"the connection was lost while the operation was sent, and rbee there cannot tell whether it was begun: look before it is asked for again")
	case s.running >= s.opts.MaxRunning:
		return nil, refusef(http.StatusTooManyRequests, operations.CodeFailed, operations.ReasonBusy, "%d jobs run there already, which is the most", s.running)
	}
	return s.begin(a), nil
}

// begin makes a job and runs it. s.mu is held.
func (s *Server) begin(a *asked) *job {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	id := hex.EncodeToString(random[:])
	ctx := client.WithRequestID(client.WithRequestID(context.Background(), id), a.id)
	ctx, cancel := context.WithCancelCause(ctx)
	j := newJob(ctx, id, a, s.opts, cancel)
	a.held = 0
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
			Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Subject: operations.SubjectAddress.Named(r.URL.Path), Message: fmt.Sprintf("%s is not possible at %s", r.Method, r.URL.Path),
		})
	}
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, status int, err *operations.Error) {
	reply(w, status, httpjson.ErrorBody{Error: err})
}

// reply answers with JSON.
func reply(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil { // a report that has been written once already: cannot be
		httpjson.Write(w, status, v)
		return
	}
	data = append(data, '\n')
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	out := newSender(w) // what the request took to come is not the answer's time
	defer out.end()
	writeHead(w, status)
	_ = out.send(data) // a client that has gone needs no answer
}

// replyWith answers with a job and its report, if there is one, at the reader's pace.
func replyWith(w http.ResponseWriter, job client.Job, report []byte) {
	data, err := json.Marshal(job)
	if err != nil || report == nil {
		reply(w, http.StatusOK, job)
		return
	}
	writeHead(w, http.StatusOK)
	out := newSender(w)
	defer out.end()
	data = append(data[:len(data)-1], `,"report":`...) // before the end of the object
	for _, part := range [][]byte{data, report, []byte("}\n")} {
		for len(part) > 0 {
			n := min(len(part), pieceBytes)
			if out.write(part[:n]) != nil {
				return // a client that has gone needs no more
			}
			part = part[n:]
		}
	}
}

// writeHead sends the head of an answer in JSON.
func writeHead(w http.ResponseWriter, status int) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
}
