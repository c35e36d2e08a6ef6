// Package fakehost is a fleet without machines, for the tests of programs that
// embed package pkgmgr.
//
// A [Machine] lives in memory and behaves as a machine does on which pkgmgr
// works: it answers the command that reads it, takes the rbee that is sent to
// it, and does the steps of `rbee hive apply` over the protocol of package wire,
// checksums included. So everything in pkgmgr runs for real; nothing is
// installed, downloaded or started.
//
//	fleet := fakehost.Fleet{"gpu-1": {}, "gpu-2": {Unreachable: errors.New("no route")}}
//	f, err := pkgmgr.Open(config, pkgmgr.Options{
//		Connect:  fleet.Connect,
//		Binaries: fakehost.Rbee("1.0.0"),
//		Version:  "1.0.0",
//	})
//
// What goes wrong is told beforehand, in the fields of a Machine; what came of
// it is seen afterwards, with [Machine.State] and [Machine.Calls].
//
// All methods may be called from several goroutines.
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

// Fleet is machines by the alias of their hive. It must not be changed while it
// is in use.
type Fleet map[string]*Machine

// Connect is a [pkgmgr.Connect]. An alias without a machine cannot be resolved.
func (f Fleet) Connect(ctx context.Context, hive config.Hive) (pkgmgr.Host, error) {
	m := f[hive.Alias]
	if m == nil {
		return nil, &ConnectError{Code: "resolve", Message: fmt.Sprintf("no machine for %s", hive.Alias)}
	}
	return m.Connect(ctx, hive)
}

// ConnectError is an error of a connection with a word for its reason, which
// ends up as the Reason of an operations.Error.
type ConnectError struct {
	Code    string // such as "timeout" or "auth"
	Message string
}

// Error gives the message.
func (e *ConnectError) Error() string { return e.Message }

// ErrorCode gives the code.
func (e *ConnectError) ErrorCode() string { return e.Code }

// Machine is a machine in memory. The zero value is a fresh linux/amd64 machine
// without rbee. Its fields are set before it is used, and may be changed while
// nothing works on it. A Machine must not be copied.
type Machine struct {
	// Initial is what the machine has at first. Where OS, Arch, Hostname, User
	// or Home are empty they get a value, and an rbee without Schema speaks
	// this version of the protocol. Devices are told only to who asks.
	Initial wire.State

	// Unreachable is why nobody can connect; nil if everybody can.
	Unreachable error

	// FailPut is why nothing can be sent to it; nil if everything can.
	FailPut error

	// FailStep makes the steps on a worker type fail. The key "" stands for
	// the steps on rbee itself.
	FailStep map[string]error

	// OnStep, if not nil, is called before each step, from the goroutine that
	// works on the machine. An error fails the step.
	OnStep func(wire.Step) error

	// Locked, if not empty, is who holds the lock. It is never set free:
	// whoever would wait for it is told at once that the wait is over.
	Locked string

	// Network answers Dial; nil refuses every connection.
	Network func(ctx context.Context, network, address string) (net.Conn, error)

	mu        sync.Mutex
	begun     bool
	state     wire.State
	files     map[string][]byte      // by path
	artifacts map[string][]byte      // by worker type
	previous  map[string]wire.Worker // by worker type: what a rollback goes back to
	calls     Calls
	conns     map[*host]bool // that are open
	lock      chan struct{}  // holds one value while somebody has the lock
	holder    wire.Waiting
}

// Calls counts what was asked of a machine.
type Calls struct{ Connects, Scripts, Puts, Runs, Closes int }

// Connect is a [pkgmgr.Connect] to this machine, whatever the hive.
func (m *Machine) Connect(ctx context.Context, _ config.Hive) (pkgmgr.Host, error) {
	m.count(func(c *Calls) { c.Connects++ })
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case m.Unreachable != nil:
		return nil, m.Unreachable
	}
	h := &host{machine: m}
	h.ended, h.end = context.WithCancelCause(context.WithoutCancel(ctx))
	m.Edit(func(*wire.State) { m.conns[h] = true })
	return h, nil
}

// Cut breaks every open connection, as when a network fails: what uses one gets an
// error whose code is "lost", and programs on the machine see the end of their stdin.
func (m *Machine) Cut() {
	var open []*host
	m.Edit(func(*wire.State) {
		for h := range m.conns {
			open = append(open, h)
		}
	})
	for _, h := range open {
		m.forget(h, errLost)
	}
}

// forget ends a connection. It reports whether it was open.
func (m *Machine) forget(h *host, why error) (was bool) {
	m.Edit(func(*wire.State) {
		was = m.conns[h]
		delete(m.conns, h)
	})
	h.end(why) // only the first reason counts
	return was
}

// State is what the machine has now.
func (m *Machine) State() wire.State {
	var s wire.State
	m.Edit(func(now *wire.State) { s = clone(now) })
	return s
}

// Edit changes what the machine has, as somebody would who works on it by hand.
func (m *Machine) Edit(change func(*wire.State)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.begun {
		m.begun, m.state = true, begin(m.Initial)
		m.files, m.artifacts, m.lock = map[string][]byte{}, map[string][]byte{}, make(chan struct{}, 1)
		m.previous, m.conns = map[string]wire.Worker{}, map[*host]bool{}
	}
	change(&m.state)
}

// Corrupt damages the files of an installed worker; problem says how. Installing
// it again mends them.
func (m *Machine) Corrupt(workerType, problem string) {
	m.Edit(func(s *wire.State) {
		for i := range s.Workers {
			if s.Workers[i].Type == workerType {
				s.Workers[i].Corrupt = problem
			}
		}
	})
}

// Calls counts what was asked of the machine so far.
func (m *Machine) Calls() Calls {
	var c Calls
	m.count(func(now *Calls) { c = *now })
	return c
}

// Artifact gives the bytes that were sent for a worker, unpacked if they came
// compressed on the wire; nil if none were sent.
func (m *Machine) Artifact(workerType string) []byte {
	var b []byte
	m.Edit(func(*wire.State) { b = bytes.Clone(m.artifacts[workerType]) })
	return b
}

func (m *Machine) count(change func(*Calls)) { m.Edit(func(*wire.State) { change(&m.calls) }) }

func begin(initial wire.State) wire.State {
	s := clone(&initial)
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	if s.OS == "" {
		fill(&s.Libc, "glibc")
		fill(&s.LibcVersion, "2.36")
	}
	fill(&s.OS, "linux")
	fill(&s.Arch, "amd64")
	fill(&s.Hostname, "fake")
	fill(&s.User, "bee")
	fill(&s.Home, "/home/bee/.local/share/rbee")
	if s.Rbee != nil && s.Schema == 0 {
		s.Schema = wire.Schema
	}
	sortWorkers(&s)
	return s
}

func sortWorkers(s *wire.State) {
	slices.SortFunc(s.Workers, func(a, b wire.Worker) int { return bytes.Compare([]byte(a.Type), []byte(b.Type)) })
}

// clone copies a state, pointers and slices included, the way it would travel.
func clone(s *wire.State) wire.State {
	var c wire.State
	if data, err := json.Marshal(s); err == nil {
		_ = json.Unmarshal(data, &c) // what was just written can be read
	}
	return c
}
