// Package fakehost provides simulated machines for tests of programs that use package pkgmgr.
//
// A [Machine] exists only in memory. It implements the protocol of package wire: it reports
// its state, accepts uploads of rbee, and applies the steps of `rbee hive apply`, including
// the verification of checksums. Tests run all code of pkgmgr, but nothing is installed,
// downloaded or started.
//
//	machines := fakehost.Machines{"gpu-1": {}, "gpu-2": {Unreachable: errors.New("no route")}}
//	fleet, err := pkgmgr.Open(config, pkgmgr.Options{
//		Connect:  machines.Connect,
//		Binaries: fakehost.Rbee("1.0.0"),
//		Version:  "1.0.0",
//	})
//
// Tests inject errors with the fields of a Machine, and check the outcome with
// [Machine.State] and [Machine.Calls].
//
// All methods are safe for concurrent use.
package fakehost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"sync"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Machines maps the aliases of hives to machines. It must not be modified while it is in use.
type Machines map[string]*Machine

// Connect implements [pkgmgr.Connect]. It returns an error with the code "resolve" for an
// alias without a machine.
func (f Machines) Connect(ctx context.Context, hive config.Hive) (pkgmgr.Host, error) {
	m := f[hive.Alias]
	if m == nil {
		return nil, &ConnectError{Code: "resolve", Message: fmt.Sprintf("no machine for %s", hive.Alias)}
	}
	return m.Connect(ctx, hive)
}

// ConnectError is a connection error with a code, which becomes the Reason of an
// operations.Error.
type ConnectError struct {
	Code    string // such as "timeout" or "auth"
	Message string
}

// Error returns e.Message.
func (e *ConnectError) Error() string { return e.Message }

// ErrorCode returns e.Code.
func (e *ConnectError) ErrorCode() string { return e.Code }

// Machine is a simulated machine. The zero value is a linux/amd64 machine without rbee. Its
// fields must not be modified while it is in use. A Machine must not be copied.
type Machine struct {
	// Initial is the initial state. If OS, Arch, Hostname, User or Home are empty, they
	// get default values. If Rbee is set and Schema is 0, Schema becomes [wire.Schema].
	// Devices are reported only on request.
	Initial wire.State

	// Unreachable is the error of Connect; nil for success.
	Unreachable error

	// FailPut is the error of uploads; nil for success.
	FailPut error

	// FailStep contains the errors of steps, by worker type. The key for steps on rbee
	// itself is "".
	FailStep map[string]error

	// OnStep, if not nil, is called before each step, in the goroutine of the run. If
	// it returns an error, the step fails.
	OnStep func(wire.Step) error

	// LockHolder, if not empty, is the owner of a run that holds the lock forever. Other
	// runs do not wait for the lock, but fail immediately.
	LockHolder string

	// Network implements Dial; nil rejects all connections.
	Network func(ctx context.Context, network, address string) (net.Conn, error)

	mu          sync.Mutex
	initialized bool
	state       wire.State
	files       map[string][]byte      // by path
	artifacts   map[string][]byte      // by worker type
	previous    map[string]wire.Worker // previous versions, by worker type
	calls       Calls
	conns       map[*host]bool // open connections
	lock        chan struct{}  // contains one value while a run holds the lock
	holder      wire.LockInfo
}

// Calls counts the calls of the methods of all connections to a machine.
type Calls struct{ Connects, Scripts, Puts, Runs, Closes int }

// Connect implements [pkgmgr.Connect] for this machine. It ignores the hive.
func (m *Machine) Connect(ctx context.Context, _ config.Hive) (pkgmgr.Host, error) {
	m.count(func(c *Calls) { c.Connects++ })
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case m.Unreachable != nil:
		return nil, m.Unreachable
	}
	h := &host{machine: m}
	h.closed, h.disconnect = context.WithCancelCause(context.WithoutCancel(ctx))
	m.Edit(func(*wire.State) { m.conns[h] = true })
	return h, nil
}

// Disconnect closes all open connections like a network failure: calls return an error with the
// code "lost", and programs on the machine read the end of stdin.
func (m *Machine) Disconnect() {
	var open []*host
	m.Edit(func(*wire.State) {
		for h := range m.conns {
			open = append(open, h)
		}
	})
	for _, h := range open {
		m.closeHost(h, errLost)
	}
}

// closeHost closes a connection with the given cause, and reports whether it was open.
func (m *Machine) closeHost(h *host, cause error) (wasOpen bool) {
	m.Edit(func(*wire.State) {
		wasOpen = m.conns[h]
		delete(m.conns, h)
	})
	h.disconnect(cause) // only the first cause has an effect
	return wasOpen
}

// State returns a copy of the current state of the machine.
func (m *Machine) State() wire.State {
	var s wire.State
	m.Edit(func(current *wire.State) { s = clone(current) })
	return s
}

// Edit calls change to modify the state of the machine. change must not call methods of m.
func (m *Machine) Edit(change func(*wire.State)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.initialized {
		m.initialized, m.state = true, withDefaults(m.Initial)
		m.files, m.artifacts, m.lock = map[string][]byte{}, map[string][]byte{}, make(chan struct{}, 1)
		m.previous, m.conns = map[string]wire.Worker{}, map[*host]bool{}
	}
	change(&m.state)
}

// Corrupt marks the files of an installed worker as damaged, with problem as the reason.
// Installing the worker again repairs them.
func (m *Machine) Corrupt(workerType, problem string) {
	m.Edit(func(s *wire.State) {
		for i := range s.Workers {
			if s.Workers[i].Type == workerType {
				s.Workers[i].Corrupt = problem
			}
		}
	})
}

// Calls returns the numbers of calls so far.
func (m *Machine) Calls() Calls {
	var c Calls
	m.count(func(current *Calls) { c = *current })
	return c
}

// Artifact returns the concatenated artifacts that were sent for a worker, decompressed; nil
// if none were sent.
func (m *Machine) Artifact(workerType string) []byte {
	var b []byte
	m.Edit(func(*wire.State) { b = bytes.Clone(m.artifacts[workerType]) })
	return b
}

// count calls change to update the numbers of calls.
func (m *Machine) count(change func(*Calls)) { m.Edit(func(*wire.State) { change(&m.calls) }) }

// withDefaults returns a copy of a state with default values for empty fields.
func withDefaults(initial wire.State) wire.State {
	s := clone(&initial)
	setDefault := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	if s.OS == "" {
		setDefault(&s.Libc, "glibc")
		setDefault(&s.LibcVersion, "2.36")
	}
	setDefault(&s.OS, "linux")
	setDefault(&s.Arch, "amd64")
	setDefault(&s.Hostname, "fake")
	setDefault(&s.User, "bee")
	setDefault(&s.Home, "/home/bee/.local/share/rbee")
	if s.Rbee != nil && s.Schema == 0 {
		s.Schema = wire.Schema
	}
	sortWorkers(&s)
	return s
}

// sortWorkers sorts the workers of a state by type.
func sortWorkers(s *wire.State) {
	slices.SortFunc(s.Workers, func(a, b wire.Worker) int { return bytes.Compare([]byte(a.Type), []byte(b.Type)) })
}

// clone returns a deep copy of a state by encoding it as JSON, as the protocol does.
func clone(s *wire.State) wire.State {
	var c wire.State
	if data, err := json.Marshal(s); err == nil {
		_ = json.Unmarshal(data, &c) // cannot fail: Marshal has just created data
	}
	return c
}
