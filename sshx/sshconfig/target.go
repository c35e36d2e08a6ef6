package sshconfig

import (
	"net"
	"strconv"
	"strings"
)

// Target identifies a host as a user would write it. Empty fields are set from ssh_config.
type Target struct {
	Host    string // alias from ssh_config, host name, IPv4 or IPv6 address (brackets allowed)
	User    string // empty means User of ssh_config, or the current user
	Port    int    // 0 means Port of ssh_config, or 22
	KeyFile string // private key file, offered before all other keys; a leading ~ is expanded; may be empty
}

// String returns user@host:port, without the parts that are not set. An IPv6 address with a port is in brackets.
func (t Target) String() string {
	s := t.Host
	if t.Port != 0 {
		s = net.JoinHostPort(unbracket(t.Host), strconv.Itoa(t.Port))
	}
	if t.User != "" {
		s = t.User + "@" + s
	}
	return s
}

// unbracket removes the brackets of an IPv6 address such as [::1].
func unbracket(host string) string {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		return host[1 : len(host)-1]
	}
	return host
}
