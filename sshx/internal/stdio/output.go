// Package stdio provides readers and writers for the standard streams of a command.
package stdio

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// TailSize is the size of a [Tail] in bytes.
const TailSize = 4 << 10

// Tail is a writer that stores the last [TailSize] bytes.
type Tail struct {
	mu  sync.Mutex
	buf []byte
	cut bool
}

func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[max(0, len(p)-TailSize):]...)
	if extra := len(t.buf) - TailSize; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
		t.cut = true
	}
	return len(p), nil
}

func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := string(t.buf)
	if t.cut { // start with a complete line
		if _, rest, ok := strings.Cut(s, "\n"); ok {
			s = rest
		}
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Gate passes output to a writer until the Gate is closed. After that, it discards the output. If the writer returns an error,
// Gate calls onError and discards further output.
type Gate struct {
	mu      sync.Mutex
	w       io.Writer // nil discards the output
	onError func(error)
}

// NewGate returns an open Gate to w. A nil w discards the output.
func NewGate(w io.Writer, onError func(error)) *Gate { return &Gate{w: w, onError: onError} }

func (g *Gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.w != nil {
		if _, err := g.w.Write(p); err != nil {
			g.w = nil
			g.onError(err)
		}
	}
	return len(p), nil
}

// Close detaches the writer.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.w = nil
}

// StartMark is a line that is printed before the output of a command. The output before this line is from the start-up files
// of the login shell.
const StartMark = "sshx-0b7f1c-start"

// PrintMark is the shell command that prints an empty line and StartMark. The empty line terminates an incomplete line of the
// start-up files.
const PrintMark = "echo; echo " + StartMark

// maxPreamble limits the size of [MarkFilter.Preamble].
const maxPreamble = 1 << 10

// MarkFilter passes the output after the line [StartMark] to a writer.
type MarkFilter struct {
	w        io.Writer
	seen     bool
	preamble []byte // the last output before the mark
}

// NewMarkFilter returns a MarkFilter that writes to w. A nil w discards the output.
func NewMarkFilter(w io.Writer) *MarkFilter {
	if w == nil {
		w = io.Discard
	}
	return &MarkFilter{w: w}
}

// Seen reports whether the mark has been written.
func (f *MarkFilter) Seen() bool { return f.seen }

// Preamble returns the last output before the mark, for error messages. It is empty after the mark has been written.
func (f *MarkFilter) Preamble() []byte { return f.preamble }

var markLine = []byte("\n" + StartMark + "\n")

func (f *MarkFilter) Write(p []byte) (int, error) {
	if f.seen {
		return f.w.Write(p)
	}
	n := len(p)
	f.preamble = append(f.preamble, p...)
	i := bytes.Index(f.preamble, markLine)
	if i < 0 {
		if extra := len(f.preamble) - maxPreamble - len(markLine); extra > 0 {
			f.preamble = append(f.preamble[:0], f.preamble[extra:]...)
		}
		return n, nil
	}
	rest := f.preamble[i+len(markLine):]
	f.seen, f.preamble = true, nil
	if len(rest) > 0 {
		if _, err := f.w.Write(rest); err != nil {
			return 0, err
		}
	}
	return n, nil
}
