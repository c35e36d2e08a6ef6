package config

import (
	"net"
	"slices"
	"strconv"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Hive is a machine of a config. Programs create one with [NewHive].
type Hive struct {
	// Alias is the name of the hive: letters, digits, dot, dash and underscore, with a
	// letter or digit at the start, at most 63 bytes.
	Alias string

	// Hostname is an alias from the user's ssh_config, a host name, an IPv4 or IPv6
	// address, or "localhost" for this machine without SSH.
	Hostname string

	// SSHUser and SSHPort are the user and port for SSH. If they are empty and 0, ssh_config
	// determines the values; without a port in ssh_config, the port is [DefaultSSHPort].
	SSHUser string
	SSHPort int

	// SSHKey is the path of a private key to try first; empty for the default keys.
	SSHKey string

	// HivePort is the loopback port of the hive daemon, 1 to 65535. [NewHive] sets the
	// default.
	HivePort int

	// Labels select hives in commands.
	Labels []string

	// Workers are the worker types to install on the hive.
	Workers []Worker

	// AutoStart specifies whether rbee starts the hive daemon. The default is true, both in
	// a config file and with [NewHive].
	AutoStart bool

	// Pos is the position of the hive in the file; zero for a hive created in memory.
	Pos Pos
}

// Local reports whether the hive is this machine, which rbee accesses without SSH.
func (h Hive) Local() bool { return h.Hostname == "localhost" }

// Address returns the SSH destination of the hive, [user@]host[:port], or "localhost". Two
// hives with equal addresses are the same account on the same machine.
func (h Hive) Address() string {
	if h.Local() {
		return "localhost"
	}
	address := h.Hostname
	if h.SSHPort != 0 && h.SSHPort != DefaultSSHPort {
		address = net.JoinHostPort(h.Hostname, strconv.Itoa(h.SSHPort))
	}
	if h.SSHUser != "" {
		address = h.SSHUser + "@" + address
	}
	return address
}

// Settings returns the part of the config that the hive daemon needs.
func (h Hive) Settings() wire.Settings {
	return wire.Settings{Alias: h.Alias, HivePort: h.HivePort, AutoStart: h.AutoStart, Labels: slices.Clone(h.Labels)}
}

// Worker is a worker type to install on a hive.
type Worker struct {
	Type    string
	Version string // a version constraint: an exact version, a range or [version.Latest]
	Pos     Pos
}

// Pos is a position in a file. Lines and columns count from 1; 0 means unknown.
type Pos struct{ Line, Column int }

// DefaultSSHPort and DefaultHivePort are the default ports of a hive.
const (
	DefaultSSHPort  = 22
	DefaultHivePort = 8600
)

// NewHive returns a hive with the defaults of a config file: [DefaultHivePort] and AutoStart.
// The zero value of [Hive] is not valid.
func NewHive(alias, hostname string) Hive {
	return Hive{Alias: alias, Hostname: hostname, HivePort: DefaultHivePort, AutoStart: true}
}
