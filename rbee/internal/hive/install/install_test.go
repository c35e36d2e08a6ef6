package install

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/freeport"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/daemon"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/inspect"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/verify"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
)

// TestMain makes the test binary behave as rbee, so that the tests can install it as
// bin/rbee and run it as the daemon.
func TestMain(m *testing.M) {
	origintest.Main()
	if len(os.Args) > 3 && os.Args[1] == "engine" {
		fakeEngine(os.Args[2], os.Args[3])
	}
	if len(os.Args) > 2 && os.Args[1] == "hive" {
		exe, _ := os.Executable()
		h := connect(os.Getenv("RBEE_HOME"), "", exe)
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		var err error
		if os.Args[2] == "serve" {
			err = h.Serve(ctx, daemon.Options{})
		} else {
			h.onTestPoint = func(point string) {
				if point == os.Getenv("RBEE_TEST_KILL") {
					_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				}
			}
			err = h.Apply(ctx, os.Stdin, os.Stdout)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Hive is a hive with its components connected as in the program.
type Hive struct {
	*home.Dir
	*installed.Store
	*control.Daemon
	*verify.Verifier
	*inspect.Inspector
	*Installer
	*daemon.Server
}

// connect returns the hive of an rbee directory. Its daemon runs as a detached process.
func connect(root, user, exe string) *Hive {
	dir := &home.Dir{Root: root, User: user}
	store := &installed.Store{Home: dir, Version: "1.0", Exe: exe}
	dm := &control.Daemon{Home: dir, Supervisor: service.Detached}
	verifier := &verify.Verifier{Home: dir, Store: store}
	inspector := &inspect.Inspector{Home: dir, Store: store, Daemon: dm, Verifier: verifier}
	return &Hive{
		dir, store, dm, verifier, inspector,
		&Installer{Home: dir, Store: store, Daemon: dm, Inspector: inspector, Verifier: verifier},
		&daemon.Server{Home: dir, Store: store, Inspector: inspector, Verifier: verifier},
	}
}

// newHive returns the hive of an empty rbee directory, with the test binary as the upload.
func newHive(t *testing.T) *Hive {
	t.Helper()
	user := t.TempDir()
	h := connect(filepath.Join(user, ".local/share/rbee"), user, "")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.Exe = h.Path("bin/.rbee-upload")
	if err := os.MkdirAll(h.Path("bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := home.LinkOrCopy(exe, h.Exe); err != nil {
		t.Fatal(err)
	}
	return h
}

// apply applies a request, sends blob in response to each Need, and returns the result.
func apply(t *testing.T, h *Hive, req *wire.Request, blob []byte) *wire.Result {
	t.Helper()
	req.Schema, req.Owner = wire.Schema, "tester"
	// A process that another test forks also holds the lock until it calls exec.
	req.LockWait = cmp.Or(req.LockWait, 30*time.Second)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- h.Apply(t.Context(), inR, outW) }()
	if err := wire.WriteRequest(inW, req); err != nil {
		t.Fatal(err)
	}
	for r := wire.NewReader(outR); ; {
		var m wire.Message
		if err := r.Read(&m); err != nil {
			t.Fatal(err)
		}
		if m.Need != nil {
			if err := wire.SendBlob(inW, bytes.NewReader(blob), false); err != nil {
				t.Fatal(err)
			}
		}
		if m.Result != nil {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			return m.Result
		}
	}
}

// self returns a step that installs the upload as rbee.
func self(t *testing.T, h *Hive) wire.Step {
	t.Helper()
	sum, size, err := fetch.HashFile(h.Exe)
	if err != nil {
		t.Fatal(err)
	}
	return wire.Step{Action: wire.ActionInstallSelf, Install: &wire.BinaryRecord{Version: "1.0", SHA256: sum, Size: size}}
}

// worker returns a step that installs a version of worker w from data, an archive of the
// given format. An empty format means that data is the program. Without data, the worker is
// built into rbee.
func worker(version string, format wire.Format, data []byte) wire.Step {
	install := &wire.WorkerInstall{Type: "w", Version: version, Steps: []wire.InstallStep{{Kind: wire.StepBuiltin, Builtin: "echo"}}}
	if data != nil {
		sum := sha256.Sum256(data)
		install.Steps[0] = wire.InstallStep{Kind: wire.StepFile, Artifact: &wire.Artifact{
			Name: "w", SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data)),
		}}
		if format != "" {
			install.Steps[0].Kind, install.Steps[0].Format, install.Entry = wire.StepArchive, format, "run"
		}
	}
	return wire.Step{Action: wire.ActionInstallWorker, Worker: install}
}

// tarGz returns a .tar.gz archive with the given entries. Each file contains "hi".
func tarGz(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size, h.Mode = 2, 0o755
		}
		err := w.WriteHeader(&h)
		if h.Typeflag == tar.TypeReg && err == nil {
			_, err = w.Write([]byte("hi"))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// freePort returns a port and a listener on it.
func freePort(t testing.TB) (int, net.Listener) {
	t.Helper()
	port, err := freeport.Find(nil)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", control.Loopback(port))
	if err != nil {
		t.Fatal(err)
	}
	return port, ln
}

// TestInstallStartUninstall checks the install of rbee and a worker, the start of the daemon
// and the uninstall.
func TestInstallStartUninstall(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	port, ln := freePort(t)
	ln.Close()
	builtin := worker("1.0", "", nil)
	res := apply(t, h, &wire.Request{
		Settings: &wire.Settings{Alias: "a", HivePort: port},
		Steps:    []wire.Step{self(t, h), builtin, {Action: wire.ActionStart}},
	}, nil)
	t.Cleanup(func() { _, _ = h.Stop(context.Background()) })
	s := res.State
	if strings.Join(res.Errors, "") != "" || s == nil || s.Rbee == nil || s.Rbee.Version != "1.0" || s.Broken != "" ||
		!s.Daemon.Running || s.Daemon.Port != port || len(s.Workers) != 1 || s.Workers[0].Corrupt != "" {
		body, _ := json.Marshal(res)
		t.Fatalf("install and start = %s, want a running daemon and one intact worker", body)
	}
	h.Exe = h.Path(wire.Binary)
	if note, err := h.Start(t.Context()); note != "already running" || err != nil {
		t.Errorf("the second Start() = %q, %v, want already running", note, err)
	}
	resp, err := http.Get("http://" + control.Loopback(port) + "/v1/info")
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("GET /v1/info without a token = %v, %v, want status 401", resp, err)
	}
	if err := os.WriteFile(h.Path("mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	res = apply(t, h, &wire.Request{Steps: []wire.Step{{Action: wire.ActionRemoveSelf}}}, nil)
	remaining, _ := filepath.Glob(h.Path("*"))
	if res.Errors[0] != "" || len(remaining) != 1 || filepath.Base(remaining[0]) != "mine" {
		t.Errorf("uninstall = %q, remaining files %v, want only the file that rbee did not create", res.Errors, remaining)
	}
	if c, err := net.Dial("tcp", control.Loopback(port)); err == nil {
		c.Close()
		t.Errorf("port %d accepts connections after the uninstall, want none", port)
	}
}

func TestChecksumMismatchKeepsInstalled(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	one, two := []byte("#!/bin/sh\n"), []byte("#!/bin/sh\n#2\n")
	step := worker("2", "", two)
	step.Worker.Steps[0].Artifact.SHA256 = strings.Repeat("0", 64)
	badSelf := self(t, h)
	badSelf.Install.SHA256 = strings.Repeat("0", 64)
	apply(t, h, &wire.Request{Steps: []wire.Step{worker("1", "", one)}}, one)
	res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, two)
	if !strings.Contains(res.Errors[0], "SHA-256") || res.Causes[0].Reason != operations.ReasonChecksum || res.State.Workers[0].Version != "1" || res.State.Workers[0].Corrupt != "" {
		t.Errorf("install of a worker = %q, %+v, want a checksum error and version 1 intact", res.Errors, res.State.Workers)
	}
	res = apply(t, h, &wire.Request{Steps: []wire.Step{badSelf, step}}, two)
	if res.Errors[0] == "" || !strings.HasPrefix(res.Errors[1], "not started") || res.State.Rbee != nil {
		t.Errorf("install of rbee = %q, rbee %+v, want an error, the next step not started, and no rbee", res.Errors, res.State.Rbee)
	}
}

// TestKilledInstallWorker checks that a killed run leaves the complete old or new worker, and
// that the next run removes its leftovers.
func TestKilledInstallWorker(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"staged", "complete", "renamed", "linked"} {
		for _, version := range []string{"1", "2"} {
			t.Run(point+" "+version, func(t *testing.T) {
				t.Parallel()
				h := newHive(t)
				apply(t, h, &wire.Request{Steps: []wire.Step{self(t, h), worker("1", "", nil)}}, nil)
				step := worker(version, "", nil)
				step.Worker.Force = true
				killAt(t, h, h.Path(wire.Binary), point, step)
				if w := h.Worker(t.Context(), "w", true); w == nil || w.Corrupt != "" {
					t.Fatalf("Worker() after the kill = %+v, want an intact worker", w)
				}
				apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil)
				entries, _ := os.ReadDir(h.Path("workers/w"))
				want, previous := 1, "" // the build
				if version == "2" {
					want, previous = 3, "1" // with the previous build, and the link to it
				}
				if w := h.Worker(t.Context(), "w", true); w.Version != version || w.Corrupt != "" || w.Previous != previous || len(entries) != want {
					t.Errorf("after the next run, Worker() = %+v, entries %v, want version %s, previous %q and %d entries", w, entries, version, previous, want)
				}
			})
		}
	}
}

func TestDownload(t *testing.T) {
	t.Parallel()
	data := tarGz(t, tar.Header{Name: "run", Typeflag: tar.TypeReg})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }))
	t.Cleanup(srv.Close)
	h := newHive(t)
	step := worker("3", wire.FormatTarGz, data)
	step.Worker.Steps[0].Artifact.URL = srv.URL + "/w?token=secret"
	res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil)
	if res.Errors[0] != "" || len(res.State.Workers) != 1 || res.State.Workers[0].Corrupt != "" {
		t.Fatalf("install from a URL = %+v, want an intact worker", res)
	}
	huge := worker("4", "", data)
	huge.Worker.Steps[0].Artifact.Size = 1 << 60
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{huge}}, nil); !strings.Contains(res.Errors[0], "insufficient disk") || res.Causes[0].Reason != operations.ReasonDiskFull {
		t.Errorf("install of 1 EiB = %q, want insufficient disk space", res.Errors)
	}
}

func TestLockHeld(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	lock, err := h.Lock(t.Context(), "owner", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	res := apply(t, h, &wire.Request{LockWait: 150 * time.Millisecond, Steps: []wire.Step{{Action: wire.ActionStop}}}, nil)
	if res.Locked == nil || res.Locked.Holder != "owner" || !strings.HasPrefix(res.Errors[0], "not started") {
		t.Errorf("Apply() while the lock is held sent %+v, want Locked with the owner, and the step not started", res)
	}
}

// TestStaleRecordAndPortInUse checks that stopping the daemon does not kill another process
// with the PID in a stale record, and that starting it reports a port that is in use.
func TestStaleRecordAndPortInUse(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	stale := control.Record{ID: proc.ID{PID: cmd.Process.Pid, StartTime: "1", BootID: "another boot"}}
	port, ln := freePort(t)
	defer ln.Close()
	if err := errors.Join(atomicfile.WriteJSON(h.Path(home.DaemonFile), stale), atomicfile.WriteJSON(h.Path(home.SettingsFile), wire.Settings{HivePort: port})); err != nil {
		t.Fatal(err)
	}
	res := apply(t, h, &wire.Request{Steps: []wire.Step{self(t, h), {Action: wire.ActionStop}, {Action: wire.ActionStart}}}, nil)
	if res.Errors[1] != "" || !strings.Contains(res.Errors[2], "used by another process") {
		t.Errorf("stop and start = %q, want success and a port in use", res.Errors[1:])
	}
	if _, err := proc.Identify(cmd.Process.Pid); err != nil {
		t.Errorf("Identify() of the other process = %v, want it running", err)
	}
}

// Start starts the daemon with the lock held, as a step of a request does.
func (h *Hive) Start(ctx context.Context) (note string, err error) {
	return h.withLock(ctx, h.Daemon.Start)
}

// Stop stops the daemon with the lock held, as a step of a request does.
func (h *Hive) Stop(ctx context.Context) (note string, err error) {
	return h.withLock(ctx, h.Daemon.Stop)
}

func (h *Hive) withLock(ctx context.Context, do func(context.Context) (note string, err error)) (note string, err error) {
	lock, err := h.Lock(ctx, "a test", 30*time.Second, nil)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	return do(ctx)
}
