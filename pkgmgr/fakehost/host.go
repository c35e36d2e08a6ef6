package fakehost

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"path"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// host is one connection to a machine.
type host struct {
	machine *Machine
	closed  atomic.Bool
}

var _ pkgmgr.Host = (*host)(nil)

var errClosed = errors.New("fakehost: the connection is closed")

// exitError is a program that ran and failed.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string   { return fmt.Sprintf("exit status %d: %v", e.status, e.err) }
func (e *exitError) ExitStatus() int { return e.status }
func (e *exitError) Unwrap() error   { return e.err }

func (h *host) ready(ctx context.Context) error {
	if h.closed.Load() {
		return errClosed
	}
	return ctx.Err()
}

// Script answers every script with the machine's state: pkgmgr has no other.
func (h *host) Script(ctx context.Context, script string, stdout, _ io.Writer) error {
	if err := h.ready(ctx); err != nil {
		return err
	}
	h.machine.count(func(c *Calls) { c.Scripts++ })
	s := h.machine.State()
	if s.DevicesKnown = strings.Contains(script, "--devices"); !s.DevicesKnown {
		s.Devices = nil
	}
	if stdout == nil {
		stdout = io.Discard
	}
	return wire.NewWriter(stdout).Write(s)
}

// Put keeps a file in memory.
func (h *host) Put(ctx context.Context, name string, _ fs.FileMode, gz io.Reader, sum [32]byte) error {
	if err := h.ready(ctx); err != nil {
		return err
	}
	h.machine.count(func(c *Calls) { c.Puts++ })
	if h.machine.FailPut != nil {
		return h.machine.FailPut
	}
	unpacked, err := gzip.NewReader(gz)
	if err != nil {
		return fmt.Errorf("putting %s: %w", name, err)
	}
	content, err := io.ReadAll(unpacked)
	if err != nil {
		return fmt.Errorf("putting %s: %w", name, err)
	}
	if got := sha256.Sum256(content); got != sum {
		return fmt.Errorf("putting %s: its SHA-256 is %x, want %x", name, got, sum)
	}
	h.machine.Edit(func(*wire.State) { h.machine.files[name] = content })
	return nil
}

// Run knows one program, rbee, where it is installed or was put.
func (h *host) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, _ io.Writer) error {
	if err := h.ready(ctx); err != nil {
		return err
	}
	h.machine.count(func(c *Calls) { c.Runs++ })
	if len(argv) != 3 || !slices.Equal(argv[1:], []string{"hive", "apply"}) || !h.machine.has(argv[0]) {
		return &exitError{127, fmt.Errorf("fakehost: no such program: %q", argv)}
	}
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	if stdout == nil {
		stdout = io.Discard
	}
	if c, ok := stdin.(io.Closer); ok {
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		defer stop()
	}
	return h.machine.apply(ctx, argv[0], stdin, stdout)
}

// has tells whether exe is an rbee that works.
func (m *Machine) has(exe string) (ok bool) {
	m.Edit(func(s *wire.State) {
		_, put := m.files[exe]
		ok = put || s.Rbee != nil && s.Broken == "" && exe == path.Join(s.Home, wire.Binary)
	})
	return ok
}

// Dial asks the machine's Network.
func (h *host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := h.ready(ctx); err != nil {
		return nil, err
	}
	if h.machine.Network == nil {
		return nil, fmt.Errorf("fakehost: nothing listens on %s", address)
	}
	return h.machine.Network(ctx, network, address)
}

// Close ends the connection; only the first call counts.
func (h *host) Close() error {
	if !h.closed.Swap(true) {
		h.machine.count(func(c *Calls) { c.Closes++ })
	}
	return nil
}
