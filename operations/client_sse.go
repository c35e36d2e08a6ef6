package operations

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

// maxFrame is how many bytes one event of a stream may have, and so one line.
const maxFrame = 16 << 20

var errFrameTooBig = errors.New("an event is bigger than 16 MiB")

// frame is one event of an event stream, or a comment, which has nothing.
type frame struct {
	id      int64  // 0: none
	event   string // empty: "message"
	data    []byte // valid until the next call of next
	comment bool
}

// frames reads an event stream as the HTML standard has it (section 9.2,
// https://html.spec.whatwg.org/multipage/server-sent-events.html), but for
// lines that end in a lone CR, which nobody writes. Ids that are no positive
// numbers are passed over.
type frames struct {
	r     *bufio.Reader
	line  []byte // reused
	data  []byte // reused
	begun bool   // the stream's first line is read
}

func newFrames(r io.Reader) *frames {
	return &frames{r: bufio.NewReaderSize(r, 64<<10)}
}

// next returns the next event that has data, or a comment. An event that the
// stream ends within is none: the error is io.EOF then too.
func (s *frames) next() (frame, error) {
	var f frame
	s.data = s.data[:0]
	lines := 0
	for {
		line, err := s.readLine()
		if err != nil {
			return frame{}, err
		}
		if len(line) == 0 {
			if lines == 0 {
				f = frame{} // an event without data is none
				continue
			}
			f.data = s.data
			return f, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "":
			if lines == 0 && f.id == 0 && f.event == "" { // within an event it says nothing new
				return frame{comment: true}, nil
			}
		case "id":
			f.id = eventID(string(value))
		case "event":
			f.event = string(value)
		case "data":
			if len(s.data)+len(value) >= maxFrame {
				return frame{}, errFrameTooBig
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
func (s *frames) readLine() ([]byte, error) {
	s.line = s.line[:0]
	for {
		part, err := s.r.ReadSlice('\n')
		if len(s.line)+len(part) > maxFrame {
			return nil, errFrameTooBig
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
