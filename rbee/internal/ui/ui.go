// Package ui draws what operations do and what they end with.
//
// There are three layers. [Live] and [Plain] draw events while an operation
// runs, on a terminal or into a log, and [Text] passes on what models and
// workers write. [Report] and [Failure] write the result for a person. [JSON]
// and [JSONError] write it for a program. Nothing here
// reads flags, decides on exit codes or looks at the environment: the caller
// says in a [Style] what the output can show.
//
// Text that comes from machines passes through one place that takes control
// characters out, so that no machine can write to the user's terminal.
package ui

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Style says what an output can show. The zero value is symbols without color.
type Style struct {
	Color   bool      // escape codes for color may be used
	ASCII   bool      // words instead of symbols, for outputs that are not UTF-8
	Verbose bool      // reasons too, where a report has them
	Now     time.Time // what ages are counted from; zero is the present
}

func (s Style) now() time.Time {
	if s.Now.IsZero() {
		return time.Now()
	}
	return s.Now
}

func (s Style) paint(code, text string) string {
	if !s.Color {
		return text
	}
	return format.Paint(code, text)
}

func (s Style) symbol(symbol, word, color string) string {
	if s.ASCII {
		return s.paint(color, word)
	}
	return symbol
}

func (s Style) ok() string   { return s.symbol("✅ ", "ok: ", format.Green) }
func (s Style) warn() string { return s.symbol("⚠️  ", "warning: ", format.Yellow) }
func (s Style) fail() string { return s.symbol("❌ ", "error: ", format.Red) }

// arrow leads a line that says what to do.
func (s Style) arrow() string { return s.symbol("→ ", "-> ", "") }

// clean makes text safe for a terminal: control characters become spaces, and
// lines after the first are indented.
func clean(text string) string {
	text = strings.TrimSpace(text)
	text = strings.Map(func(r rune) rune {
		if r != '\n' && (unicode.IsControl(r) || r == utf8.RuneError) {
			return ' '
		}
		return r
	}, text)
	return strings.ReplaceAll(text, "\n", "\n   ")
}

// oneLine is clean on a single line.
func oneLine(text string) string {
	return strings.Join(strings.Fields(clean(text)), " ")
}

// cut shortens text to width runes.
func cut(text string, width int) string {
	if width <= 0 || utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:width-1]) + "…"
}
