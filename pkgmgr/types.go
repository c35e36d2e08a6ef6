package pkgmgr

import (
	"context"
	"io"
	"io/fs"
	"net"

	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

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

// StateReader is a Host that may know the machine's state without running anything there:
// a hive daemon that answers tells it. Where ReadState fails, the machine is asked with a
// command as any other.
type StateReader interface {
	Host
	ReadState(ctx context.Context, o ReadOptions) (*wire.State, error)
}

// Connect opens the way to a hive's machine. An error may have a method
// ErrorCode() string that says in a word why the machine cannot be reached.
type Connect func(ctx context.Context, hive config.Hive) (Host, error)
