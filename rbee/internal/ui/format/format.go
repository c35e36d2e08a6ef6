// Package format formats single values as text: colors, durations, counts and facts
// about a worker process.
package format

import (
	"fmt"
	"time"
	"unicode"
)

// Colors and styles of output, as parameters of the SGR escape sequence.
const (
	Red    = "31"
	Green  = "32"
	Yellow = "33"
	Faint  = "2"
	Bold   = "1"
)

// Paint returns text in a color. Empty text stays empty.
func Paint(color, text string) string {
	if text == "" {
		return ""
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// Seconds formats a duration in seconds: 0.4s, 30s, 2m5s.
func Seconds(s float64) string {
	switch {
	case s < 0:
		return "0.0s"
	case s < 9.95:
		return fmt.Sprintf("%.1fs", s)
	default:
		return (time.Duration(s*float64(time.Second)) + time.Second/2).Truncate(time.Second).String()
	}
}

// Age formats a duration with reduced precision: 42s, 5m, 3h12m, 4d.
func Age(d time.Duration) string {
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

// ShortSeconds formats a duration in seconds, or in milliseconds below one second.
func ShortSeconds(s float64) string {
	if s < 1 {
		return fmt.Sprintf("%.0fms", max(0, s*1000))
	}
	return Seconds(s)
}

// Count formats a number and its noun: 1 hive, 3 hives.
func Count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

// IsHidden reports whether r is an invisible character with an effect: a control
// character, or a mark that changes the direction of text.
func IsHidden(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)
}

// Prefixed returns prefix and text, or "" if text is empty.
func Prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}
