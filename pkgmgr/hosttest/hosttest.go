// Package hosttest is the conformance suite for what package pkgmgr requires of a machine: the methods of [pkgmgr.Host],
// the command that reads a machine, and the protocol of `rbee hive apply` with its messages, refusals and ends. The
// in-memory machine of package fakehost passes it, and so do the real hive code and the real program over SSH. An
// implementation of [pkgmgr.Host] runs it with [TestHost].
//
// Messages for people are not compared, but for a word that says what a refusal is about. What must be equal is what a
// program sees: which step failed, what was left alone, and how the machine is afterwards.
package hosttest

import (
	"context"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
)

// Machine is a machine without rbee, for one test.
type Machine struct {
	// Connect opens a connection to the machine. It is called several times.
	Connect func(ctx context.Context) (pkgmgr.Host, error)

	// Binaries has the rbee that runs on the machine.
	Binaries artifact.BinarySource

	// Port is a loopback port of the machine that nothing listens on.
	Port int

	// Cut breaks all open connections, as when a network fails: what uses one gets an error, and the machine sees the end
	// of every program's stdin.
	Cut func()
}

// NewMachine creates a machine for one test, and removes it with t.Cleanup.
type NewMachine func(t *testing.T) *Machine

// TestHost runs all tests, each with a machine of its own.
func TestHost(t *testing.T, newMachine NewMachine) {
	s := &suite{newMachine: newMachine}
	for name, test := range map[string]func(*testing.T, *client){
		"bare":            testBare,
		"programs":        testPrograms,
		"put":             testPut,
		"install rbee":    testInstallSelf,
		"roll back rbee":  testRollbackSelf,
		"refused request": testRefusedRequest,
		"refused steps":   testRefusedSteps,
		"worker":          testWorker,
		"builtin worker":  testBuiltinWorker,
		"wrong content":   testWrongContent,
		"settings":        testSettings,
		"daemon":          testDaemon,
		"lock":            testLock,
		"canceled":        testCanceled,
		"end of stdin":    testEndOfStdin,
		"cut":             testCut,
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

// connect opens a connection that ends with the test.
func connect(t *testing.T, m *Machine) pkgmgr.Host {
	t.Helper()
	h, err := m.Connect(t.Context())
	if err != nil {
		t.Fatalf("Connect() = %v", err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// suite is what all tests of one run share.
type suite struct {
	newMachine NewMachine
	packed     artifact.PackedBinaries
}
