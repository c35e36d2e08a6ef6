// Package freeport finds loopback ports for programs that begin to listen later.
//
// Asking the system for port 0 and closing the listener gives a port that the system
// may hand to the next outgoing connection of any program before the one that it was
// found for listens on it. The ports found here lie below those that systems use for
// outgoing connections: 32768 and up on Linux (ip_local_port_range in
// https://docs.kernel.org/networking/ip-sysctl.html), 49152 and up on macOS and by
// RFC 6335.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	minPort, maxPort = 10000, 32000 // below every system's own choice
	maxAttempts      = 1000
)

// Find returns a port that nothing listens on at 127.0.0.1 and that taken does not
// hold to be somebody's; nil holds none. It is a random one, so that two who ask at
// the same time hardly get the same.
func Find(taken func(port int) bool) (int, error) {
	var last error
	for range maxAttempts {
		port := minPort + rand.IntN(maxPort-minPort) //nolint:gosec // a port is no secret
		if taken != nil && taken(port) {
			continue
		}
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			last = err
			continue
		}
		return port, ln.Close()
	}
	return 0, errors.Join(errors.New("finding a free port: all that were tried are taken"), last)
}
