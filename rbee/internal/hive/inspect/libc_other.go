//go:build !linux

package inspect

import "context"

// libc returns empty strings: the C library matters only on Linux.
func libc(context.Context) (name, version string) { return "", "" }

// noexec returns "": mount options are checked only on Linux.
func noexec(string) string { return "" }
