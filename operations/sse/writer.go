package sse

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

// Append appends the encoded event to b and returns the extended buffer. Each line of the data becomes a separate field.
// The name, and the text of a comment, must not contain line breaks.
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

// Writer writes an event stream as the response to an HTTP request. It flushes after each write. It is not safe for
// concurrent use.
type Writer struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	buf     []byte // reused
}

// NewWriter returns a Writer and sets the Content-Type and Cache-Control headers of the response. It does not send
// anything. timeout is the deadline for each write.
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
	_ = w.control.SetWriteDeadline(time.Now().Add(w.timeout)) // if supported
	n, err := w.w.Write(encoded)
	if err != nil {
		return n, err
	}
	return n, w.control.Flush()
}

// Flush sends the headers. The error wraps [http.ErrNotSupported] if the ResponseWriter does not support flushing.
func (w *Writer) Flush() error { return w.control.Flush() }

// Close removes the write deadline, which would otherwise apply to the next response on the connection. It does not send
// anything and always returns nil.
func (w *Writer) Close() error {
	_ = w.control.SetWriteDeadline(time.Time{}) // if supported
	return nil
}

// LastData returns the value of the last data field in tail, the last bytes of a stream. ok is false if tail has no data
// field. Use LastData to examine the end of a stream that is forwarded without decoding its events.
func LastData(tail []byte) (value []byte, ok bool) {
	i := bytes.LastIndex(tail, []byte("\ndata:"))
	if i < 0 && !bytes.HasPrefix(tail, []byte("data:")) {
		return nil, false
	}
	value, _, _ = bytes.Cut(tail[i+1+len("data:"):], []byte("\n"))
	return bytes.TrimRight(bytes.TrimLeft(value, " "), "\r"), true
}
