// Package conform provides conformance tests for implementations of [Host], such as sshx.Client (with an in-process host or
// with OpenSSH) and sshx.Local.
package conform

import (
	"context"
	"io"
	"io/fs"
	"net"
	"testing"
)

// Host has the methods of sshx.Client and sshx.Local.
type Host interface {
	Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error
	Script(ctx context.Context, script string, stdout, stderr io.Writer) error
	Put(ctx context.Context, path string, mode fs.FileMode, gz io.Reader, sum [32]byte) error
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	Close() error
}

// Machine is a new machine for one test.
type Machine struct {
	Host     Host
	Home     string        // path of the home directory on this machine, without symbolic links
	CutAfter func(n int64) // closes the connection after n more received bytes; nil if Host has no connection
}

// Options are the options of a Machine.
type Options struct {
	Path  string // PATH for commands; empty means a default
	Shell string // login shell; empty means /bin/sh; ignored if commands do not use a login shell
}

// Open creates a machine for one test, and removes it with t.Cleanup.
type Open func(t *testing.T, o Options) Machine

// Test runs all conformance tests with machines created by open.
func Test(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"run": testRun, "quoting": testQuoting, "streams": testStreams, "stderr tail": testStderrTail, "writer fails": testWriterFails,
		"reader fails": testReaderFails, "cancel": testCancel, "deadline": testDeadline, "script": testScript,
		"script canceled": testScriptCancel, "dial": testDial, "half close": testHalfClose, "concurrent": testConcurrent,
		"put": testPut, "put paths": testPutPaths, "put replaces running program": testPutRunning, "put wrong checksum": testPutWrongChecksum,
		"put broken source": testPutBroken, "put cancel": testPutCancel, "put connection lost": testPutCut, "put without tools": testPutTools,
		"put checksum tools": testPutChecksumTools, "put disk full": testPutFull, "put concurrent": testPutConcurrent,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open)
		})
	}
}
