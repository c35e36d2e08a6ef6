package sshconfig

import (
	"net"
	"strconv"
	"strings"
)

// Target says which host to reach, as a user would write it. Empty fields are filled in from ssh_config.
type Target struct {
	Host    string // alias from ssh_config, host name, IPv4 or IPv6 address (brackets allowed)
	User    string // "": User of ssh_config, then the current user
	Port    int    // 0: Port of ssh_config, then 22
	KeyFile string // private key offered before all others; a leading ~ is expanded; "": ssh_config, agent and default keys
}

// String is user@host:port without the parts that are not set. An IPv6 address is bracketed when a port follows.
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

// unbracket turns [::1] into ::1.
func unbracket(host string) string {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		return host[1 : len(host)-1]
	}
	return host
}
