package cli_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/hosttest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee"
	"github.com/rbee-keeper/rbee/rbee/internal/freeport"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/inspect"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/install"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/verify"
	"github.com/rbee-keeper/rbee/sshx"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
)

// program returns the rbee that was built for the tests.
func program(t *testing.T) artifact.BinarySource {
	t.Helper()
	exe, err := exec.LookPath("rbee")
	if err != nil {
		t.Fatal(err)
	}
	return &artifact.Binaries{Self: exe, Version: rbee.DevVersion}
}

func unusedPort(t *testing.T) int {
	t.Helper()
	port, err := freeport.Find(nil)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// homeDir returns a new home directory whose path has no symbolic links.
func homeDir(t *testing.T) string {
	t.Helper()
	home, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return home
}

// TestHostOverSSH runs the conformance suite against the program over SSH.
func TestHostOverSSH(t *testing.T) {
	t.Parallel()
	hosttest.TestHost(t, func(t *testing.T) *hosttest.Machine {
		key, pem, err := sshtest.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		h, err := sshtest.New(sshtest.Options{Home: homeDir(t), AuthorizedKeys: []ssh.PublicKey{key.PublicKey()}, StartupOutput: "message of the day\n"})
		if err != nil {
			t.Fatal(err)
		}
		laptop := t.TempDir()
		keyFile, known := filepath.Join(laptop, "id"), filepath.Join(laptop, "known_hosts")
		if err := errors.Join(os.WriteFile(keyFile, pem, 0o600), os.WriteFile(known, []byte(h.KnownHostsLines()), 0o600)); err != nil {
			t.Fatal(err)
		}
		dialer := &sshx.Dialer{Home: laptop, ConfigFiles: []string{}, KnownHosts: []string{known}}
		t.Cleanup(func() {
			dialer.Close()
			h.Close()
		})
		return &hosttest.Machine{
			Connect: func(ctx context.Context) (pkgmgr.Host, error) {
				return dialer.Dial(ctx, sshx.Target{Host: "127.0.0.1", User: h.User(), Port: h.Port(), KeyFile: keyFile})
			},
			Binaries: program(t), Port: unusedPort(t), Cut: h.Cut,
		}
	})
}

// TestHostInProcess runs the conformance suite against the hive code in this process:
// it calls the code of `rbee hive apply` and `rbee hive inspect`, and a shell runs all
// other commands.
func TestHostInProcess(t *testing.T) {
	t.Parallel()
	hosttest.TestHost(t, func(t *testing.T) *hosttest.Machine {
		m := &localMachine{user: homeDir(t), conns: map[*localHost]bool{}}
		return &hosttest.Machine{Connect: m.connect, Binaries: program(t), Port: unusedPort(t), Cut: m.cut}
	})
}

// localMachine simulates a machine with a home directory on this machine.
type localMachine struct {
	user string

	mu    sync.Mutex
	conns map[*localHost]bool
}

// localHost is a connection to a localMachine.
type localHost struct {
	*sshx.Local
	machine *localMachine
	ctx     context.Context // canceled with the connection
	cancel  context.CancelCauseFunc
}

var (
	errConnectionClosed = errors.New("connection closed")
	errConnectionLost   = errors.New("connection lost")
)

func (m *localMachine) connect(ctx context.Context) (pkgmgr.Host, error) {
	h := &localHost{Local: &sshx.Local{Env: []string{"HOME=" + m.user, "RBEE_HOME="}, Dir: m.user}, machine: m}
	h.ctx, h.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.conns[h] = true
	return h, nil
}

func (m *localMachine) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for h := range m.conns {
		h.cancel(errConnectionLost)
	}
}

// exitError is the error of a failed program in this process.
type exitError struct{ error }

func (exitError) ExitStatus() int { return 1 }

func (h *localHost) Close() error {
	h.cancel(errConnectionClosed)
	return nil
}

// Run calls the hive code if argv runs an installed rbee.
func (h *localHost) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	switch {
	case h.ctx.Err() != nil:
		return context.Cause(h.ctx)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	if info, err := os.Stat(argv[0]); err != nil || info.Mode()&0o100 == 0 || len(argv) != 3 || argv[1] != "hive" || !slices.Contains([]string{"apply", "inspect"}, argv[2]) {
		return h.Local.Run(ctx, argv, stdin, stdout, stderr)
	}
	if stdin == nil {
		stdin = strings.NewReader("")
	}
	if stdout == nil {
		stdout = io.Discard
	}
	apply, inspect := hiveOf(h.machine.user, argv[0])
	// As over SSH, the end of stdin stops the program, not its context.
	in, stdinWriter := io.Pipe()
	go func() {
		_, err := io.Copy(stdinWriter, stdin)
		_ = stdinWriter.CloseWithError(err)
	}()
	out := &detachableWriter{w: stdout}
	done := make(chan error, 1)
	go func() {
		if argv[2] == "inspect" {
			done <- inspect(context.WithoutCancel(ctx), out)
			return
		}
		done <- apply(context.WithoutCancel(ctx), in, out)
	}()
	abort := func() {
		if c, ok := stdin.(io.Closer); ok { // unblock the writer, which may not be reading the output
			_ = c.Close()
		}
		out.detach()
		_ = stdinWriter.Close()
	}
	select {
	case err := <-done:
		if err != nil {
			return exitError{err}
		}
		return nil
	case <-ctx.Done():
		abort()
		return ctx.Err()
	case <-h.ctx.Done():
		abort()
		return context.Cause(h.ctx)
	}
}

// detachableWriter is a writer that discards its output after detach.
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

// hiveOf returns the functions of `rbee hive apply` and `rbee hive inspect` for the
// program exe and the home directory user.
func hiveOf(user, exe string) (apply func(context.Context, io.Reader, io.Writer) error, read func(context.Context, io.Writer) error) {
	dir := &home.Dir{Root: filepath.Join(user, ".local/share/rbee"), User: user}
	store := &installed.Store{Home: dir, Version: rbee.DevVersion, Exe: exe}
	i := &inspect.Inspector{Home: dir, Store: store, Daemon: &control.Daemon{Home: dir}, Verifier: &verify.Verifier{Home: dir, Store: store}}
	in := &install.Installer{Home: dir, Store: store, Daemon: i.Daemon, Inspector: i, Verifier: i.Verifier}
	return in.Apply, func(ctx context.Context, stdout io.Writer) error {
		state, err := i.Inspect(ctx, inspect.Options{})
		if err != nil {
			return fmt.Errorf("inspect: %w", err)
		}
		return wire.NewWriter(stdout).Write(state)
	}
}
