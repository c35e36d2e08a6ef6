package ui

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Text passes on what a model or a worker writes, piece by piece. It must not be
// used by several goroutines at once.
type Text struct {
	w        io.Writer
	terminal bool
	cr, open bool // the last character was a carriage return, or not the end of a line
	written  bool
	err      error
}

// NewText writes to w. For a terminal, control characters that could do more
// than end a line or move to the next tab stop are taken out, and a carriage
// return, which could write over what stands there, ends the line.
func NewText(w io.Writer, terminal bool) *Text { return &Text{w: w, terminal: terminal} }

// Write passes a piece on. After an error it does nothing.
func (t *Text) Write(piece string) {
	if t.terminal {
		piece = t.harmless(piece)
	}
	if piece == "" || t.err != nil {
		return
	}
	_, t.err = io.WriteString(t.w, piece)
	t.written, t.open = true, !strings.HasSuffix(piece, "\n")
}

func (t *Text) harmless(piece string) string {
	var b strings.Builder
	for _, r := range piece {
		switch {
		case r == '\n' && t.cr: // the return before it has ended the line
		case r == '\n', r == '\r':
			b.WriteByte('\n')
		case r == '\t', !format.IsHidden(r):
			b.WriteRune(r)
		}
		t.cr = r == '\r'
	}
	return b.String()
}

// printable is one line of foreign text as it stands, without what is hidden.
func printable(line string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case format.IsHidden(r), r == utf8.RuneError:
			return -1
		}
		return r
	}, line)
}

// Written reports whether anything was written.
func (t *Text) Written() bool { return t.written }

// EndLine ends a line that is open.
func (t *Text) EndLine() {
	if t.open {
		t.Write("\n")
	}
}

// Err is the first error of writing.
func (t *Text) Err() error { return t.err }

// Answered writes one line about an answer: its tokens, how long they took and
// where they came from.
func Answered(w io.Writer, s Style, r *operations.InferReport) error {
	var parts []string
	if r.CompletionTokens > 0 {
		parts = append(parts, format.Count(r.CompletionTokens, "token"))
	}
	if r.PromptTokens > 0 {
		parts = append(parts, format.Count(r.PromptTokens, "prompt token"))
	}
	if r.FirstTokenSeconds > 0 {
		parts = append(parts, "first after "+format.ShortSeconds(r.FirstTokenSeconds))
	}
	if speed := tokenRate(r); speed != "" {
		parts = append(parts, speed)
	}
	parts = append(parts, format.Seconds(r.DurationSeconds)+" in all")
	if r.WorkerID != "" {
		parts = append(parts, r.WorkerID+atHive(r.Hive))
	}
	_, err := io.WriteString(w, s.paint(format.Faint, oneLine(strings.Join(parts, ", ")))+"\n")
	return err
}

// tokenRate is how fast tokens came once the first was there.
func tokenRate(r *operations.InferReport) string {
	n, took := float64(r.CompletionTokens), r.DurationSeconds
	if n > 1 && r.FirstTokenSeconds > 0 && r.FirstTokenSeconds < took {
		n, took = n-1, took-r.FirstTokenSeconds
	}
	if n == 0 || took <= 0 {
		return ""
	}
	return fmt.Sprintf("%.1f tokens/s", n/took)
}

// NothingMade writes that a workflow has made nothing that could be saved.
func NothingMade(w io.Writer, s Style) error {
	p := &page{style: s}
	p.warn("", "the workflow ran and made nothing that can be saved")
	p.hint("it needs a node such as SaveImage at its end; and what was made before with the same seed is not made again")
	_, err := io.WriteString(w, p.text.String())
	return err
}

// CutShort writes that an answer was ended by its limit of tokens.
func CutShort(w io.Writer, s Style, limit int) error {
	p := &page{style: s}
	p.warn("", "the answer ends after "+format.Count(limit, "token")+", its limit")
	p.hint("--max-tokens allows more")
	_, err := io.WriteString(w, p.text.String())
	return err
}

// Warning tells of something that is not as it may be wished, and what to do about
// it; hint may be empty.
func Warning(w io.Writer, s Style, text, hint string) error {
	p := &page{style: s}
	p.warn("", text)
	if hint != "" {
		p.hint(hint)
	}
	_, err := io.WriteString(w, p.text.String())
	return err
}
