// Package ui writes the progress and the results of operations.
//
// It has three layers. [Live] and [Plain] write events while an operation runs,
// to a terminal or a log, and [Text] writes the output of models and workers.
// [Report] and [Failure] write the result as text. [JSON] and [JSONError] write it
// as JSON. The package does not read flags or the environment and does not choose
// exit codes: the caller describes the output in a [Style].
//
// Text from other machines passes through one function that removes control
// characters, so that a machine cannot control the user's terminal.
package ui

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// Style describes an output. The zero value selects symbols without color.
type Style struct {
	Color   bool      // use escape codes for color
	ASCII   bool      // use words instead of symbols, for outputs that are not UTF-8
	Verbose bool      // include reasons
	Now     time.Time // current time for ages; zero is [time.Now]
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

// oneLine makes text safe for a terminal and joins its lines.
func oneLine(text string) string {
	return strings.Join(strings.Fields(clean(text)), " ")
}

// cut shortens text to width runes; a width of 0 or less means unlimited.
func cut(text string, width int) string {
	if width <= 0 || utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:width-1]) + "…"
}
