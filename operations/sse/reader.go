package sse

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// DefaultLimit is the default limit of [NewReader].
const DefaultLimit = 16 << 20

// bufferSize is the size of the read buffer of a Reader. Other buffers are reused if they are at most twice as large.
const bufferSize = 64 << 10

// ErrTooLong is wrapped by the error that [Reader.Next] returns for an event or a line that exceeds the limit.
var ErrTooLong = errors.New("event too long")

// Reader reads an event stream as defined by the HTML standard (section 9.2,
// https://html.spec.whatwg.org/multipage/server-sent-events.html). It differs from the
// standard in two ways: a lone CR does not end a line, and IDs that are not positive
// numbers are ignored.
type Reader struct {
	buf       *bufio.Reader
	limit     int
	line      []byte // reused
	data      []byte // reused
	firstRead bool   // the first line was read
	partial   []byte // data of an incomplete event at the end of the stream
}

// NewReader returns a Reader that reads from r. limit is the maximum number of bytes of an event or a line; 0 means
// [DefaultLimit].
func NewReader(r io.Reader, limit int) *Reader {
	if limit <= 0 {
		limit = DefaultLimit
	}
	return &Reader{buf: bufio.NewReaderSize(r, bufferSize), limit: limit}
}

// Next returns the next event with data, or the next comment. The data is valid until the
// next call. At the end of the stream, Next returns io.EOF. It does not return an
// incomplete event at the end of the stream; use [Reader.Partial] to get its data.
func (r *Reader) Next() (Event, error) {
	var event Event
	r.data = reuse(r.data)
	lines := 0
	for {
		line, err := r.readLine()
		if err != nil {
			r.savePartial(lines)
			return Event{}, err
		}
		if len(line) == 0 {
			if lines == 0 {
				event = Event{} // ignore an event without data
				continue
			}
			event.Data = r.data
			return event, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "":
			if lines == 0 && event.ID == 0 && event.Name == "" { // ignore comments within an event
				return Event{Comment: true, Data: value}, nil
			}
		case "id":
			event.ID = eventID(string(value))
		case "event":
			event.Name = string(value)
		case "data":
			if len(r.data)+len(value) >= r.limit {
				return Event{}, r.tooLong()
			}
			if lines++; lines > 1 {
				r.data = append(r.data, '\n')
			}
			r.data = append(r.data, value...)
		}
	}
}

// eventID parses the ID of an event. It returns 0 for an invalid ID.
func eventID(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strings.HasPrefix(s, "+") {
		return 0
	}
	return n
}

// readLine reads a line and removes its line ending. The line is valid until the next call.
func (r *Reader) readLine() ([]byte, error) {
	r.line = reuse(r.line)
	for {
		part, err := r.buf.ReadSlice('\n')
		if len(r.line)+len(part) > r.limit {
			return nil, r.tooLong()
		}
		r.line = append(r.line, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err // ignore an incomplete line
		}
		break
	}
	line := bytes.TrimSuffix(r.line[:len(r.line)-1], []byte("\r"))
	if !r.firstRead {
		r.firstRead = true
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")) // byte order mark
	}
	return line, nil
}

// savePartial stores the data of an incomplete event: its complete lines, and the received
// part of its last line.
func (r *Reader) savePartial(lines int) {
	r.partial = r.data
	if value, ok := bytes.CutPrefix(r.line, []byte("data:")); ok {
		if lines > 0 {
			r.partial = append(r.partial, '\n')
		}
		r.partial = append(r.partial, bytes.TrimPrefix(value, []byte(" "))...)
	}
}

// Partial returns the data of the incomplete event at the end of the stream, after [Reader.Next] has returned an error.
// The standard requires clients to discard this data, but some servers end a stream with "[DONE]" and no empty line.
func (r *Reader) Partial() []byte { return r.partial }

func (r *Reader) tooLong() error { return fmt.Errorf("%w: more than %d bytes", ErrTooLong, r.limit) }

// reuse returns b with length 0, or nil if the capacity of b is more than twice bufferSize.
func reuse(b []byte) []byte {
	if cap(b) > 2*bufferSize {
		return nil
	}
	return b[:0]
}
