package operations

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// readFrames reads a stream to its end and writes what was in it on one line each.
func readFrames(r io.Reader) (string, error) {
	var b strings.Builder
	s := newFrames(r)
	for {
		f, err := s.next()
		switch {
		case err != nil:
			return b.String(), err
		case f.comment:
			b.WriteString("comment\n")
		default:
			fmt.Fprintf(&b, "%d %s %q\n", f.id, f.event, f.data)
		}
	}
}

func TestFrames(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ in, want string }{
		"empty":          {"", ""},
		"one":            {"id: 7\nevent: event\ndata: {}\n\n", "7 event \"{}\"\n"},
		"CRLF":           {"id: 7\r\nevent: event\r\ndata: {}\r\n\r\n", "7 event \"{}\"\n"},
		"lines":          {"data: a\ndata:b\ndata\ndata:  c\n\n", "0  \"a\\nb\\n\\n c\"\n"},
		"comments":       {": \n\n:x\ndata: a\n: within\n\n", "comment\ncomment\n0  \"a\"\n"},
		"no data":        {"event: x\nid: 3\n\ndata: a\n\n", "0  \"a\"\n"},
		"unknown field":  {"retry: 10\ndata: a\nfoo\n\n", "0  \"a\"\n"},
		"mark":           {"\xef\xbb\xbfdata: a\n\n", "0  \"a\"\n"},
		"bad ids":        {"id: x\ndata: a\n\nid: -1\ndata: b\n\nid: +1\ndata: c\n\nid: 99999999999999999999\ndata: d\n\n", "0  \"a\"\n0  \"b\"\n0  \"c\"\n0  \"d\"\n"},
		"cut in data":    {"data: a\n\ndata: b", "0  \"a\"\n"},
		"cut in an end":  {"data: a\n\ndata: b\n", "0  \"a\"\n"},
		"only new lines": {"\n\r\n\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{strings.NewReader(test.in), iotest.OneByteReader(strings.NewReader(test.in))} {
				got, err := readFrames(r)
				if got != test.want || !errors.Is(err, io.EOF) {
					t.Errorf("got %q, %v\nwant %q", got, err, test.want)
				}
			}
		})
	}
}

// endless is a line, or an event, that never ends.
type endless string

func (e endless) Read(p []byte) (int, error) {
	return copy(p, strings.Repeat(string(e), len(p)/len(e)+1)[:len(p)/len(e)*len(e)]), nil
}

func TestFramesTooBig(t *testing.T) {
	t.Parallel()
	for _, r := range []io.Reader{endless("x"), endless("data: " + strings.Repeat("x", 1000) + "\n")} {
		if got, err := readFrames(r); got != "" || !errors.Is(err, errFrameTooBig) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	big := strings.Repeat("x", maxFrame-10)
	if got, err := readFrames(strings.NewReader("data: " + big + "\n\n")); len(got) < len(big) || !errors.Is(err, io.EOF) {
		t.Errorf("an event that fits: %d bytes, %v", len(got), err)
	}
}

// However a stream comes in pieces, it says the same; and no event is made up
// from a stream that was cut.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("id: 7\r\nevent: event\ndata: {}\n\n: x\n\ndata: [DONE]\n\n"))
	f.Add([]byte("\xef\xbb\xbfdata\ndata:x\n\nid:1\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err := readFrames(bytes.NewReader(in))
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		pieces, _ := readFrames(iotest.HalfReader(iotest.OneByteReader(bytes.NewReader(in))))
		if pieces != whole {
			t.Errorf("in pieces %q, whole %q", pieces, whole)
		}
		cut, _ := readFrames(bytes.NewReader(in[:len(in)/2]))
		if !strings.HasPrefix(whole, cut) {
			t.Errorf("cut %q, whole %q", cut, whole)
		}
	})
}
