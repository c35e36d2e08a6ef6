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

// DefaultLimit is the number of bytes that one event may have if [NewReader] is given no limit.
const DefaultLimit = 16 << 20

// bufferSize is the size of a reader's buffers between two events.
const bufferSize = 64 << 10

// ErrTooLong is wrapped by the error of [Reader.Next] for an event with more bytes than the limit.
var ErrTooLong = errors.New("event too long")

// Reader reads an event stream as the HTML standard has it (section 9.2,
// https://html.spec.whatwg.org/multipage/server-sent-events.html), but for
// lines that end in a lone CR, which nobody writes. Ids that are no positive
// numbers are passed over.
type Reader struct {
	r       *bufio.Reader
	limit   int
	line    []byte // reused
	data    []byte // reused
	begun   bool   // the stream's first line is read
	partial []byte // data of an event that the stream ended within
}

// NewReader returns a reader of r whose events and lines have at most limit bytes; 0 stands for [DefaultLimit].
func NewReader(r io.Reader, limit int) *Reader {
	if limit <= 0 {
		limit = DefaultLimit
	}
	return &Reader{r: bufio.NewReaderSize(r, bufferSize), limit: limit}
}

// Next returns the next event that has data, or a comment. An event that the
// stream ends within is none: the error is io.EOF then too, and [Reader.Partial]
// returns its data. The data is valid until the next call.
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
				f = Event{} // an event without data is none
				continue
			}
			f.Data = s.data
			return f, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "":
			if lines == 0 && f.ID == 0 && f.Name == "" { // within an event it says nothing new
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

// eventID reads the id of an event; 0 for what is none.
func eventID(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strings.HasPrefix(s, "+") {
		return 0
	}
	return n
}

// readLine reads a line without its end. It is valid until the next call.
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
			return nil, err // a line without an end is none
		}
		break
	}
	line := bytes.TrimSuffix(s.line[:len(s.line)-1], []byte("\r"))
	if !s.begun {
		s.begun = true
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf")) // a byte order mark
	}
	return line, nil
}

// keepPartial keeps the data of an event that has no end: its complete lines, and what
// there is of the last one.
func (s *Reader) keepPartial(lines int) {
	s.partial = s.data
	if value, ok := bytes.CutPrefix(s.line, []byte("data:")); ok {
		if lines > 0 {
			s.partial = append(s.partial, '\n')
		}
		s.partial = append(s.partial, bytes.TrimPrefix(value, []byte(" "))...)
	}
}

// Partial returns the data of the event that the stream ended within, after [Reader.Next] has returned an error. A
// standard reader drops it; servers that end a stream with "[DONE]" and no empty line are known.
func (s *Reader) Partial() []byte { return s.partial }

func (s *Reader) tooLong() error { return fmt.Errorf("%w: more than %d bytes", ErrTooLong, s.limit) }

// reuse empties a buffer, or drops one that has become big.
func reuse(b []byte) []byte {
	if cap(b) > 2*bufferSize {
		return nil
	}
	return b[:0]
}
