// Package tcp sets what TCP on Linux can do for SSH.
package tcp

import (
	"net"
	"syscall"
)

// QuickAck makes the kernel acknowledge received bytes at once, until it changes its mind: it has to be asked again
// after every read (tcp(7), TCP_QUICKACK). Without it every login stalls for 40 ms, because sshd's Nagle algorithm
// waits for an acknowledgement that our kernel delays.
func QuickAck(raw syscall.RawConn) {
	if raw == nil {
		return
	}
	// An error only costs speed.
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
}

// Raw gives the socket behind c, or nil when c is no TCP connection.
func Raw(c net.Conn) syscall.RawConn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
