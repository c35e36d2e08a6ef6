package pkgmgr

import (
	"context"
	"io"
	"io/fs"
	"net"
	"slices"
	"strconv"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// DefaultSSHPort and DefaultHivePort are the ports of a hive whose config names none.
const (
	DefaultSSHPort  = 22
	DefaultHivePort = 8600
)

// Latest is the version that stands for the newest one a recipe knows.
const Latest = "latest"

// Config is the desired state: which hives there are and which workers belong
// on them. [Load] and [Parse] make valid ones.
type Config struct {
	// Path is the file it was read from; empty for a config made in memory.
	Path string

	// Hives are in the order of the file.
	Hives []Hive
}

// Hive is one machine of a config.
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

	// HivePort is the loopback port of the hive daemon.
	HivePort int

	// Labels are for selecting hives.
	Labels []string

	// Workers are the worker types wanted there.
	Workers []Worker

	// AutoStart says that the hive daemon is to run.
	AutoStart bool

	// Pos is where the hive begins in the file; zero for one made in memory.
	Pos Pos
}

// Worker is a worker type wanted on a hive.
type Worker struct {
	Type    string
	Version string // an exact version, or [Latest]
	Pos     Pos
}

// Pos is a place in a file; lines and columns count from 1, and 0 is unknown.
type Pos struct{ Line, Column int }

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

// Host is an open way to one machine: what pkgmgr needs of an SSH client or of
// anything that can take its place. Its methods are called from several
// goroutines.
type Host interface {
	// Run runs a program. argv reaches it as it is, whatever it holds. A nil
	// stdin is empty, nil writers discard. A program that ran and failed is an
	// error with a method ExitStatus() int. When ctx ends, the program's stdin
	// is closed and Run returns.
	Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error

	// Script runs a POSIX shell script, given as text; errors are as in Run.
	Script(ctx context.Context, script string, stdout, stderr io.Writer) error

	// Put makes path a file with this mode and the content that gz holds
	// compressed with gzip, and makes its directory where it is missing. The
	// file is the old one or the new one, whole: the content is checked against
	// sum, its SHA-256, before it takes the path.
	Put(ctx context.Context, path string, mode fs.FileMode, gz io.Reader, sum [32]byte) error

	// Dial connects to an address as seen from the machine.
	Dial(ctx context.Context, network, address string) (net.Conn, error)

	// Close ends the connection.
	Close() error
}

// Teller is a Host that may know the machine's state without running anything there:
// a hive daemon that answers tells it. Where Tell fails, the machine is asked with a
// command as any other.
type Teller interface {
	Host
	Tell(ctx context.Context, o ReadOptions) (*State, error)
}

// Connect opens the way to a hive's machine. An error may have a method
// ErrorCode() string that says in a word why the machine cannot be reached.
type Connect func(ctx context.Context, hive Hive) (Host, error)

// State is what a machine says of itself.
type State = wire.State

// Platform is what a binary must fit.
type Platform = wire.Platform
