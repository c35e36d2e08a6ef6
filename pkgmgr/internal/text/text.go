// Package text provides helpers for messages.
package text

// WithPrefix returns prefix+s, or "" if s is empty.
func WithPrefix(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
