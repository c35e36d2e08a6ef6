//go:build !linux

package sshx

import (
	"net"
	"syscall"
)

// quickAck does nothing: only Linux has TCP_QUICKACK.
func quickAck(syscall.RawConn) {}

func rawConn(net.Conn) syscall.RawConn { return nil }
