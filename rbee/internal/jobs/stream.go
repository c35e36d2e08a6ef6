package jobs

import (
	"bytes"
	"errors"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
)

// stream sends the events of a job at the reader's pace, then its result.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	j := s.find(w, r)
	if j == nil {
		return
	}
	after, no := lastEventID(r, j.describe().Events)
	if no != nil {
		writeError(w, no.status, no.err)
		return
	}
	out := sse.NewWriter(w, writeTimeout)
	h := w.Header()
	h.Set("X-Accel-Buffering", "no") // nginx would collect events
	h.Set("X-Content-Type-Options", "nosniff")
	defer j.addReader(s.opts.NoReaderTimeout)()
	defer out.Close()
	if err := out.Flush(); errors.Is(err, http.ErrNotSupported) { // nothing is written yet
		s.log.Error("a stream is not possible: what wraps the jobs handler hides http.Flusher")
		writeError(w, http.StatusInternalServerError, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonUnsupported, Message: "rbee there cannot stream"})
		return
	}

	var batch bytes.Buffer
	quiet := time.NewTimer(heartbeatInterval)
	defer quiet.Stop()
	for {
		batch.Reset()
		var end []byte
		var wake <-chan struct{}
		after, end, wake = j.read(after, &batch)
		if batch.Len() > 0 {
			if _, err := out.Write(batch.Bytes()); err != nil {
				return // the reader has gone, or is too slow to be one
			}
			continue
		}
		if end != nil {
			if sendReport(out, j.result()) == nil {
				_, _ = out.Write(end) // nothing comes after
			}
			return
		}
		quiet.Reset(heartbeatInterval)
		select {
		case <-wake:
		case <-r.Context().Done():
			return
		case <-quiet.C:
			if out.Send(sse.Event{Comment: true}) != nil {
				return
			}
		}
	}
}

// lastEventID is the id of the last event that the reader has. The header comes
// from a reader that goes on, whose address still has the old query.
func lastEventID(r *http.Request, last int64) (int64, *apiError) {
	from := r.Header.Get("Last-Event-ID")
	if from == "" {
		from = r.URL.Query().Get("after")
	}
	if from == "" {
		return 0, nil
	}
	after, err := strconv.ParseInt(from, 10, 64)
	if err != nil || after < 0 || after > last {
		return 0, apiErrorf(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "%q is no event of this job, want 0 to %d", from, last)
	}
	return after, nil
}

// sendReport sends a report that is too big for one event. In JSON that is written in one
// line any place will do to cut, but within a letter.
func sendReport(out *sse.Writer, report []byte) error {
	if len(report) <= maxPieceBytes {
		return nil // it is in the result
	}
	for len(report) > 0 {
		n := min(len(report), maxPieceBytes)
		for n < len(report) && !utf8.RuneStart(report[n]) {
			n--
		}
		if err := out.Send(sse.Event{Name: "report", Data: report[:n]}); err != nil {
			return err
		}
		report = report[n:]
	}
	return nil
}

// timedWriter writes pieces of an answer, each within its time.
type timedWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func newTimedWriter(w http.ResponseWriter) timedWriter {
	return timedWriter{w, http.NewResponseController(w)}
}

// end leaves the connection's next answer without a deadline of this one.
func (s timedWriter) end() { _ = s.control.SetWriteDeadline(time.Time{}) }

func (s timedWriter) send(data []byte) error {
	if err := s.write(data); err != nil {
		return err
	}
	return s.control.Flush()
}

func (s timedWriter) write(data []byte) error {
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // where it can be set
	_, err := s.w.Write(data)
	return err
}
