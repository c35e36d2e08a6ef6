// Package conform is the one set of tests for everything that runs commands and takes files the way sshx does: the
// in-process host, real OpenSSH, this machine without SSH, and whatever else has the five methods.
package conform

import (
	"context"
	"io"
	"io/fs"
	"net"
	"testing"
)

// Host has the five methods of sshx.Client and sshx.Local.
type Host interface {
	Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error
	Script(ctx context.Context, script string, stdout, stderr io.Writer) error
	Put(ctx context.Context, path string, mode fs.FileMode, gz io.Reader, sum [32]byte) error
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	Close() error
}

// Machine is one freshly made machine.
type Machine struct {
	Host     Host
	Home     string               // its home directory, which the test can see; without symbolic links in its path
	CutAfter func(received int64) // cuts the line after so many bytes more; nil: there is no line to cut
}

// Options say what a test wants of its machine.
type Options struct {
	Path  string // PATH for commands; "": a usual one
	Shell string // login shell, where there is a login; "": /bin/sh
}

// Open makes a machine for one test, and removes it with t.Cleanup.
type Open func(t *testing.T, o Options) Machine

// Test runs all tests.
func Test(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, Open){
		"run": testRun, "quoting": testQuoting, "streams": testStreams, "stderr tail": testStderrTail, "writer fails": testWriterFails,
		"reader fails": testReaderFails, "cancel": testCancel, "deadline": testDeadline, "script": testScript,
		"script ends": testScriptEnds, "dial": testDial, "half close": testHalfClose, "concurrent": testConcurrent,
		"put": testPut, "put paths": testPutPaths, "put over a running program": testPutRunning, "put wrong sum": testPutWrongSum,
		"put broken source": testPutBroken, "put cancel": testPutCancel, "put cut": testPutCut, "put without tools": testPutTools,
		"put with each sum tool": testPutSumTools, "put without room": testPutFull, "put many": testPutMany,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open)
		})
	}
}
