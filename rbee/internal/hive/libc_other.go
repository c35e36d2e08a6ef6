//go:build !linux

package hive

import "context"

// libc has a meaning on Linux only.
func libc(context.Context) (name, version string) { return "", "" }
