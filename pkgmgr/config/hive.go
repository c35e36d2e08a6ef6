package config

import (
	"net"
	"slices"
	"strconv"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Hive is one machine of a config. Make one in a program with [NewHive].
type Hive struct {
	// Alias names the hive: letters, digits, dot, dash and underscore,
	// beginning with a letter or digit, at most 63 bytes.
	Alias string

	// Hostname is an alias from the user's ssh_config, a host name, an IPv4
	// or IPv6 address, or "localhost": this machine, without SSH.
	Hostname string

	// SSHUser and SSHPort are who to log in as and where. Empty and 0 leave it
	// to ssh_config; a config file without ssh_port means [DefaultSSHPort]
	// unless ssh_config names another one.
	SSHUser string
	SSHPort int

	// SSHKey is a private key file to offer first; empty for the usual keys.
	SSHKey string

	// HivePort is the loopback port of the hive daemon, 1 to 65535. [NewHive] sets the
	// default.
	HivePort int

	// Labels are for selecting hives.
	Labels []string

	// Workers are the worker types wanted there.
	Workers []Worker

	// AutoStart says that the hive daemon is to run. [NewHive] sets it, as a config file
	// without auto_start does.
	AutoStart bool

	// Pos is where the hive begins in the file; zero for one made in memory.
	Pos Pos
}

// Local reports whether the hive is this machine itself, reached without SSH.
func (h Hive) Local() bool { return h.Hostname == "localhost" }

// Address is the place of the hive, as ssh would be told: [user@]host[:port].
// Two hives with equal addresses are the same account on the same machine.
func (h Hive) Address() string {
	if h.Local() {
		return "localhost"
	}
	a := h.Hostname
	if h.SSHPort != 0 && h.SSHPort != DefaultSSHPort {
		a = net.JoinHostPort(h.Hostname, strconv.Itoa(h.SSHPort))
	}
	if h.SSHUser != "" {
		a = h.SSHUser + "@" + a
	}
	return a
}

// Settings is the part of the config that the hive itself must know.
func (h Hive) Settings() wire.Settings {
	return wire.Settings{Alias: h.Alias, HivePort: h.HivePort, AutoStart: h.AutoStart, Labels: slices.Clone(h.Labels)}
}

// Worker is a worker type wanted on a hive.
type Worker struct {
	Type    string
	Version string // an exact version, or [version.Latest]
	Pos     Pos
}

// Pos is a place in a file; lines and columns count from 1, and 0 is unknown.
type Pos struct{ Line, Column int }

// DefaultSSHPort and DefaultHivePort are the ports of a hive whose config names none.
const (
	DefaultSSHPort  = 22
	DefaultHivePort = 8600
)

// NewHive returns a hive with the defaults of a config file: [DefaultHivePort], and the
// daemon is started. The zero value of [Hive] has no defaults and is not valid.
func NewHive(alias, hostname string) Hive {
	return Hive{Alias: alias, Hostname: hostname, HivePort: DefaultHivePort, AutoStart: true}
}
