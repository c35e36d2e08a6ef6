// Package hosttest contains conformance tests for the machines that package pkgmgr manages. It tests the methods of
// [pkgmgr.Host], the command that reads the state of a machine, and the protocol of `rbee hive apply`, including errors
// and cancellation. The simulated machines of package fakehost, the hive code, and the rbee program over SSH all pass
// these tests. Implementations of [pkgmgr.Host] run them with [TestHost].
//
// The tests check which steps fail, which data remains unchanged, and the final state of the machine. They do not
// compare complete error messages, but only check that a message contains a certain word.
package hosttest

import (
	"context"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
)

// Machine is a machine without rbee. Each test uses its own machine.
type Machine struct {
	// Connect opens a connection to the machine. It is called several times.
	Connect func(ctx context.Context) (pkgmgr.Host, error)

	// Binaries provides the rbee binary for the machine.
	Binaries artifact.BinarySource

	// Port is an unused loopback port of the machine.
	Port int

	// Disconnect closes all open connections like a network failure: calls return an error, and programs on the machine
	// read the end of stdin.
	Disconnect func()
}

// NewMachine creates a machine for a test. It registers a cleanup function with t.Cleanup.
type NewMachine func(t *testing.T) *Machine

// TestHost runs all conformance tests, each with its own machine.
func TestHost(t *testing.T, newMachine NewMachine) {
	s := &suite{newMachine: newMachine}
	for name, test := range map[string]func(*testing.T, *client){
		"not installed":   testNotInstalled,
		"programs":        testPrograms,
		"put":             testPut,
		"install rbee":    testInstallSelf,
		"roll back rbee":  testRollbackSelf,
		"invalid request": testInvalidRequest,
		"invalid steps":   testInvalidSteps,
		"worker":          testWorker,
		"builtin worker":  testBuiltinWorker,
		"wrong content":   testWrongContent,
		"settings":        testSettings,
		"daemon":          testDaemon,
		"lock":            testLock,
		"canceled":        testCanceled,
		"end of stdin":    testEndOfStdin,
		"connection lost": testConnectionLost,
		"remove":          testRemove,
		"fleet":           testFleet,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			test(t, &client{t: t, suite: s, machine: m, host: connect(t, m)})
		})
	}
}

// connect opens a connection and closes it at the end of the test.
func connect(t *testing.T, m *Machine) pkgmgr.Host {
	t.Helper()
	h, err := m.Connect(t.Context())
	if err != nil {
		t.Fatalf("Connect() = %v, want no error", err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// suite contains the data that all tests share.
type suite struct {
	newMachine NewMachine
	binaries   artifact.CompressedBinaries
}
