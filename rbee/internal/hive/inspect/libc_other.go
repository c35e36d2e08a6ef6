//go:build !linux

package inspect

import "context"

// libc has a meaning on Linux only.
func libc(context.Context) (name, version string) { return "", "" }

// noexec is the path if programs on its disk may not be run; else empty. It is only
// known on Linux.
func noexec(string) string { return "" }
