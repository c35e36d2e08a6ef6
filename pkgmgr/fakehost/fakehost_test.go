package fakehost_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

func connect(t *testing.T, m *fakehost.Machine) pkgmgr.Host {
	t.Helper()
	h, err := m.Connect(t.Context(), config.Hive{})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func gzipped(t *testing.T, content string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	if _, err := io.WriteString(gz, content); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestConnect(t *testing.T) {
	t.Parallel()
	machines := fakehost.Machines{"reachable": {}, "nil": nil, "unreachable": {Unreachable: errors.New("no route")}}
	for alias, want := range map[string]string{"reachable": "", "nil": "no machine for nil", "missing": "no machine for missing", "unreachable": "no route"} {
		h, err := machines.Connect(t.Context(), config.Hive{Alias: alias})
		if got := fmt.Sprint(err); err != nil && got != want || err == nil && (want != "" || h == nil) {
			t.Errorf("Connect(%s) = %v, %v, want error %q", alias, h, err, want)
		}
	}
	var coded interface{ ErrorCode() string }
	if _, err := machines.Connect(t.Context(), config.Hive{}); !errors.As(err, &coded) || coded.ErrorCode() != "resolve" {
		t.Errorf("Connect() of an unknown alias = %v, want an error with code %q", err, "resolve")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := machines.Connect(ctx, config.Hive{Alias: "reachable"}); !errors.Is(err, context.Canceled) {
		t.Errorf("Connect() with a canceled context = %v, want %v", err, context.Canceled)
	}
}

func TestPut(t *testing.T) {
	t.Parallel()
	m := &fakehost.Machine{}
	h := connect(t, m)
	if err := h.Put(t.Context(), "/x", 0o755, gzipped(t, "one"), sha256.Sum256([]byte("one"))); err != nil {
		t.Errorf("Put() = %v, want no error", err)
	}
	if err := h.Put(t.Context(), "/x", 0o755, gzipped(t, "one"), sha256.Sum256([]byte("two"))); err == nil {
		t.Error("Put() with a wrong checksum = nil, want an error")
	}
	if err := h.Put(t.Context(), "/x", 0o755, strings.NewReader("one"), sha256.Sum256([]byte("one"))); err == nil {
		t.Error("Put() of data that is not compressed = nil, want an error")
	}
	m.FailPut = errors.New("disk full")
	if err := h.Put(t.Context(), "/x", 0o755, gzipped(t, "one"), sha256.Sum256([]byte("one"))); !errors.Is(err, m.FailPut) {
		t.Errorf("Put() with FailPut = %v, want %v", err, m.FailPut)
	}
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Errorf("Close() twice = %v, want no error", err)
	}
	if got, want := m.Calls(), (fakehost.Calls{Connects: 1, Puts: 4, Closes: 1}); got != want {
		t.Errorf("Calls() = %+v, want %+v", got, want)
	}
	if err := h.Script(t.Context(), "", io.Discard, nil); err == nil {
		t.Error("Script() after Close() = nil, want an error")
	}
}

func TestRunUnknownProgram(t *testing.T) {
	t.Parallel()
	h := connect(t, &fakehost.Machine{})
	for _, argv := range [][]string{nil, {"ls"}, {"/home/bee/.local/share/rbee/bin/rbee", "hive", "apply"}} {
		err := h.Run(t.Context(), argv, nil, nil, nil)
		var exit interface{ ExitStatus() int }
		if !errors.As(err, &exit) || exit.ExitStatus() != 127 {
			t.Errorf("Run(%q) = %v, want exit status 127", argv, err)
		}
	}
}

// TestApply sends requests without pkgmgr, including invalid ones.
func TestApply(t *testing.T) {
	t.Parallel()
	rbee := wire.State{Rbee: &wire.BinaryRecord{Version: "1", SHA256: "aa"}}
	push := func(sum string) wire.Step {
		return wire.Step{Action: wire.ActionInstallWorker, Worker: &wire.WorkerInstall{
			Type: "w", Version: "1", SHA256: sum, Steps: []wire.InstallStep{{Kind: wire.StepFile, Artifact: &wire.Artifact{Name: "w", SHA256: sum}}},
		}}
	}
	for name, k := range map[string]struct {
		schema int
		step   wire.Step
		blob   string
		want   string // in the result; empty for success
	}{
		"stop":           {wire.Schema, wire.Step{Action: wire.ActionStop}, "", ""},
		"other schema":   {wire.MinReader - 1, wire.Step{Action: wire.ActionStop}, "", fmt.Sprintf("has schema %d", wire.MinReader-1)},
		"unknown action": {wire.Schema, wire.Step{Action: "fly"}, "", `unknown action "fly"`},
		"no worker":      {wire.Schema, wire.Step{Action: wire.ActionInstallWorker}, "", "invalid step: no worker"},
		"no binary":      {wire.Schema, wire.Step{Action: wire.ActionInstallSelf}, "", "no binary to install"},
		"not uploaded":   {wire.Schema, wire.Step{Action: wire.ActionInstallSelf, Install: &wire.BinaryRecord{}}, "", "the uploaded rbee has SHA-256"},
		"artifact":       {wire.Schema, push(fmt.Sprintf("%x", sha256.Sum256([]byte("body")))), "body", ""},
		"other artifact": {wire.Schema, push(fmt.Sprintf("%x", sha256.Sum256([]byte("body")))), "bodx", "the artifact has SHA-256"},
		"wrong checksum": {wire.Schema, push("aa"), "", "want 64 hex digits"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &fakehost.Machine{Initial: rbee}
			var in, out bytes.Buffer
			if err := wire.WriteRequest(&in, &wire.Request{Schema: k.schema, Steps: []wire.Step{k.step}}); err != nil {
				t.Fatal(err)
			}
			if k.blob != "" {
				if err := wire.SendBlob(&in, strings.NewReader(k.blob), false); err != nil {
					t.Fatal(err)
				}
			}
			open, _ := io.Pipe() // prevents the end of stdin, which would cancel the run
			err := connect(t, m).Run(t.Context(), []string{m.State().Home + "/bin/rbee", "hive", "apply"}, io.MultiReader(&in, open), &out, nil)
			if wantErr := name == "other schema"; wantErr != (err != nil) {
				t.Fatalf("Run(apply) = %v, want an error: %t", err, wantErr)
			}
			var r *wire.Result
			for messages := wire.NewReader(&out); r == nil; {
				var message wire.Message
				if err := messages.Read(&message); err != nil {
					t.Fatal(err)
				}
				r = message.Result
			}
			got := r.Error + strings.Join(r.Errors, "")
			if k.want == "" && got != "" || !strings.Contains(got, k.want) || r.State == nil && name != "other schema" {
				t.Errorf("result of apply: errors %q and state %+v, want errors with %q", got, r.State, k.want)
			}
			if got, want := string(m.Artifact("w")) == "body", name == "artifact"; got != want {
				t.Errorf("Artifact(w) = %q, equal to %q: %t, want %t", m.Artifact("w"), "body", got, want)
			}
		})
	}
	t.Run("no request", func(t *testing.T) {
		t.Parallel()
		m := &fakehost.Machine{Initial: rbee}
		if err := connect(t, m).Run(t.Context(), []string{m.State().Home + "/bin/rbee", "hive", "apply"}, nil, nil, nil); err == nil {
			t.Error("Run(apply) with empty stdin = nil, want an error")
		}
	})
}

func TestDialAndState(t *testing.T) {
	t.Parallel()
	m := &fakehost.Machine{Initial: wire.State{Devices: []gpu.Device{{Vendor: "amd"}}}}
	h := connect(t, m)
	if _, err := h.Dial(t.Context(), "tcp", "127.0.0.1:8600"); err == nil {
		t.Error("Dial() without Network = nil, want an error")
	}
	client, server := net.Pipe()
	defer server.Close()
	m.Network = func(context.Context, string, string) (net.Conn, error) { return client, nil }
	if conn, err := h.Dial(t.Context(), "tcp", "127.0.0.1:8600"); conn != client || err != nil {
		t.Errorf("Dial() = %v, %v, want the connection of Network", conn, err)
	}
	for script, want := range map[string]wire.Devices{"": nil, "rbee hive inspect --devices": {{Vendor: "amd"}}} {
		var out bytes.Buffer
		var s wire.State
		if err := errors.Join(h.Script(t.Context(), script, &out, nil), wire.NewReader(&out).Read(&s)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s.Devices, want) || s.DevicesKnown != (want != nil) || s.OS != "linux" || s.Arch != "amd64" || s.Schema != 0 {
			t.Errorf("Script(%q) = %+v, want devices %+v of a linux/amd64 machine without rbee", script, s, want)
		}
	}
	snapshot := m.State()
	snapshot.Devices[0].Vendor = "changed"
	if got := m.State().Devices[0].Vendor; got != "amd" {
		t.Errorf("State().Devices[0].Vendor after a change of an earlier result = %q, want amd", got)
	}
}

// TestConcurrentFleets checks that several fleets can work on the same machines at the same
// time.
func TestConcurrentFleets(t *testing.T) {
	t.Parallel()
	machines := fakehost.Machines{"a": {}, "b": {}}
	config := &config.Config{Hives: []config.Hive{
		{Alias: "a", Hostname: "a", HivePort: 1, AutoStart: true, Workers: []config.Worker{{Type: "echo", Version: version.Latest}}}, {Alias: "b", Hostname: "b", HivePort: 1},
	}}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			f, err := pkgmgr.Open(config, pkgmgr.Options{Connect: machines.Connect, Binaries: fakehost.Rbee("1"), Version: "1", CacheDir: t.TempDir()})
			if err != nil {
				t.Errorf("Open() = %v, want no error", err)
				return
			}
			defer f.Close()
			f.Read(t.Context(), pkgmgr.ReadOptions{})
			for _, r := range f.Apply(t.Context(), f.Plan(t.Context(), plan.Options{Fetch: true}), pkgmgr.ApplyOptions{}) {
				if r.Status != operations.HiveInstalled && r.Status != operations.HiveUpdated && r.Status != operations.HiveAlreadyInstalled {
					t.Errorf("Apply() = %+v with error %v, want status installed, updated or already_installed", r, r.Error)
				}
			}
		})
	}
	wg.Wait()
	if s := machines["a"].State(); s.Rbee == nil || len(s.Workers) != 1 || !s.Daemon.Running || s.Workers[0].SHA256 != s.Rbee.SHA256 {
		t.Errorf("State() of machine a = %+v, want rbee, a running daemon and one built-in worker", s)
	}
	for alias, m := range machines {
		if c := m.Calls(); c.Connects != 8 || c.Closes != 8 || c.Scripts != 8 {
			t.Errorf("Calls() of machine %s = %+v, want 8 connects, closes and scripts", alias, c)
		}
	}
}
