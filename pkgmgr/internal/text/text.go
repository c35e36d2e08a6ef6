// Package text has helpers for messages.
package text

import "fmt"

// After returns prefix and s, and "" if s is empty.
func After(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// Bytes words a number of bytes in binary units.
func Bytes(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, suffix := float64(n)/unit, "KiB"
	for _, next := range []string{"MiB", "GiB", "TiB"} {
		if value < unit {
			break
		}
		value, suffix = value/unit, next
	}
	return fmt.Sprintf("%.1f %s", value, suffix)
}
