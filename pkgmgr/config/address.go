package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// SplitHostPort splits "host", "host:port", "[v6]:port" and a bare IPv6 address. The port is
// 0 if s has none.
func SplitHostPort(s string) (host string, port int, err error) {
	if ip := net.ParseIP(strings.Trim(s, "[]")); ip != nil {
		return strings.Trim(s, "[]"), 0, nil
	}
	if !strings.Contains(s, ":") {
		return s, 0, nil
	}
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("invalid port %q: want 1 to 65535", text)
	}
	return host, port, nil
}
