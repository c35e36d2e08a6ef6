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

func packed(t *testing.T, content string) io.Reader {
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
	f := fakehost.Fleet{"here": {}, "nil": nil, "away": {Unreachable: errors.New("no route")}}
	for alias, want := range map[string]string{"here": "", "nil": "no machine for nil", "none": "no machine for none", "away": "no route"} {
		h, err := f.Connect(t.Context(), config.Hive{Alias: alias})
		if got := fmt.Sprint(err); err != nil && got != want || err == nil && (want != "" || h == nil) {
			t.Errorf("%s: %v, want %q", alias, err, want)
		}
	}
	var coded interface{ ErrorCode() string }
	if _, err := f.Connect(t.Context(), config.Hive{}); !errors.As(err, &coded) || coded.ErrorCode() != "resolve" {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Connect(ctx, config.Hive{Alias: "here"}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestPut(t *testing.T) {
	t.Parallel()
	m := &fakehost.Machine{}
	h := connect(t, m)
	if err := h.Put(t.Context(), "/x", 0o755, packed(t, "one"), sha256.Sum256([]byte("one"))); err != nil {
		t.Error(err)
	}
	if err := h.Put(t.Context(), "/x", 0o755, packed(t, "one"), sha256.Sum256([]byte("two"))); err == nil {
		t.Error("another content than announced was taken")
	}
	if err := h.Put(t.Context(), "/x", 0o755, strings.NewReader("one"), sha256.Sum256([]byte("one"))); err == nil {
		t.Error("what is not compressed was taken")
	}
	m.FailPut = errors.New("disk full")
	if err := h.Put(t.Context(), "/x", 0o755, packed(t, "one"), sha256.Sum256([]byte("one"))); !errors.Is(err, m.FailPut) {
		t.Errorf("%v", err)
	}
	if err := errors.Join(h.Close(), h.Close()); err != nil || m.Calls() != (fakehost.Calls{Connects: 1, Puts: 4, Closes: 1}) {
		t.Errorf("%v %+v", err, m.Calls())
	}
	if err := h.Script(t.Context(), "", io.Discard, nil); err == nil {
		t.Error("a closed connection answers")
	}
}

func TestRunKnowsOneProgram(t *testing.T) {
	t.Parallel()
	h := connect(t, &fakehost.Machine{})
	for _, argv := range [][]string{nil, {"ls"}, {"/home/bee/.local/share/rbee/bin/rbee", "hive", "apply"}} {
		err := h.Run(t.Context(), argv, nil, nil, nil)
		var exit interface{ ExitStatus() int }
		if !errors.As(err, &exit) || exit.ExitStatus() != 127 {
			t.Errorf("%v: %v", argv, err)
		}
	}
}

// TestApply speaks the protocol without pkgmgr, so that what it refuses is seen.
func TestApply(t *testing.T) {
	t.Parallel()
	rbee := wire.State{Rbee: &wire.Installed{Version: "1", SHA256: "aa"}}
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
		"stop":            {wire.Schema, wire.Step{Action: wire.ActionStop}, "", ""},
		"another schema":  {wire.MinReader - 1, wire.Step{Action: wire.ActionStop}, "", fmt.Sprintf("speaks schema %d", wire.MinReader-1)},
		"unknown action":  {wire.Schema, wire.Step{Action: "fly"}, "", `unknown action "fly"`},
		"no worker":       {wire.Schema, wire.Step{Action: wire.ActionInstallWorker}, "", "invalid step: no worker"},
		"nothing to be":   {wire.Schema, wire.Step{Action: wire.ActionInstallSelf}, "", "no binary to install"},
		"not uploaded":    {wire.Schema, wire.Step{Action: wire.ActionInstallSelf, Install: &wire.Installed{}}, "", "the uploaded rbee has SHA-256"},
		"pushed":          {wire.Schema, push(fmt.Sprintf("%x", sha256.Sum256([]byte("body")))), "body", ""},
		"pushed, changed": {wire.Schema, push(fmt.Sprintf("%x", sha256.Sum256([]byte("body")))), "bodx", "the artifact has SHA-256"},
		"not pushed":      {wire.Schema, push("aa"), "", "want 64 hex digits"},
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
			open, _ := io.Pipe() // the end of stdin would cancel
			err := connect(t, m).Run(t.Context(), []string{m.State().Home + "/bin/rbee", "hive", "apply"}, io.MultiReader(&in, open), &out, nil)
			if refused := name == "another schema"; refused == (err == nil) {
				t.Fatal(err)
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
			if k.want == "" && got != "" || !strings.Contains(got, k.want) || r.State == nil && name != "another schema" {
				t.Errorf("%q, want %q in it; %+v", got, k.want, r.State)
			}
			if (string(m.Artifact("w")) == "body") != (name == "pushed") {
				t.Errorf("artifact %q", m.Artifact("w"))
			}
		})
	}
	t.Run("no request", func(t *testing.T) {
		t.Parallel()
		m := &fakehost.Machine{Initial: rbee}
		if err := connect(t, m).Run(t.Context(), []string{m.State().Home + "/bin/rbee", "hive", "apply"}, nil, nil, nil); err == nil {
			t.Error("an empty stdin is no request")
		}
	})
}

func TestDialAndState(t *testing.T) {
	t.Parallel()
	m := &fakehost.Machine{Initial: wire.State{Devices: []gpu.Device{{Vendor: "amd"}}}}
	h := connect(t, m)
	if _, err := h.Dial(t.Context(), "tcp", "127.0.0.1:8600"); err == nil {
		t.Error("something listens")
	}
	near, far := net.Pipe()
	defer far.Close()
	m.Network = func(context.Context, string, string) (net.Conn, error) { return near, nil }
	if conn, err := h.Dial(t.Context(), "tcp", "127.0.0.1:8600"); conn != near || err != nil {
		t.Errorf("%v, %v", conn, err)
	}
	for script, want := range map[string]wire.Devices{"": nil, "rbee hive inspect --devices": {{Vendor: "amd"}}} {
		var out bytes.Buffer
		var s wire.State
		if err := errors.Join(h.Script(t.Context(), script, &out, nil), wire.NewReader(&out).Read(&s)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s.Devices, want) || s.DevicesKnown != (want != nil) || s.OS != "linux" || s.Arch != "amd64" || s.Schema != 0 {
			t.Errorf("%+v", s)
		}
	}
	snapshot := m.State()
	snapshot.Devices[0].Vendor = "changed"
	if m.State().Devices[0].Vendor != "amd" {
		t.Error("a snapshot is not a copy")
	}
}

// TestConcurrent lets several programs work on the same machines at once: every
// one of them takes its turn, and nothing is lost.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	machines := fakehost.Fleet{"a": {}, "b": {}}
	config := &config.Config{Hives: []config.Hive{
		{Alias: "a", Hostname: "a", HivePort: 1, AutoStart: true, Workers: []config.Worker{{Type: "echo", Version: version.Latest}}}, {Alias: "b", Hostname: "b", HivePort: 1},
	}}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			f, err := pkgmgr.Open(config, pkgmgr.Options{Connect: machines.Connect, Binaries: fakehost.Rbee("1"), Version: "1", CacheDir: t.TempDir()})
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			f.Read(t.Context(), pkgmgr.ReadOptions{})
			for _, r := range f.Apply(t.Context(), f.Plan(t.Context(), plan.Options{Fetch: true}), pkgmgr.ApplyOptions{}) {
				if r.Status != operations.HiveInstalled && r.Status != operations.HiveUpdated && r.Status != operations.HiveAlreadyInstalled {
					t.Errorf("%+v: %v", r, r.Error)
				}
			}
		})
	}
	wg.Wait()
	if s := machines["a"].State(); s.Rbee == nil || len(s.Workers) != 1 || !s.Daemon.Running || s.Workers[0].SHA256 != s.Rbee.SHA256 {
		t.Errorf("%+v", s)
	}
	for alias, m := range machines {
		if c := m.Calls(); c.Connects != 8 || c.Closes != 8 || c.Scripts != 8 {
			t.Errorf("%s: %+v", alias, c)
		}
	}
}
