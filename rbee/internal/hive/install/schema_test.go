package install

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// editJSON sets members of a JSON object in a file; a nil value removes the member.
func editJSON(t *testing.T, path string, members map[string]any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	for name, value := range members {
		object[name] = value
		if value == nil {
			delete(object, name)
		}
	}
	if data, err = json.Marshal(object); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// hiveWithWorker returns a hive with settings and a worker, and the paths of its state
// files.
func hiveWithWorker(t *testing.T) (h *Hive, step wire.Step, files map[string]string) {
	t.Helper()
	h = newHive(t)
	step = worker("1", "", []byte("#!/bin/sh\n"))
	step.Worker.Launch = &wire.Launch{ReadyPath: "/health", ReadyStatus: wire.DefaultReadyStatus}
	step.Worker.LaunchDigest = step.Worker.Launch.Digest()
	res := apply(t, h, &wire.Request{Settings: &wire.Settings{Alias: "a", HivePort: 8600}, Steps: []wire.Step{self(t, h), step}}, []byte("#!/bin/sh\n"))
	if res.Errors[0] != "" || res.Errors[1] != "" {
		t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
	}
	h.Exe = h.Path(wire.Binary)
	return h, step, map[string]string{
		"settings": h.Path(home.SettingsFile), "rbee": h.Path(wire.BinaryInfo),
		"manifest": filepath.Join(h.BuildDir("w", "1"), installed.ManifestName),
	}
}

func TestApplyRewritesSchemaZero(t *testing.T) {
	t.Parallel()
	h, step, files := hiveWithWorker(t)
	for _, path := range files {
		editJSON(t, path, map[string]any{"schema": nil, "min_reader": nil, "launch_digest": nil, "added": "later"})
	}
	if w := h.Worker(t.Context(), "w", true); w.Corrupt != "" || w.LaunchDigest != "" {
		t.Errorf("Worker() of schema 0 = %+v, want an intact worker without a launch digest", w)
	}
	res := apply(t, h, &wire.Request{}, nil)
	if res.Error != "" {
		t.Fatalf("Apply() sent the error %q, want none", res.Error)
	}
	for name, path := range files {
		var now struct {
			wire.Versioned
			Added string `json:"added"`
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &now); err != nil || now.Schema != statefile.Schema || now.Added != "later" {
			t.Errorf("%s after a request contains %s (%v), want schema %d and the member added", name, data, err, statefile.Schema)
		}
	}
	if w := res.State.Workers[0]; w.LaunchDigest != step.Worker.LaunchDigest || w.Corrupt != "" {
		t.Errorf("Worker() = %+v, want launch digest %s", w, step.Worker.LaunchDigest)
	}
	if s := res.State.Settings; s == nil || s.Alias != "a" {
		t.Errorf("Settings = %+v, want alias a", s)
	}
}

// TestManifestKeepsNewerLaunch checks that the manifest of an installed worker keeps unknown
// launch fields from a newer rbee.
func TestManifestKeepsNewerLaunch(t *testing.T) {
	t.Parallel()
	h, step, files := hiveWithWorker(t)
	launch := new(wire.Launch)
	if err := json.Unmarshal([]byte(`{"ready_path":"/health","memory":{"share":0.5,"tiers":2},"warm":true}`), launch); err != nil {
		t.Fatal(err)
	}
	step.Worker.Launch, step.Worker.LaunchDigest = launch, "d1"
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil); res.Errors[0] != "" || res.State.Workers[0].LaunchDigest != "d1" {
		t.Fatalf("install = %q, %+v, want launch digest d1", res.Errors, res.State.Workers)
	}
	var m struct {
		Launch struct {
			Warm   bool
			Memory struct{ Tiers int }
		}
	}
	data, err := os.ReadFile(files["manifest"])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &m); err != nil || !m.Launch.Warm || m.Launch.Memory.Tiers != 2 {
		t.Errorf("the manifest contains %s (%v), want warm and 2 tiers", data, err)
	}
}

// TestNewerStateIsNotReplaced checks that Apply does not replace files that need a newer rbee.
func TestNewerStateIsNotReplaced(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"settings", "rbee", "manifest"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, step, files := hiveWithWorker(t)
			editJSON(t, files[name], map[string]any{"schema": 9, "min_reader": 9})
			before, _ := os.ReadFile(files[name])
			step.Worker.Force = true
			req := &wire.Request{Settings: &wire.Settings{Alias: "b", HivePort: 8601}, Steps: []wire.Step{self(t, h)}}
			if name == "manifest" {
				req.Steps = []wire.Step{step}
			}
			res := apply(t, h, req, []byte("#!/bin/sh\n"))
			cause := res.CauseOf(0)
			if res.Cause != nil {
				cause = res.Cause
			}
			if cause == nil || cause.Reason != operations.ReasonNewerFile || cause.Subject != operations.SubjectFile.WithName(files[name]) {
				t.Errorf("Apply() = %q, %q, cause %+v, want reason %s", res.Error, res.Errors, cause, operations.ReasonNewerFile)
			}
			if after, _ := os.ReadFile(files[name]); string(after) != string(before) {
				t.Errorf("after Apply(), the file contains %s, want %s", after, before)
			}
			if name != "manifest" && res.State != nil && res.State.Broken == "" {
				t.Errorf("State = %+v, want Broken set", res.State)
			}
		})
	}
}

// TestNewerDaemonRecordIsNotReplaced checks that start and stop fail, and that the state has
// a problem, if the daemon record needs a newer rbee.
func TestNewerDaemonRecordIsNotReplaced(t *testing.T) {
	t.Parallel()
	h, _, _ := hiveWithWorker(t)
	if err := os.WriteFile(h.Path(home.DaemonFile), []byte(`{"schema":9,"min_reader":9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, action := range []wire.Action{wire.ActionStart, wire.ActionStop} {
		res := apply(t, h, &wire.Request{Steps: []wire.Step{{Action: action}}}, nil)
		if cause := res.CauseOf(0); cause == nil || cause.Reason != operations.ReasonNewerFile {
			t.Errorf("%s = %q, %+v, want reason %s", action, res.Errors, cause, operations.ReasonNewerFile)
		}
		if res.State.Daemon.Problem == "" {
			t.Errorf("State.Daemon after %s = %+v, want a problem", action, res.State.Daemon)
		}
	}
}

// TestApplyIncompatibleRequest checks that the reason depends on whether the request or the
// hive is older.
func TestApplyIncompatibleRequest(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	for _, test := range []struct {
		name     string
		versions [2]int // schema and min_reader
		want     operations.Reason
	}{
		{"older", [2]int{wire.MinReader - 1, wire.MinReader - 1}, operations.ReasonNewerHive},
		{"newer", [2]int{wire.Schema + 1, wire.Schema + 1}, operations.ReasonVersionMismatch},
	} {
		var in, out bytes.Buffer
		if err := wire.WriteRequest(&in, &wire.Request{Schema: test.versions[0], MinReader: test.versions[1]}); err != nil {
			t.Fatal(err)
		}
		_ = h.Apply(t.Context(), &in, &out) // the result contains the error
		var m wire.Message
		if err := wire.NewReader(&out).Read(&m); err != nil || m.Result == nil || m.Result.Cause == nil || m.Result.Cause.Reason != test.want {
			t.Errorf("%s: Apply() sent %+v, %v; want a result with reason %s", test.name, m.Result, err, test.want)
		}
	}
}
