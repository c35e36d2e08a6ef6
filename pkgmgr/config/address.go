package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// SplitHostPort splits "host", "host:port", "[v6]:port" and a bare IPv6 address.
// A port of 0 means that none was given.
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
		return "", 0, fmt.Errorf("%q is no port", text)
	}
	return host, port, nil
}
