package pkgmgr

import (
	"context"
	"io"
	"io/fs"
	"net"

	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Host is a connection to a machine, such as an SSH connection. Its methods may be called
// from several goroutines.
type Host interface {
	// Run runs a program. The arguments in argv are passed unchanged, without a shell. A
	// nil stdin is empty, and nil writers discard the output. If the program exits with
	// a non-zero status, the error has a method ExitStatus() int. If ctx is canceled,
	// Run closes the stdin of the program and returns.
	Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error

	// Script runs a POSIX shell script, given as its text. Errors are as in Run.
	Script(ctx context.Context, script string, stdout, stderr io.Writer) error

	// Put writes a file atomically, and creates its directory if it is missing. gz is
	// the content, compressed with gzip, and sum the SHA-256 of the uncompressed
	// content. If sum does not match, the file is not changed.
	Put(ctx context.Context, path string, mode fs.FileMode, gz io.Reader, sum [32]byte) error

	// Dial connects to an address from the machine.
	Dial(ctx context.Context, network, address string) (net.Conn, error)

	// Close closes the connection.
	Close() error
}

// StateReader is a Host that can read the state of a machine from the hive daemon, without
// running a command. If ReadState fails, [Fleet.Read] runs a command instead.
type StateReader interface {
	Host
	ReadState(ctx context.Context, o ReadOptions) (*wire.State, error)
}

// Connect opens a connection to the machine of a hive. The error may have a method
// ErrorCode() string that returns an [operations.Reason], such as "timeout".
type Connect func(ctx context.Context, hive config.Hive) (Host, error)
