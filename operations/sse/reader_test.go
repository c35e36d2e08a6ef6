package sse

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// readEvents reads a stream to its end and writes what was in it on one line each.
func readEvents(r io.Reader) (string, error) {
	var b strings.Builder
	s := NewReader(r, 0)
	for {
		f, err := s.Next()
		switch {
		case err != nil:
			return b.String(), err
		case f.Comment:
			b.WriteString("comment\n")
		default:
			fmt.Fprintf(&b, "%d %s %q\n", f.ID, f.Name, f.Data)
		}
	}
}

func TestReader(t *testing.T) {
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
				got, err := readEvents(r)
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

func TestReaderTooLong(t *testing.T) {
	t.Parallel()
	for _, r := range []io.Reader{endless("x"), endless("data: " + strings.Repeat("x", 1000) + "\n")} {
		if got, err := readEvents(r); got != "" || !errors.Is(err, ErrTooLong) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	big := strings.Repeat("x", DefaultLimit-10)
	if got, err := readEvents(strings.NewReader("data: " + big + "\n\n")); len(got) < len(big) || !errors.Is(err, io.EOF) {
		t.Errorf("an event that fits: %d bytes, %v", len(got), err)
	}
}

// However a stream comes in pieces, it says the same; and no event is made up
// from a stream that was cut.
func FuzzReader(f *testing.F) {
	f.Add([]byte("id: 7\r\nevent: event\ndata: {}\n\n: x\n\ndata: [DONE]\n\n"))
	f.Add([]byte("\xef\xbb\xbfdata\ndata:x\n\nid:1\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, err := readEvents(bytes.NewReader(in))
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		pieces, _ := readEvents(iotest.HalfReader(iotest.OneByteReader(bytes.NewReader(in))))
		if pieces != whole {
			t.Errorf("in pieces %q, whole %q", pieces, whole)
		}
		cut, _ := readEvents(bytes.NewReader(in[:len(in)/2]))
		if !strings.HasPrefix(whole, cut) {
			t.Errorf("cut %q, whole %q", cut, whole)
		}
	})
}

func TestPartial(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "data: a\n\n": "", "data: a\n\ndata: b": "b", "data: a\n\ndata: b\n": "b", "data: b\r\n": "b", "data: b\ndata: c": "b\nc", "data: a\n\nevent: x": "",
	} {
		r := NewReader(strings.NewReader(in), 0)
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
		if got := string(r.Partial()); got != want {
			t.Errorf("Partial() after %q = %q, want %q", in, got, want)
		}
	}
}
