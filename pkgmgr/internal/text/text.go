// Package text has helpers for messages.
package text

// After returns prefix and s, and "" if s is empty.
func After(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
