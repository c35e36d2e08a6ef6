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
	"sync"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// host is a connection to a machine.
type host struct {
	machine    *Machine
	closed     context.Context // canceled when the connection is closed
	disconnect context.CancelCauseFunc
}

var _ pkgmgr.Host = (*host)(nil)

var (
	errClosed = errors.New("fakehost: the connection is closed")
	errLost   = &ConnectError{Code: "lost", Message: "fakehost: connection lost"}
)

// exitError reports that a program exited with a nonzero status.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string   { return fmt.Sprintf("exit status %d: %v", e.status, e.err) }
func (e *exitError) ExitStatus() int { return e.status }
func (e *exitError) Unwrap() error   { return e.err }

// check returns an error if the connection is closed or ctx is done.
func (h *host) check(ctx context.Context) error {
	if h.closed.Err() != nil {
		return context.Cause(h.closed)
	}
	return ctx.Err()
}

// Script treats every script as the inspection script of pkgmgr and writes the machine's
// state.
func (h *host) Script(ctx context.Context, script string, stdout, _ io.Writer) error {
	if err := h.check(ctx); err != nil {
		return err
	}
	h.machine.count(func(c *Calls) { c.Scripts++ })
	if stdout == nil {
		stdout = io.Discard
	}
	return wire.NewWriter(stdout).Write(h.machine.inspect(strings.Contains(script, "--devices")))
}

// inspect returns the machine's state, with the accelerators only if devices is true.
func (m *Machine) inspect(devices bool) wire.State {
	s := m.State()
	if s.DevicesKnown = devices; !devices {
		s.Devices = nil
	}
	return s
}

// Put stores a file in memory.
func (h *host) Put(ctx context.Context, name string, _ fs.FileMode, gz io.Reader, sum [32]byte) error {
	if err := h.check(ctx); err != nil {
		return err
	}
	h.machine.count(func(c *Calls) { c.Puts++ })
	if h.machine.FailPut != nil {
		return h.machine.FailPut
	}
	unpacked, err := gzip.NewReader(gz)
	if err != nil {
		return fmt.Errorf("cannot put %s: %w", name, err)
	}
	content, err := io.ReadAll(unpacked)
	if err != nil {
		return fmt.Errorf("cannot put %s: %w", name, err)
	}
	if got := sha256.Sum256(content); got != sum {
		return fmt.Errorf("cannot put %s: its SHA-256 is %x, want %x", name, got, sum)
	}
	h.machine.Edit(func(*wire.State) { h.machine.files[name] = content })
	return nil
}

// Run runs rbee, which must be installed or uploaded with Put.
func (h *host) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, _ io.Writer) error {
	if err := h.check(ctx); err != nil {
		return err
	}
	h.machine.count(func(c *Calls) { c.Runs++ })
	if len(argv) == 0 || !h.machine.canRun(argv[0]) {
		return &exitError{127, fmt.Errorf("fakehost: no such program: %q", argv)}
	}
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	if stdout == nil {
		stdout = io.Discard
	}
	in, inWriter := io.Pipe()
	go func() {
		_, err := io.Copy(inWriter, stdin)
		_ = inWriter.CloseWithError(err)
	}()
	out, done := &detachableWriter{w: stdout}, make(chan error, 1)
	runCtx, stop := context.WithCancel(ctx)
	defer context.AfterFunc(h.closed, stop)()
	go func() {
		defer stop()
		done <- h.machine.run(runCtx, argv, in, out)
	}()
	var err error
	select {
	case err = <-done:
		_ = in.Close()
		return err
	case <-ctx.Done():
		err = ctx.Err()
	case <-h.closed.Done():
		err = context.Cause(h.closed)
	}
	if c, ok := stdin.(io.Closer); ok { // unblocks a writer at the other end of a pipe
		_ = c.Close()
	}
	out.detach()
	_ = inWriter.Close()
	return err
}

// run runs a program on the machine.
func (m *Machine) run(ctx context.Context, argv []string, stdin io.Reader, stdout io.Writer) error {
	args := argv[1:]
	switch {
	case slices.Equal(args, []string{"hive", "apply"}):
		return m.apply(ctx, argv[0], stdin, stdout)
	case len(args) >= 2 && slices.Equal(args[:2], []string{"hive", "inspect"}):
		return wire.NewWriter(stdout).Write(m.inspect(slices.Contains(args, "--devices")))
	}
	return &exitError{64, fmt.Errorf("fakehost: no such command: %q", args)}
}

// detachableWriter writes to w until detach is called, and then discards everything.
type detachableWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (d *detachableWriter) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.w.Write(p)
}

func (d *detachableWriter) detach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.w = io.Discard
}

// canRun reports whether exe is a working rbee binary.
func (m *Machine) canRun(exe string) (ok bool) {
	m.Edit(func(s *wire.State) {
		_, isUpload := m.files[exe]
		ok = isUpload || s.Rbee != nil && s.Broken == "" && exe == path.Join(s.Home, wire.Binary)
	})
	return ok
}

// Dial calls the machine's Network function.
func (h *host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := h.check(ctx); err != nil {
		return nil, err
	}
	if h.machine.Network == nil {
		return nil, fmt.Errorf("fakehost: nothing listens on %s", address)
	}
	return h.machine.Network(ctx, network, address)
}

// Close closes the connection. Calls after the first one have no effect.
func (h *host) Close() error {
	if h.machine.closeHost(h, errClosed) {
		h.machine.count(func(c *Calls) { c.Closes++ })
	}
	return nil
}
