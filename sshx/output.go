package sshx

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// tailSize is how much of standard error an ExitError keeps.
const tailSize = 4 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p[max(0, len(p)-tailSize):]...)
	if extra := len(t.buf) - tailSize; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
		t.cut = true
	}
	return len(p), nil
}

func (t *tail) String() string {
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

// gate passes output on to the caller's writer until it is shut: after that the writer is never called again. When the
// writer fails, the rest is thrown away and failed is told.
type gate struct {
	mu     sync.Mutex
	w      io.Writer // nil: nowhere
	failed func(error)
}

func (g *gate) Write(p []byte) (int, error) {
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

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.w = nil
}

// startMark is a line that a wrapper prints before the command's own output. What comes before it was printed by the
// start-up files of the login shell and is nobody's output.
const startMark = "sshx-0b7f1c-start"

// printMark is the shell code for it. The empty line ends a line of noise that has no end of its own.
const printMark = "echo; echo " + startMark

// noiseKept is how much of the noise is kept, to explain why a command did not start.
const noiseKept = 1 << 10

// afterMark passes on what comes after the line mark.
type afterMark struct {
	w     io.Writer
	seen  bool
	noise []byte // until the mark is seen: what came so far, cut at the front
}

var markLine = []byte("\n" + startMark + "\n")

func (a *afterMark) Write(p []byte) (int, error) {
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
