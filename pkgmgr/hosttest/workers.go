package hosttest

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// testWorker installs, updates, rolls back and removes a worker that consists of a single file.
func testWorker(t *testing.T, c *client) {
	exe := c.installRbee()
	one, stepOne := program("w", "1")
	two, stepTwo := program("w", "2")
	stepOne.Worker.Variant, stepOne.Worker.Launch = "cpu", &wire.Launch{Args: []string{"serve"}, Formats: []string{"gguf"}}
	remove := wire.Step{Action: wire.ActionRemoveWorker, Worker: &wire.WorkerInstall{Type: "w"}}
	rollback := wire.Step{Action: wire.ActionRollback, Worker: &wire.WorkerInstall{Type: "w"}}
	check := func(name string, e *exchange, version, previous string, needs ...string) {
		t.Helper()
		checkStepMessages(t, e, len(e.result.Errors))
		if got := strings.Join(e.needs(), " "); got != strings.Join(needs, " ") {
			t.Errorf("%s: requested artifacts = %q, want %q", name, got, needs)
		}
		for from, s := range map[string]*wire.State{"result": e.result.State, "inspect": ptr(c.state())} {
			w := worker(s, "w")
			if version == "" {
				if w != nil {
					t.Errorf("%s: worker of %s = %+v, want none", name, from, w)
				}
				continue
			}
			if w == nil || w.Version != version || w.Previous != previous || w.Corrupt != "" || w.Unmanaged || w.InstalledAt.IsZero() || w.Bytes <= 0 {
				t.Errorf("%s: worker of %s = %+v, want version %s, previous %q", name, from, w, version, previous)
			}
		}
	}

	e := c.mustApply(exe, &wire.Request{Steps: []wire.Step{remove}}, nil)
	check("remove missing worker", e, "", "")
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepOne}}, blobs(one))
	check("install", e, "1", "", checksum(one))
	if w := worker(e.result.State, "w"); w.SHA256 != stepOne.Worker.SHA256 || w.Requested != "1" || w.Variant != "cpu" || w.Bytes != int64(len(one)) || !w.Launch.Equal(stepOne.Worker.Launch) {
		t.Errorf("install: worker = %+v, want the values of %+v", w, stepOne.Worker)
	}
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepOne}}, nil)
	check("install same version", e, "1", "")
	stepOne.Worker.Requested, stepOne.Worker.Launch = "latest", &wire.Launch{Args: []string{"serve", "--fast"}}
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepOne}}, nil)
	check("install same version with other settings", e, "1", "")
	if w := worker(e.result.State, "w"); w.Requested != "latest" || !w.Launch.Equal(stepOne.Worker.Launch) {
		t.Errorf("install same version with other settings: worker = %+v, want the values of %+v", w, stepOne.Worker)
	}
	stepOne.Worker.Force = true
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepOne}}, blobs(one))
	check("install with force", e, "1", "", checksum(one))
	stepOne.Worker.Force = false

	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepTwo}}, blobs(two))
	check("update", e, "2", "1", checksum(two))
	stepTwo.Worker.Force = true
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepTwo}}, blobs(two))
	check("update with force", e, "2", "1", checksum(two))
	stepTwo.Worker.Force = false
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{rollback}}, nil)
	check("roll back", e, "1", "2")
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{rollback}}, nil)
	check("roll back again", e, "2", "1")
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepOne}}, nil)
	check("install previous version", e, "1", "2")

	// The install of another type does not change the first one.
	other, stepOther := program("a", "1")
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepOther, {Action: wire.ActionStop}}}, blobs(other))
	check("install other type", e, "1", "2", checksum(other))
	if s := e.result.State; len(s.Workers) != 2 || s.Workers[0].Type != "a" || s.Workers[1].Type != "w" {
		t.Errorf("workers = %+v, want types a and w, sorted", s.Workers)
	}

	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{remove}}, nil)
	check("remove", e, "", "")
	e = c.apply(exe, &wire.Request{Steps: []wire.Step{rollback}}, nil)
	if e.err != nil || !strings.Contains(e.failures(), "not installed") {
		t.Errorf("rollback of a removed worker = errors %q, %v, want an error with %q", e.failures(), e.err, "not installed")
	}
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepTwo}}, blobs(two))
	check("install after removal", e, "2", "", checksum(two))
}

// testBuiltinWorker installs a server that is built into rbee.
func testBuiltinWorker(t *testing.T, c *client) {
	step := wire.Step{Action: wire.ActionInstallWorker, Worker: &wire.WorkerInstall{
		Type: "echo", Version: "1", Requested: "latest", Steps: []wire.InstallStep{{Kind: wire.StepBuiltin, Builtin: "echo"}},
	}}
	upload, _ := c.upload()
	e := c.apply(upload, &wire.Request{Steps: []wire.Step{step}}, nil)
	if e.err != nil || e.result == nil || e.result.Error != "" || !strings.Contains(e.failures(), "built-in worker") || e.result.State == nil || len(e.result.State.Workers) > 0 {
		t.Errorf("install of a built-in worker without rbee = errors %q, %v, want an error with %q", e.failures(), e.err, "built-in worker")
	}
	exe := c.installRbee()
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{step}}, nil)
	s := e.result.State
	if w := worker(s, "echo"); w == nil || w.SHA256 != s.Rbee.SHA256 || w.Corrupt != "" || len(e.needs()) > 0 {
		t.Errorf("workers after the install of a built-in worker = %+v, want echo with the checksum of rbee, %s", s.Workers, s.Rbee.SHA256)
	}
}

// testWrongContent sends artifacts with wrong content.
func testWrongContent(t *testing.T, c *client) {
	exe := c.installRbee()
	one, stepOne := program("w", "1")
	two, stepTwo := program("w", "2")
	other, stepOther := program("x", "1")
	c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepOne}}, blobs(one))
	for name, sent := range map[string]map[string][]byte{
		"other content": {checksum(two): one, checksum(other): other},
		"empty":         {checksum(two): {}, checksum(other): other},
		"aborted":       {checksum(other): other},
	} {
		e := c.apply(exe, &wire.Request{Steps: []wire.Step{stepTwo, stepOther}}, sent)
		if e.err != nil || e.result == nil || len(e.result.Errors) != 2 || e.result.Errors[0] == "" || e.result.Errors[1] != "" {
			t.Errorf("%s: apply() = errors %q, %v, want only an error of the first step", name, e.failures(), e.err)
			continue
		}
		checkStepMessages(t, e, 2)
		if cause := e.result.CauseOf(0); name == "other content" && cause.Reason != operations.ReasonChecksum {
			t.Errorf("%s: reason of the error = %q, want %q", name, cause.Reason, operations.ReasonChecksum)
		}
		if w := worker(e.result.State, "w"); w == nil || w.Version != "1" || w.Corrupt != "" || w.Previous != "" {
			t.Errorf("%s: worker = %+v, want it unchanged with version 1", name, w)
		}
		if worker(e.result.State, "x") == nil {
			t.Errorf("%s: workers = %+v, want x of the second step", name, e.result.State.Workers)
		}
		c.mustApply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionRemoveWorker, Worker: stepOther.Worker}}}, nil)
	}
	// The machine computes the digest of a worker itself.
	stepTwo.Worker.SHA256 = strings.Repeat("0", 64)
	e := c.mustApply(exe, &wire.Request{Steps: []wire.Step{stepTwo}}, blobs(two))
	if w := worker(e.result.State, "w"); w == nil || w.SHA256 != wire.Digest(stepTwo.Worker.Steps, "") {
		t.Errorf("worker after a request with a wrong digest = %+v, want digest %s", w, wire.Digest(stepTwo.Worker.Steps, ""))
	}
}
