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

// Tail is a writer that keeps the last [TailSize] bytes.
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

// Gate passes output to a writer until it is closed. After that, it does not call the writer. If the writer returns an error,
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

// StartMark is a line that is printed before the output of a command. Output before it is from the start-up files of the login
// shell.
const StartMark = "sshx-0b7f1c-start"

// PrintMark is the shell command that prints StartMark. The empty line terminates an incomplete line before it.
const PrintMark = "echo; echo " + StartMark

// maxPreamble limits how many bytes of output before the mark are kept for error messages.
const maxPreamble = 1 << 10

// MarkFilter passes on the output after the line [StartMark].
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
func (a *MarkFilter) Seen() bool { return a.seen }

// Preamble returns the last output before the mark. It is empty after the mark has been written.
func (a *MarkFilter) Preamble() []byte { return a.preamble }

var markLine = []byte("\n" + StartMark + "\n")

func (a *MarkFilter) Write(p []byte) (int, error) {
	if a.seen {
		return a.w.Write(p)
	}
	n := len(p)
	a.preamble = append(a.preamble, p...)
	i := bytes.Index(a.preamble, markLine)
	if i < 0 {
		if extra := len(a.preamble) - maxPreamble - len(markLine); extra > 0 {
			a.preamble = append(a.preamble[:0], a.preamble[extra:]...)
		}
		return n, nil
	}
	rest := a.preamble[i+len(markLine):]
	a.seen, a.preamble = true, nil
	if len(rest) > 0 {
		if _, err := a.w.Write(rest); err != nil {
			return 0, err
		}
	}
	return n, nil
}
