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
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Style says what an output can show. The zero value is symbols without colour.
type Style struct {
	Color   bool      // escape codes for colour may be used
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

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	faint  = "2"
	bold   = "1"
)

func (s Style) paint(code, text string) string {
	if !s.Color || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s Style) symbol(symbol, word, color string) string {
	if s.ASCII {
		return s.paint(color, word)
	}
	return symbol
}

func (s Style) ok() string   { return s.symbol("✅ ", "ok: ", green) }
func (s Style) warn() string { return s.symbol("⚠️  ", "warning: ", yellow) }
func (s Style) fail() string { return s.symbol("❌ ", "error: ", red) }

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

// seconds writes a duration as the documents do: (0.4s), (30s), (2m5s).
func seconds(s float64) string {
	switch {
	case s < 0:
		return "0.0s"
	case s < 9.95:
		return fmt.Sprintf("%.1fs", s)
	default:
		return (time.Duration(s*float64(time.Second)) + time.Second/2).Truncate(time.Second).String()
	}
}

// age writes a time for which only its order of magnitude matters: 42s, 5m, 3h12m, 4d.
func age(d time.Duration) string {
	switch minutes := int(d / time.Minute); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int((d+time.Second/2)/time.Second)))
	case minutes < 60:
		return fmt.Sprintf("%dm", minutes)
	case minutes < 48*60:
		return fmt.Sprintf("%dh%02dm", minutes/60, minutes%60)
	default:
		return fmt.Sprintf("%dd", minutes/60/24)
	}
}

// short writes seconds, and what is less than one as milliseconds.
func short(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.0fms", max(0, s*1000))
	}
	return seconds(s)
}

// count writes a number with its word: 1 hive, 3 hives.
func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// cut shortens text to width runes.
func cut(text string, width int) string {
	if width <= 0 || utf8.RuneCountInString(text) <= width {
		return text
	}
	runes := []rune(text)
	return string(runes[:width-1]) + "…"
}
