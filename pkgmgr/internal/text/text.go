// Package text provides helpers for messages.
package text

// After returns prefix+s, or "" if s is empty.
func After(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
