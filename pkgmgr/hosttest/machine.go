package hosttest

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// exitStatus returns the exit status of a program that failed, or -1 for other errors.
func exitStatus(err error) int {
	var exit interface{ ExitStatus() int }
	if errors.As(err, &exit) {
		return exit.ExitStatus()
	}
	return -1
}

// testNotInstalled reads the state of a machine without rbee.
func testNotInstalled(t *testing.T, c *client) {
	s := c.state()
	if s.Schema != 0 || s.Rbee != nil || s.Broken != "" || s.Settings != nil || s.Daemon.Running || len(s.Workers) > 0 {
		t.Errorf("state without rbee = %+v, want no rbee, settings, daemon and workers", s)
	}
	if s.OS == "" || s.Arch == "" || !path.IsAbs(s.Home) {
		t.Errorf("state without rbee = OS %q, Arch %q, Home %q, want all three and an absolute path", s.OS, s.Arch, s.Home)
	}
}

func testPrograms(t *testing.T, c *client) {
	ctx := t.Context()
	missing := []string{path.Join(c.state().Home, wire.Binary), "hive", "apply"}
	if err := c.host.Run(ctx, missing, nil, nil, nil); exitStatus(err) != 126 && exitStatus(err) != 127 {
		t.Errorf("Run(missing program) = %v, want exit status 126 or 127", err)
	}
	exe := c.installRbee()
	if err := c.host.Run(ctx, []string{exe, "hive", "no-such-command"}, nil, nil, nil); exitStatus(err) <= 0 {
		t.Errorf("Run(rbee hive no-such-command) = %v, want an exit status above 0", err)
	}
	if err := c.host.Run(ctx, []string{exe, "hive", "apply"}, nil, nil, nil); exitStatus(err) <= 0 {
		t.Errorf("Run(rbee hive apply) without stdin = %v, want an exit status above 0", err)
	}
	var out bytes.Buffer
	var s wire.State
	if err := c.host.Run(ctx, []string{exe, "hive", "inspect"}, nil, &out, nil); err != nil {
		t.Fatalf("Run(rbee hive inspect) = %v, want no error", err)
	}
	if err := wire.NewReader(&out).Read(&s); err != nil || s.Rbee == nil || s.Schema != wire.Schema || s.Home != c.state().Home || s.DevicesKnown {
		t.Errorf("Run(rbee hive inspect) writes state %+v, %v, want schema %d, rbee, home %s and no devices", s, err, wire.Schema, c.state().Home)
	}

	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.host.Run(canceled, []string{exe, "hive", "inspect"}, nil, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Run() with a canceled context = %v, want %v", err, context.Canceled)
	}
	if err := c.host.Script(canceled, "exit 0", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Script() with a canceled context = %v, want %v", err, context.Canceled)
	}
	other := connect(t, c.machine)
	if err := other.Close(); err != nil {
		t.Errorf("Close() = %v, want no error", err)
	}
	if err := other.Run(ctx, []string{exe, "hive", "inspect"}, nil, nil, nil); err == nil {
		t.Error("Run() after Close() = nil, want an error")
	}
	if err := c.host.Run(ctx, []string{exe, "hive", "inspect"}, nil, nil, nil); err != nil {
		t.Errorf("Run() after Close() of another connection = %v, want no error", err)
	}
}

func testPut(t *testing.T, c *client) {
	exe, _ := c.upload()
	other := []byte("other content")
	compress := func(content []byte) []byte {
		var b bytes.Buffer
		gz := gzip.NewWriter(&b)
		_, err := gz.Write(content)
		if err := errors.Join(err, gz.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	readErr := errors.New("broken")
	for name, put := range map[string]func() error{
		"wrong checksum": func() error {
			return c.host.Put(t.Context(), exe, 0o755, bytes.NewReader(compress(other)), sha256.Sum256([]byte("expected content")))
		},
		"not gzip": func() error {
			return c.host.Put(t.Context(), exe, 0o755, bytes.NewReader(other), sha256.Sum256(other))
		},
		"truncated": func() error {
			return c.host.Put(t.Context(), exe, 0o755, bytes.NewReader(compress(other)[:15]), sha256.Sum256(other))
		},
		"read error": func() error {
			return c.host.Put(t.Context(), exe, 0o755, io.MultiReader(bytes.NewReader(compress(other)[:15]), errorReader{readErr}), sha256.Sum256(other))
		},
		"canceled": func() error {
			return c.host.Put(canceled, exe, 0o755, bytes.NewReader(compress(other)), sha256.Sum256(other))
		},
	} {
		if err := put(); err == nil {
			t.Errorf("Put(%s) = nil, want an error", name)
		}
	}
	// The existing file must be unchanged.
	sum := c.rbee().SHA256
	e := c.apply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionInstallSelf, Install: &wire.BinaryRecord{Version: "0", SHA256: sum}}}}, nil)
	if e.err != nil || e.failures() != "" {
		t.Errorf("install_self after failed calls of Put() = errors %q, %v, want none", e.failures(), e.err)
	}
}

// errorReader is a reader that always fails.
type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func testInstallSelf(t *testing.T, c *client) {
	// The steps after a failed install of rbee are not started.
	exe, install := c.upload()
	wrong := *install
	wrong.SHA256 = strings.Repeat("0", 64)
	_, step := program("w", "1")
	e := c.apply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionInstallSelf, Install: &wrong}, step}}, nil)
	if e.err != nil || e.result == nil || len(e.result.Errors) != 2 || !strings.Contains(e.result.Errors[0], "SHA-256") || !notStarted(e.result, 1) || len(e.needs()) > 0 {
		t.Errorf("install_self with a wrong checksum = %+v, %v, want a checksum error and a second step that was not started", e.result, e.err)
	}
	if s := c.state(); s.Rbee != nil || len(s.Workers) > 0 {
		t.Errorf("state after a failed install_self = %+v, want no rbee and no workers", s)
	}
	// The machine removes the upload even if the install fails.
	if err := c.host.Run(t.Context(), []string{exe, "hive", "inspect"}, nil, nil, nil); exitStatus(err) != 126 && exitStatus(err) != 127 {
		t.Errorf("Run(upload) after a failed install_self = %v, want exit status 126 or 127", err)
	}

	exe, install = c.upload()
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionInstallSelf, Install: install}}}, nil)
	checkStepMessages(t, e, 1)
	for from, s := range map[string]*wire.State{"result": e.result.State, "inspect": ptr(c.state())} {
		if s == nil || s.Schema != wire.Schema || s.Rbee == nil || s.Rbee.SHA256 != install.SHA256 || s.Rbee.Size != install.Size || s.Broken != "" || s.Rbee.InstalledAt.IsZero() {
			t.Errorf("state of %s after install_self = %+v, want rbee %+v", from, s, install)
		}
	}
	if err := c.host.Run(t.Context(), []string{exe, "hive", "inspect"}, nil, nil, nil); exitStatus(err) != 126 && exitStatus(err) != 127 {
		t.Errorf("Run(upload) after install_self = %v, want exit status 126 or 127", err)
	}
	// A second install of the same rbee changes nothing.
	before := c.state().Rbee
	e = c.mustApply(path.Join(c.state().Home, wire.Binary), &wire.Request{Steps: []wire.Step{{Action: wire.ActionInstallSelf, Install: install}}}, nil)
	if got := e.result.State.Rbee; got == nil || got.SHA256 != before.SHA256 || !got.InstalledAt.Equal(before.InstalledAt) {
		t.Errorf("rbee after install_self of the same rbee = %+v, want %+v", got, before)
	}
}

// testRollbackSelf rolls back rbee on a machine without a previous rbee, because the tests have only one binary.
func testRollbackSelf(t *testing.T, c *client) {
	rollback := &wire.Request{Steps: []wire.Step{{Action: wire.ActionRollbackSelf}}}
	exe := c.installRbee()
	before := c.state()
	if before.PreviousRbee != nil {
		t.Errorf("PreviousRbee = %+v, want nil", before.PreviousRbee)
	}
	e := c.apply(exe, rollback, nil)
	if e.err != nil || e.result == nil || len(e.result.Errors) != 1 || e.result.Errors[0] == "" || e.result.CauseOf(0).Reason != operations.ReasonNoPreviousVersion {
		t.Errorf("rollback_self without a previous rbee = %+v, %v, want reason %s", e.result, e.err, operations.ReasonNoPreviousVersion)
	}
	c.checkUnchanged(before)
}

func ptr[T any](v T) *T { return &v }

// checkStepMessages checks that the machine reported the start and the end of the first n steps, in order.
func checkStepMessages(t *testing.T, e *exchange, n int) {
	t.Helper()
	var got, want []string
	for _, m := range e.messages {
		if m.Step != nil {
			got = append(got, fmt.Sprint(m.Step.Index, m.Step.Done))
			if m.Step.Done && e.result != nil && m.Step.Error != e.result.Errors[m.Step.Index] {
				t.Errorf("message about step %d has error %q, want the error of the result, %q", m.Step.Index, m.Step.Error, e.result.Errors[m.Step.Index])
			}
		}
	}
	for i := range n {
		want = append(want, fmt.Sprint(i, false), fmt.Sprint(i, true))
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("messages about steps (index, done) = %v, want %v", got, want)
	}
}

func testSettings(t *testing.T, c *client) {
	exe := c.installRbee()
	want := wire.Settings{Alias: "bee", HivePort: c.machine.Port, AutoStart: true, Labels: []string{"a", "b"}}
	e := c.mustApply(exe, &wire.Request{Settings: &want}, nil)
	for from, s := range map[string]*wire.State{"result": e.result.State, "inspect": ptr(c.state())} {
		if got := s.Settings; got == nil || got.Alias != want.Alias || got.HivePort != want.HivePort || !got.AutoStart || len(got.Labels) != 2 {
			t.Errorf("settings of %s = %+v, want %+v", from, got, want)
		}
	}
	e = c.mustApply(exe, &wire.Request{}, nil)
	if got := e.result.State.Settings; got == nil || got.Alias != want.Alias {
		t.Errorf("settings after a request without settings = %+v, want alias %q", got, want.Alias)
	}
}

func testDaemon(t *testing.T, c *client) {
	exe := c.installRbee()
	e := c.mustApply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionStop}, {Action: wire.ActionStart}}}, nil)
	t.Cleanup(func() {
		c.apply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionStop}}}, nil)
	})
	s := e.result.State
	if !s.Daemon.Running || s.Daemon.PID == 0 || s.Daemon.Port != c.machine.Port || s.Daemon.SHA256 != s.Rbee.SHA256 || s.Daemon.Supervisor == "" {
		t.Fatalf("daemon after start = %+v, want it running on port %d with the installed binary", s.Daemon, c.machine.Port)
	}
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionStart}}}, nil)
	if got := e.result.State.Daemon; got.PID != s.Daemon.PID || !got.Since.Equal(s.Daemon.Since) {
		t.Errorf("daemon after a second start = %+v, want %+v", got, s.Daemon)
	}
	if got := c.state().Daemon; got.PID != s.Daemon.PID || !got.Running {
		t.Errorf("daemon of inspect = %+v, want %+v", got, s.Daemon)
	}
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionStop}, {Action: wire.ActionStop}}}, nil)
	if d := e.result.State.Daemon; d.Running || d.PID != 0 {
		t.Errorf("daemon after stop = %+v, want it stopped", d)
	}
}

func testRemove(t *testing.T, c *client) {
	exe := c.installRbee()
	content, step := program("w", "1")
	c.mustApply(exe, &wire.Request{Steps: []wire.Step{step}}, blobs(content))
	e := c.mustApply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionRemoveSelf}}}, nil)
	if e.result.State != nil {
		t.Errorf("state in the result of remove = %+v, want nil", e.result.State)
	}
	testNotInstalled(t, c)
	if err := c.host.Run(t.Context(), []string{exe, "hive", "inspect"}, nil, nil, nil); exitStatus(err) != 126 && exitStatus(err) != 127 {
		t.Errorf("Run(rbee) after remove = %v, want exit status 126 or 127", err)
	}
	c.installRbee()
	if s := c.state(); s.Rbee == nil || len(s.Workers) > 0 {
		t.Errorf("state after remove and install = %+v, want rbee without workers", s)
	}
}

// testFleet syncs the machine with pkgmgr.
func testFleet(t *testing.T, c *client) {
	hive := config.Hive{Alias: "m", Hostname: "m", HivePort: c.machine.Port, Workers: []config.Worker{{Type: "echo", Version: version.Latest}}}
	sync := func(hives ...config.Hive) (*plan.Plan, []operations.HiveReport) {
		t.Helper()
		f, err := pkgmgr.Open(&config.Config{Hives: hives}, pkgmgr.Options{
			Connect:  func(ctx context.Context, _ config.Hive) (pkgmgr.Host, error) { return c.machine.Connect(ctx) },
			Binaries: c.machine.Binaries, Version: c.rbee().Version, CacheDir: t.TempDir(),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.Read(t.Context(), pkgmgr.ReadOptions{})
		p := f.Plan(t.Context(), plan.Options{Fetch: true, RemoveExtra: true})
		return p, f.Apply(t.Context(), p, pkgmgr.ApplyOptions{})
	}
	for i, want := range []operations.HiveResult{operations.HiveInstalled, operations.HiveAlreadyInstalled} {
		_, reports := sync(hive)
		if len(reports) != 1 || reports[0].Status != want || reports[0].Error != nil {
			t.Fatalf("Apply() of sync %d = %+v, want status %s", i, reports, want)
		}
	}
	if p, _ := sync(hive); len(p.Steps) > 0 {
		t.Errorf("Plan() of a machine in sync = %+v, want no steps", p.Steps)
	}
	s := c.state()
	if w := worker(&s, "echo"); s.Rbee == nil || w == nil || w.SHA256 != s.Rbee.SHA256 || w.Corrupt != "" {
		t.Errorf("state after sync = %+v, want rbee and its built-in worker", s)
	}
	hive.Workers = nil
	if _, reports := sync(hive); len(reports) != 1 || reports[0].Error != nil || len(c.state().Workers) > 0 {
		t.Errorf("Apply() of a sync without the worker = %+v, want no error and no workers", reports)
	}
}
