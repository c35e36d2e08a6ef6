//go:build !linux

// Package tcp sets what TCP on Linux can do for SSH.
package tcp

import (
	"net"
	"syscall"
)

// QuickAck does nothing: only Linux has TCP_QUICKACK.
func QuickAck(syscall.RawConn) {}

// Raw gives nil.
func Raw(net.Conn) syscall.RawConn { return nil }
