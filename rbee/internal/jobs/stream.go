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

// stream sends the events of a job and then its result.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	j := s.find(w, r)
	if j == nil {
		return
	}
	after, apiErr := lastEventID(r, j.describe().Events)
	if apiErr != nil {
		writeError(w, apiErr.status, apiErr.err)
		return
	}
	out := sse.NewWriter(w, writeTimeout)
	h := w.Header()
	h.Set("X-Accel-Buffering", "no") // disables buffering in nginx
	h.Set("X-Content-Type-Options", "nosniff")
	defer j.addReader(s.opts.NoReaderTimeout)()
	defer out.Close()
	if err := out.Flush(); errors.Is(err, http.ErrNotSupported) { // before anything is written
		s.log.Error("cannot stream job events", "error", err)
		writeError(w, http.StatusInternalServerError, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonUnsupported, Message: "cannot stream: the server does not support flushing"})
		return
	}

	var batch bytes.Buffer
	idle := time.NewTimer(heartbeatInterval)
	defer idle.Stop()
	for {
		batch.Reset()
		var end []byte
		var wake <-chan struct{}
		after, end, wake = j.read(after, &batch)
		if batch.Len() > 0 {
			if _, err := out.Write(batch.Bytes()); err != nil {
				return // the reader has disconnected or is too slow
			}
			continue
		}
		if end != nil {
			if sendReport(out, j.reportJSON()) == nil {
				_, _ = out.Write(end) // last write
			}
			return
		}
		idle.Reset(heartbeatInterval)
		select {
		case <-wake:
		case <-r.Context().Done():
			return
		case <-idle.C:
			if out.Send(sse.Event{Comment: true}) != nil {
				return
			}
		}
	}
}

// lastEventID returns the ID of the last event that the reader has received. The header
// overrides the query, which is not updated when a browser reconnects.
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
		return 0, apiErrorf(http.StatusBadRequest, operations.CodeBadOperation, operations.ReasonInvalidOperation, "invalid event ID %q: want 0 to %d", from, last)
	}
	return after, nil
}

// sendReport sends a report that is too large for one event in pieces. It does not split
// UTF-8 characters.
func sendReport(out *sse.Writer, report []byte) error {
	if len(report) <= maxPieceBytes {
		return nil // part of the result
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

// timedWriter writes pieces of a response with a deadline for each.
type timedWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func newTimedWriter(w http.ResponseWriter) timedWriter {
	return timedWriter{w, http.NewResponseController(w)}
}

// end removes the deadline, which would affect the next response on the connection.
func (t timedWriter) end() { _ = t.control.SetWriteDeadline(time.Time{}) }

func (t timedWriter) send(data []byte) error {
	if err := t.write(data); err != nil {
		return err
	}
	return t.control.Flush()
}

func (t timedWriter) write(data []byte) error {
	_ = t.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // ignored if not supported
	_, err := t.w.Write(data)
	return err
}
