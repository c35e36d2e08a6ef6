// Package tcp sets TCP socket options for SSH.
package tcp

import (
	"net"
	"syscall"
)

// QuickAck disables delayed acknowledgments (TCP_QUICKACK in tcp(7)). The kernel may enable them again, so QuickAck must be
// called after every read. Without it, every login is delayed by 40 ms, because sshd's Nagle algorithm waits for a delayed
// acknowledgment.
func QuickAck(raw syscall.RawConn) {
	if raw == nil {
		return
	}
	// Errors are ignored: they only affect performance.
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
	})
}

// Raw returns the socket of c, or nil if c is not a TCP connection.
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
