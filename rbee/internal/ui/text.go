package ui

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Text writes the output of a model or a worker, piece by piece. It is not safe
// for concurrent use.
type Text struct {
	w        io.Writer
	terminal bool
	cr       bool // the last character was a carriage return
	open     bool // the last line is not terminated
	written  bool
	err      error
}

// NewText returns a Text that writes to w. For a terminal, it removes control
// characters except line feeds and tabs, and replaces carriage returns, which
// could overwrite a line, with line feeds.
func NewText(w io.Writer, terminal bool) *Text { return &Text{w: w, terminal: terminal} }

// Write writes a piece. After an error it does nothing.
func (t *Text) Write(piece string) {
	if t.terminal {
		piece = t.sanitize(piece)
	}
	if piece == "" || t.err != nil {
		return
	}
	_, t.err = io.WriteString(t.w, piece)
	t.written, t.open = true, !strings.HasSuffix(piece, "\n")
}

// sanitize removes control characters.
func (t *Text) sanitize(piece string) string {
	var b strings.Builder
	for _, r := range piece {
		switch {
		case r == '\n' && t.cr: // the carriage return has already ended the line
		case r == '\n', r == '\r':
			b.WriteByte('\n')
		case r == '\t', !format.IsHidden(r):
			b.WriteRune(r)
		}
		t.cr = r == '\r'
	}
	return b.String()
}

// printable returns a line of external text without hidden characters, with its
// spaces unchanged.
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

// HasText reports whether anything was written.
func (t *Text) HasText() bool { return t.written }

// EndLine terminates the last line, if it is not terminated.
func (t *Text) EndLine() {
	if t.open {
		t.Write("\n")
	}
}

// Err returns the first write error, or nil.
func (t *Text) Err() error { return t.err }

// AnswerStats writes one line about an answer: token counts, times, speed and worker.
func AnswerStats(w io.Writer, s Style, r *operations.InferReport) error {
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
	parts = append(parts, format.Seconds(r.DurationSeconds)+" total")
	if r.WorkerID != "" {
		parts = append(parts, r.WorkerID+atHive(r.Hive))
	}
	_, err := io.WriteString(w, s.paint(format.Faint, oneLine(strings.Join(parts, ", ")))+"\n")
	return err
}

// tokenRate formats the number of tokens per second after the first token.
func tokenRate(r *operations.InferReport) string {
	n, seconds := float64(r.CompletionTokens), r.DurationSeconds
	if n > 1 && r.FirstTokenSeconds > 0 && r.FirstTokenSeconds < seconds {
		n, seconds = n-1, seconds-r.FirstTokenSeconds
	}
	if n == 0 || seconds <= 0 {
		return ""
	}
	return fmt.Sprintf("%.1f tokens/s", n/seconds)
}

// EmptyWorkflow writes the warning that a workflow created no files.
func EmptyWorkflow(w io.Writer, s Style) error {
	p := &page{style: s}
	p.warn("", "the workflow created no files")
	p.hint("add a node such as SaveImage at its end, or change the seed: ComfyUI does not repeat a run with the same seed")
	_, err := io.WriteString(w, p.text.String())
	return err
}

// TruncatedAnswer writes the warning that an answer reached its limit of tokens.
func TruncatedAnswer(w io.Writer, s Style, limit int) error {
	p := &page{style: s}
	p.warn("", "answer cut at "+format.Count(limit, "token"))
	p.hint("use --max-tokens to allow more")
	_, err := io.WriteString(w, p.text.String())
	return err
}

// Warning writes a warning and, if hint is not empty, a hint.
func Warning(w io.Writer, s Style, text, hint string) error {
	p := &page{style: s}
	p.warn("", text)
	if hint != "" {
		p.hint(hint)
	}
	_, err := io.WriteString(w, p.text.String())
	return err
}
