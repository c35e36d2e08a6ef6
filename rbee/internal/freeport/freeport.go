// Package freeport finds free loopback ports for programs that listen later.
//
// It does not listen on port 0 to get a port from the system: the system could assign that
// port to an outgoing connection before the program listens on it. Instead, it chooses
// ports below the range for outgoing connections, which is 32768 and up on Linux
// (ip_local_port_range in https://docs.kernel.org/networking/ip-sysctl.html), and 49152 and
// up on macOS and in RFC 6335.
package freeport

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	minPort, maxPort = 10000, 32000 // below the port range for outgoing connections
	maxAttempts      = 1000         // random ports tried
)

// Find returns a random port on which no program listens at 127.0.0.1. If
// taken is not nil, Find skips ports for which it returns true. The port is random, so that
// concurrent calls rarely return the same port.
func Find(taken func(port int) bool) (int, error) {
	var lastErr error
	for range maxAttempts {
		port := minPort + rand.IntN(maxPort-minPort) //nolint:gosec // a port is not a secret
		if taken != nil && taken(port) {
			continue
		}
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			lastErr = err
			continue
		}
		return port, ln.Close()
	}
	return 0, errors.Join(errors.New("cannot find a free port: all attempts failed"), lastErr)
}
