// Package stdio has the readers and writers that stand between a command and its caller.
package stdio

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// TailSize is how much of standard error an ExitError keeps.
const TailSize = 4 << 10

// Tail keeps the end of what is written to it.
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
	if t.cut { // not in the middle of a line
		if _, rest, ok := strings.Cut(s, "\n"); ok {
			s = rest
		}
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Gate passes output on to the caller's writer until it is shut: after that the writer is never called again. When the
// writer fails, the rest is thrown away and failed is told.
type Gate struct {
	mu     sync.Mutex
	w      io.Writer // nil: nowhere
	failed func(error)
}

// NewGate returns an open gate to w. A nil w discards the output.
func NewGate(w io.Writer, failed func(error)) *Gate { return &Gate{w: w, failed: failed} }

func (g *Gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.w != nil {
		if _, err := g.w.Write(p); err != nil {
			g.w = nil
			g.failed(err)
		}
	}
	return len(p), nil
}

// Close detaches the caller's writer.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.w = nil
}

// StartMark is a line that a wrapper prints before the command's own output. What comes before it was printed by the
// start-up files of the login shell and is nobody's output.
const StartMark = "sshx-0b7f1c-start"

// PrintMark is the shell code for it. The empty line ends a line of noise that has no end of its own.
const PrintMark = "echo; echo " + StartMark

// noiseKept is how much of the noise is kept, to explain why a command did not start.
const noiseKept = 1 << 10

// MarkFilter passes on what comes after the line [StartMark].
type MarkFilter struct {
	w     io.Writer
	seen  bool
	noise []byte // until the mark is seen: what came so far, cut at the front
}

// NewMarkFilter returns a filter that writes to w. A nil w discards the output.
func NewMarkFilter(w io.Writer) *MarkFilter {
	if w == nil {
		w = io.Discard
	}
	return &MarkFilter{w: w}
}

// Seen reports whether the mark has been written.
func (a *MarkFilter) Seen() bool { return a.seen }

// Noise returns the end of what was written before the mark; it is empty once the mark has been written.
func (a *MarkFilter) Noise() []byte { return a.noise }

var markLine = []byte("\n" + StartMark + "\n")

func (a *MarkFilter) Write(p []byte) (int, error) {
	if a.seen {
		return a.w.Write(p)
	}
	n := len(p)
	a.noise = append(a.noise, p...)
	i := bytes.Index(a.noise, markLine)
	if i < 0 {
		if extra := len(a.noise) - noiseKept - len(markLine); extra > 0 {
			a.noise = append(a.noise[:0], a.noise[extra:]...)
		}
		return n, nil
	}
	rest := a.noise[i+len(markLine):]
	a.seen, a.noise = true, nil
	if len(rest) > 0 {
		if _, err := a.w.Write(rest); err != nil {
			return 0, err
		}
	}
	return n, nil
}
