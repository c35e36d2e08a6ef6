package sse

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

// Append appends an event as it is sent, and returns the extended buffer. Each line of the data gets a field of its own. A
// name or a comment must not contain a line break.
func Append(b []byte, e Event) []byte {
	if e.Comment {
		b = append(b, ": "...)
		b = append(b, e.Data...)
		return append(b, "\n\n"...)
	}
	if e.ID > 0 {
		b = append(b, "id: "...)
		b = strconv.AppendInt(b, e.ID, 10)
		b = append(b, '\n')
	}
	if e.Name != "" {
		b = append(b, "event: "...)
		b = append(b, e.Name...)
		b = append(b, '\n')
	}
	for rest, more := e.Data, true; more; {
		var line []byte
		line, rest, more = bytes.Cut(rest, []byte("\n"))
		b = append(b, "data: "...)
		b = append(b, line...)
		b = append(b, '\n')
	}
	return append(b, '\n')
}

// Writer sends a stream as the answer to an HTTP request. Everything is sent at once. It is for one goroutine.
type Writer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	buf     []byte // reused
}

// NewWriter sets the headers of an answer that is a stream: its type, and that no cache keeps it. It sends nothing yet.
// timeout is how long a client may take to accept a piece.
func NewWriter(w http.ResponseWriter, timeout time.Duration) *Writer {
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set("Cache-Control", "no-store")
	return &Writer{w: w, control: http.NewResponseController(w), timeout: timeout}
}

// Send sends an event or a comment.
func (w *Writer) Send(e Event) error {
	w.buf = Append(reuse(w.buf), e)
	_, err := w.Write(w.buf)
	return err
}

// Write sends events that [Append] has encoded.
func (w *Writer) Write(encoded []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) // where it can be set
	n, err := w.w.Write(encoded)
	if err != nil {
		return n, err
	}
	return n, w.control.Flush()
}

// Flush sends the headers. The error wraps [http.ErrNotSupported] if the answer cannot be a stream.
func (w *Writer) Flush() error { return w.control.Flush() }

// Close removes the deadline, which would otherwise apply to the connection's next answer. It sends nothing.
func (w *Writer) Close() error {
	_ = w.control.SetWriteDeadline(time.Time{}) // where it can be set
	return nil
}

// LastData returns the value of the last data field in end, the last bytes of a stream, up to the end of its line. ok is
// false if there is none. It is for who passes a stream on without reading its events.
func LastData(end []byte) (value []byte, ok bool) {
	i := bytes.LastIndex(end, []byte("\ndata:"))
	if i < 0 && !bytes.HasPrefix(end, []byte("data:")) {
		return nil, false
	}
	value, _, _ = bytes.Cut(end[i+1+len("data:"):], []byte("\n"))
	return bytes.TrimRight(bytes.TrimLeft(value, " "), "\r"), true
}
