//go:build !linux

// Package tcp sets TCP socket options for SSH.
package tcp

import (
	"net"
	"syscall"
)

// QuickAck does nothing. Only Linux has TCP_QUICKACK.
func QuickAck(syscall.RawConn) {}

// Raw returns nil.
func Raw(net.Conn) syscall.RawConn { return nil }
