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

// bufferSize is the size of a reader's buffers between two events.
const bufferSize = 64 << 10

// ErrTooLong is wrapped by the error of [Reader.Next] for an event or a line that exceeds the limit.
var ErrTooLong = errors.New("event too long")

// Reader reads an event stream as defined by the HTML standard (section 9.2,
// https://html.spec.whatwg.org/multipage/server-sent-events.html). It differs from the
// standard in two ways: a lone CR does not end a line, and ids that are not positive
// numbers are ignored.
type Reader struct {
	r         *bufio.Reader
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
	return &Reader{r: bufio.NewReaderSize(r, bufferSize), limit: limit}
}

// Next returns the next event with data, or the next comment. The data is valid until the
// next call. At the end of the stream, Next returns io.EOF. It does not return an
// incomplete event at the end of the stream; use [Reader.Partial] to get its data.
func (s *Reader) Next() (Event, error) {
	var f Event
	s.data = reuse(s.data)
	lines := 0
	for {
		line, err := s.readLine()
		if err != nil {
			s.keepPartial(lines)
			return Event{}, err
		}
		if len(line) == 0 {
			if lines == 0 {
				f = Event{} // ignore an event without data
				continue
			}
			f.Data = s.data
			return f, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "":
			if lines == 0 && f.ID == 0 && f.Name == "" { // ignore comments within an event
				return Event{Comment: true, Data: value}, nil
			}
		case "id":
			f.ID = eventID(string(value))
		case "event":
			f.Name = string(value)
		case "data":
			if len(s.data)+len(value) >= s.limit {
				return Event{}, s.tooLong()
			}
			if lines++; lines > 1 {
				s.data = append(s.data, '\n')
			}
			s.data = append(s.data, value...)
		}
	}
}

// eventID parses the id of an event. It returns 0 for an invalid id.
func eventID(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strings.HasPrefix(s, "+") {
		return 0
	}
	return n
}

// readLine reads a line and removes its line ending. The line is valid until the next call.
func (s *Reader) readLine() ([]byte, error) {
	s.line = reuse(s.line)
	for {
		part, err := s.r.ReadSlice('\n')
		if len(s.line)+len(part) > s.limit {
			return nil, s.tooLong()
		}
		s.line = append(s.line, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return nil, err // ignore an incomplete line
		}
		break
	}
	line := bytes.TrimSuffix(s.line[:len(s.line)-1], []byte("\r"))
	if !s.firstRead {
		s.firstRead = true
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")) // byte order mark
	}
	return line, nil
}

// keepPartial stores the data of an incomplete event: its complete lines and the part of the
// last line.
func (s *Reader) keepPartial(lines int) {
	s.partial = s.data
	if value, ok := bytes.CutPrefix(s.line, []byte("data:")); ok {
		if lines > 0 {
			s.partial = append(s.partial, '\n')
		}
		s.partial = append(s.partial, bytes.TrimPrefix(value, []byte(" "))...)
	}
}

// Partial returns the data of the incomplete event at the end of the stream, after [Reader.Next] has returned an error.
// The standard requires clients to discard it, but some servers end a stream with "[DONE]" without the empty line after it.
func (s *Reader) Partial() []byte { return s.partial }

func (s *Reader) tooLong() error { return fmt.Errorf("%w: more than %d bytes", ErrTooLong, s.limit) }

// reuse returns the buffer with length 0, or nil if its capacity is large.
func reuse(b []byte) []byte {
	if cap(b) > 2*bufferSize {
		return nil
	}
	return b[:0]
}
