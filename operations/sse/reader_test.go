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

// readEvents reads a stream to its end and returns its events and comments, one per line.
func readEvents(r io.Reader) (string, error) {
	var b strings.Builder
	events := NewReader(r, 0)
	for {
		event, err := events.Next()
		switch {
		case err != nil:
			return b.String(), err
		case event.Comment:
			b.WriteString("comment\n")
		default:
			fmt.Fprintf(&b, "%d %s %q\n", event.ID, event.Name, event.Data)
		}
	}
}

func TestReader(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ in, want string }{
		"empty":              {"", ""},
		"one event":          {"id: 7\nevent: event\ndata: {}\n\n", "7 event \"{}\"\n"},
		"CRLF":               {"id: 7\r\nevent: event\r\ndata: {}\r\n\r\n", "7 event \"{}\"\n"},
		"data lines":         {"data: a\ndata:b\ndata\ndata:  c\n\n", "0  \"a\\nb\\n\\n c\"\n"},
		"comments":           {": \n\n:x\ndata: a\n: within\n\n", "comment\ncomment\n0  \"a\"\n"},
		"no data":            {"event: x\nid: 3\n\ndata: a\n\n", "0  \"a\"\n"},
		"unknown field":      {"retry: 10\ndata: a\nfoo\n\n", "0  \"a\"\n"},
		"byte order mark":    {"\xef\xbb\xbfdata: a\n\n", "0  \"a\"\n"},
		"invalid IDs":        {"id: x\ndata: a\n\nid: -1\ndata: b\n\nid: +1\ndata: c\n\nid: 99999999999999999999\ndata: d\n\n", "0  \"a\"\n0  \"b\"\n0  \"c\"\n0  \"d\"\n"},
		"truncated data":     {"data: a\n\ndata: b", "0  \"a\"\n"},
		"missing empty line": {"data: a\n\ndata: b\n", "0  \"a\"\n"},
		"only line breaks":   {"\n\r\n\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{strings.NewReader(test.in), iotest.OneByteReader(strings.NewReader(test.in))} {
				got, err := readEvents(r)
				if got != test.want || !errors.Is(err, io.EOF) {
					t.Errorf("readEvents(%q) with %T = %q, %v\nwant %q, EOF", test.in, r, got, err, test.want)
				}
			}
		})
	}
}

// endlessReader repeats a string without end.
type endlessReader string

func (s endlessReader) Read(p []byte) (int, error) {
	return copy(p, strings.Repeat(string(s), len(p)/len(s)+1)[:len(p)/len(s)*len(s)]), nil
}

func TestReaderTooLong(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]io.Reader{
		"endless line":  endlessReader("x"),
		"endless event": endlessReader("data: " + strings.Repeat("x", 1000) + "\n"),
	} {
		if got, err := readEvents(r); got != "" || !errors.Is(err, ErrTooLong) {
			t.Errorf("%s: readEvents() returned %d bytes, error %v, want none and %v", name, len(got), err, ErrTooLong)
		}
	}
	big := strings.Repeat("x", DefaultLimit-10)
	if got, err := readEvents(strings.NewReader("data: " + big + "\n\n")); len(got) < len(big) || !errors.Is(err, io.EOF) {
		t.Errorf("readEvents() of an event of %d bytes returned %d bytes, error %v, want the complete event and EOF", len(big), len(got), err)
	}
}

// FuzzReader checks that the result does not depend on the sizes of the reads, and that a
// truncated stream returns a prefix of the events.
func FuzzReader(f *testing.F) {
	f.Add([]byte("id: 7\r\nevent: event\ndata: {}\n\n: x\n\ndata: [DONE]\n\n"))
	f.Add([]byte("\xef\xbb\xbfdata\ndata:x\n\nid:1\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		want, err := readEvents(bytes.NewReader(in))
		if !errors.Is(err, io.EOF) {
			t.Fatalf("readEvents(%q) returned error %v, want EOF", in, err)
		}
		if got, _ := readEvents(iotest.HalfReader(iotest.OneByteReader(bytes.NewReader(in)))); got != want {
			t.Errorf("readEvents(%q) in small pieces = %q, want %q", in, got, want)
		}
		if got, _ := readEvents(bytes.NewReader(in[:len(in)/2])); !strings.HasPrefix(want, got) {
			t.Errorf("readEvents() of the first half of %q = %q, want a prefix of %q", in, got, want)
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
