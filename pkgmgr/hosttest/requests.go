package hosttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// testInvalidRequest sends requests that a machine must reject completely.
func testInvalidRequest(t *testing.T, c *client) {
	exe := c.installRbee()
	before := c.state()
	_, step := program("w", "1")
	for name, k := range map[string]struct {
		body string
		req  *wire.Request
		want string // substring of the error

		reason operations.Reason // of the error; "" for any
	}{
		"invalid JSON":    {body: "hello\n"},
		"other JSON type": {body: "[]\n"},
		"newer schema":    {req: &wire.Request{Schema: wire.Schema + 1, MinReader: wire.Schema + 1, Steps: []wire.Step{step}}, want: fmt.Sprint(wire.Schema + 1), reason: operations.ReasonVersionMismatch},
		"older schema":    {req: &wire.Request{Schema: wire.MinReader - 1, Steps: []wire.Step{step}}, want: fmt.Sprint(wire.MinReader - 1), reason: operations.ReasonNewerHive},
		"no schema":       {body: `{"steps":[{"action":"stop"}]}` + "\n"},
		"no port":         {req: &wire.Request{Settings: &wire.Settings{Alias: "x"}}, want: "hive_port"},
		"port too high":   {req: &wire.Request{Settings: &wire.Settings{Alias: "x", HivePort: 65536}}, want: "hive_port"},
		"negative port":   {req: &wire.Request{Settings: &wire.Settings{Alias: "x", HivePort: -1}}, want: "hive_port"},
	} {
		var e *exchange
		if k.req != nil {
			e = c.apply(exe, k.req, nil)
		} else {
			e = c.wait(c.start(call{ctx: t.Context(), exe: exe, body: []byte(k.body)}, nil))
		}
		if exitStatus(e.err) <= 0 {
			t.Errorf("%s: Run() = %v, want an exit status above 0", name, e.err)
		}
		if e.result == nil || e.result.Error == "" || !strings.Contains(e.result.Error, k.want) || e.result.Locked != nil || e.result.State != nil || len(e.messages) > 0 {
			t.Errorf("%s: result = %+v, want an error with %q and no other effect", name, e.result, k.want)
		}
		if e.result != nil && k.reason != "" && (e.result.Cause == nil || e.result.Cause.Reason != k.reason) {
			t.Errorf("%s: cause = %+v, want reason %s", name, e.result.Cause, k.reason)
		}
	}
	c.checkUnchanged(before)
}

// checkUnchanged checks that the state of the machine is the same as before.
func (c *client) checkUnchanged(before wire.State) {
	c.t.Helper()
	got := c.state()
	if fmt.Sprintf("%+v", got.Workers) != fmt.Sprintf("%+v", before.Workers) || got.Rbee == nil || got.Rbee.SHA256 != before.Rbee.SHA256 ||
		fmt.Sprintf("%+v", got.Settings) != fmt.Sprintf("%+v", before.Settings) || got.Daemon.PID != before.Daemon.PID {
		c.t.Errorf("state = %+v, want it unchanged: %+v", got, before)
	}
}

// testInvalidSteps sends steps that a machine must reject. They must not change the machine, and the machine must run
// the step after them.
func testInvalidSteps(t *testing.T, c *client) {
	exe := c.installRbee()
	content, step := program("w", "1")
	c.mustApply(exe, &wire.Request{Steps: []wire.Step{step}}, blobs(content))
	before := c.state()
	sum := checksum(content)
	install := func(change func(*wire.WorkerInstall)) wire.Step {
		_, s := program("x", "1")
		change(s.Worker)
		return s
	}
	first := func(change func(*wire.InstallStep)) wire.Step {
		return install(func(w *wire.WorkerInstall) { change(&w.Steps[0]) })
	}
	file := &wire.Artifact{Name: "f", SHA256: sum}
	tool := func(name, entry string, format wire.Format) wire.Tool {
		return wire.Tool{Name: name, Version: "1", Artifact: *file, Format: format, Entry: entry}
	}
	python := func(uv wire.Tool, wheels ...wire.Artifact) wire.Step {
		return first(func(s *wire.InstallStep) {
			*s = wire.InstallStep{Kind: wire.StepPython, Python: &wire.Python{UV: uv, Interpreter: tool("python", "bin/python", wire.FormatTarGz), Wheels: wheels}}
		})
	}
	withType := func(typ string) *wire.WorkerInstall { return &wire.WorkerInstall{Type: typ} }
	for name, k := range map[string]struct {
		step wire.Step
		want string // substring of the error
	}{
		"unknown action":         {wire.Step{Action: "fly"}, "fly"},
		"no action":              {wire.Step{}, "action"},
		"rbee without a record":  {wire.Step{Action: wire.ActionInstallSelf}, "install"},
		"install no worker":      {wire.Step{Action: wire.ActionInstallWorker}, "worker"},
		"remove no worker":       {wire.Step{Action: wire.ActionRemoveWorker}, "worker"},
		"remove empty type":      {wire.Step{Action: wire.ActionRemoveWorker, Worker: withType("")}, "worker"},
		"remove path":            {wire.Step{Action: wire.ActionRemoveWorker, Worker: withType("../w")}, "worker"},
		"roll back no worker":    {wire.Step{Action: wire.ActionRollback}, "worker"},
		"roll back path":         {wire.Step{Action: wire.ActionRollback, Worker: withType("../../x")}, "worker"},
		"roll back missing type": {wire.Step{Action: wire.ActionRollback, Worker: withType("none")}, "not installed"},
		"no previous version":    {wire.Step{Action: wire.ActionRollback, Worker: withType("w")}, "version"},
		"no type":                {install(func(w *wire.WorkerInstall) { w.Type = "" }), "worker type"},
		"type is a path":         {install(func(w *wire.WorkerInstall) { w.Type = "a/b" }), "worker type"},
		"type is parent":         {install(func(w *wire.WorkerInstall) { w.Type = ".." }), "worker type"},
		"type is hidden":         {install(func(w *wire.WorkerInstall) { w.Type = ".x" }), "worker type"},
		"type with a line break": {install(func(w *wire.WorkerInstall) { w.Type = "x\ny" }), "worker type"},
		"type is too long":       {install(func(w *wire.WorkerInstall) { w.Type = strings.Repeat("x", 129) }), "worker type"},
		"no version":             {install(func(w *wire.WorkerInstall) { w.Version = "" }), "version"},
		"version is a path":      {install(func(w *wire.WorkerInstall) { w.Version = "../1" }), "version"},
		"no install steps":       {install(func(w *wire.WorkerInstall) { w.Steps = nil }), "no install steps"},
		"program outside root":   {install(func(w *wire.WorkerInstall) { w.Entry = "../../bin/rbee" }), "payload"},
		"absolute program":       {install(func(w *wire.WorkerInstall) { w.Entry = "/bin/sh" }), "payload"},
		"file outside root":      {first(func(s *wire.InstallStep) { s.Into = "../x" }), "payload"},
		"absolute file":          {first(func(s *wire.InstallStep) { s.Into = "/etc/x" }), "payload"},
		"unknown kind":           {first(func(s *wire.InstallStep) { s.Kind = "compile" }), "compile"},
		"no kind":                {first(func(s *wire.InstallStep) { s.Kind = "" }), "kind"},
		"file without artifact":  {first(func(s *wire.InstallStep) { s.Artifact = nil }), "artifact"},
		"no checksum":            {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{Name: "f"} }), "SHA-256"},
		"short checksum":         {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{Name: "f", SHA256: sum[:62]} }), "SHA-256"},
		"checksum is a path":     {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{Name: "f", SHA256: "../" + sum[:61]} }), "SHA-256"},
		"artifact without name":  {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{SHA256: sum} }), "name"},
		"artifact is a path":     {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{Name: "../f", SHA256: sum} }), "name"},
		"file URL": {first(func(s *wire.InstallStep) {
			s.Artifact = &wire.Artifact{Name: "f", SHA256: sum, URL: "file:///etc/passwd"}
		}), "URL"},
		"URL without a host":    {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{Name: "f", SHA256: sum, URL: "https:///x"} }), "URL"},
		"archive, no format":    {first(func(s *wire.InstallStep) { s.Kind, s.Artifact = wire.StepArchive, file }), "format"},
		"archive, other format": {first(func(s *wire.InstallStep) { s.Kind, s.Artifact, s.Format = wire.StepArchive, file, "rar" }), "format"},
		"archive, negative strip": {first(func(s *wire.InstallStep) {
			s.Kind, s.Artifact, s.Format, s.Strip = wire.StepArchive, file, wire.FormatZip, -1
		}), "invalid strip count"},
		"no server name":        {first(func(s *wire.InstallStep) { *s = wire.InstallStep{Kind: wire.StepBuiltin} }), "invalid built-in server"},
		"server name is a path": {first(func(s *wire.InstallStep) { *s = wire.InstallStep{Kind: wire.StepBuiltin, Builtin: "../echo"} }), "invalid built-in server"},
		"server with other step": {install(func(w *wire.WorkerInstall) {
			w.Steps = append([]wire.InstallStep{{Kind: wire.StepBuiltin, Builtin: "echo"}}, w.Steps...)
		}), "invalid built-in server"},
		"no packages":               {first(func(s *wire.InstallStep) { *s = wire.InstallStep{Kind: wire.StepPython} }), "packages"},
		"tool name is a path":       {python(tool("../uv", "uv", wire.FormatTarGz)), "tool"},
		"tool program outside root": {python(tool("uv", "../uv", wire.FormatTarGz)), "tool"},
		"tool, no format":           {python(tool("uv", "uv", "")), "format"},
		"wheel, no checksum":        {python(tool("uv", "uv", wire.FormatTarGz), wire.Artifact{Name: "a.whl"}), "SHA-256"},
		"invalid second step": {install(func(w *wire.WorkerInstall) {
			w.Steps = append(w.Steps, wire.InstallStep{Kind: wire.StepFile, Artifact: file, Into: "a/../../b"})
		}), "payload"},
	} {
		e := c.apply(exe, &wire.Request{Steps: []wire.Step{k.step, {Action: wire.ActionStop}}}, blobs(content))
		if e.err != nil || e.result == nil || e.result.Error != "" || e.result.State == nil || len(e.needs()) > 0 {
			t.Errorf("%s: apply() = errors %q, %v, requesting artifacts %v, want only an error of the step", name, e.failures(), e.err, e.needs())
			continue
		}
		started := 2
		if k.step.Action == wire.ActionInstallSelf { // the next step is not started
			if !notStarted(e.result, 1) {
				t.Errorf("%s: error of the next step = %q, want reason %s", name, e.result.Errors[1], operations.ReasonNotStarted)
			}
			e.result.Errors[1], started = "", 1
		}
		if !strings.Contains(e.result.Errors[0], k.want) || e.result.Errors[0] == "" || e.result.Errors[1] != "" {
			t.Errorf("%s: errors of the steps = %q, want one with %q and none for the next step", name, e.result.Errors, k.want)
		}
		checkStepMessages(t, e, started)
	}
	c.checkUnchanged(before)
}

// lockHolder is a run that holds the machine's lock until release is closed.
type lockHolder struct {
	done    <-chan *exchange
	release chan struct{} // closed to send the blob
}

// holdLock starts an install, which acquires the lock, and waits until the machine requests its artifact.
func (c *client) holdLock(ctx context.Context, exe string, content []byte, step wire.Step) *lockHolder {
	c.t.Helper()
	h := &lockHolder{release: make(chan struct{})}
	requested := make(chan struct{})
	req := &wire.Request{Schema: wire.Schema, Owner: "the holder", LockWait: lockWait, Steps: []wire.Step{step}}
	h.done = c.start(call{ctx: ctx, exe: exe, onMessage: func(m wire.Message, in *io.PipeWriter) {
		if m.Need == nil {
			return
		}
		close(requested)
		select {
		case <-h.release:
			_ = wire.SendBlob(in, strings.NewReader(string(content)), false) // the result reports the outcome
		case <-c.t.Context().Done():
		}
	}}, req)
	select {
	case <-requested:
	case <-time.After(time.Minute):
		c.t.Fatal("the machine does not request an artifact within a minute")
	}
	return h
}

func testLock(t *testing.T, c *client) {
	exe := c.installRbee()
	content, step := program("w", "1")
	holder := c.holdLock(t.Context(), exe, content, step)
	settings := &wire.Settings{Alias: "other", HivePort: c.machine.Port}
	e := c.apply(exe, &wire.Request{LockWait: -1, Settings: settings, Steps: []wire.Step{{Action: wire.ActionStop}, {Action: wire.ActionStop}}}, nil)
	if e.err != nil || e.result == nil || e.result.Locked == nil || e.result.Locked.Holder != "the holder" || e.result.Locked.Since.IsZero() || len(e.result.Errors) != 2 {
		t.Fatalf("apply() while another run holds the lock = %+v, %v, want a result with Locked and two errors", e.result, e.err)
	}
	for i, text := range e.result.Errors {
		if !notStarted(e.result, i) {
			t.Errorf("error of step %d while another run holds the lock = %q, want reason %s", i, text, operations.ReasonNotStarted)
		}
	}
	if e.result.State != nil || slices.ContainsFunc(e.messages, func(m wire.Message) bool { return m.Step != nil }) {
		t.Errorf("apply() while another run holds the lock = %+v, want no state and no messages about steps", e)
	}
	if s := c.state(); s.Settings == nil || s.Settings.Alias != "m" {
		t.Errorf("settings after apply() while another run holds the lock = %+v, want alias m", s.Settings)
	}

	waits := make(chan wire.LockInfo, 1)
	done := c.start(call{ctx: t.Context(), exe: exe, onMessage: func(m wire.Message, _ *io.PipeWriter) {
		if m.Waiting != nil {
			waits <- *m.Waiting
		}
	}}, &wire.Request{Schema: wire.Schema, Owner: "the other", LockWait: time.Minute, Steps: []wire.Step{{Action: wire.ActionRemoveWorker, Worker: &wire.WorkerInstall{Type: "w"}}}})
	select {
	case w := <-waits:
		if w.Holder != "the holder" || w.Since.IsZero() {
			t.Errorf("waiting message = %+v, want holder %q and a time", w, "the holder")
		}
	case <-time.After(stopTimeout):
		t.Errorf("no waiting message within %s from a run that waits for the lock", stopTimeout)
	}
	close(holder.release)
	if e := c.wait(holder.done); e.failures() != "" || worker(e.result.State, "w") == nil {
		t.Errorf("run with the lock = errors %q, want none and worker w", e.failures())
	}
	if e := c.wait(done); e.failures() != "" || len(e.result.State.Workers) > 0 {
		t.Errorf("run that waited for the lock = errors %q, want none and no workers", e.failures())
	}
}

// checkRecovery checks that an interrupted run has installed nothing, and that the next run succeeds.
func (c *client) checkRecovery(exe string, content []byte, step wire.Step) {
	c.t.Helper()
	c.host = connect(c.t, c.machine)
	e := c.mustApply(exe, &wire.Request{}, nil)
	if w := worker(e.result.State, step.Worker.Type); w != nil {
		c.t.Errorf("worker after an interrupted install = %+v, want none", w)
	}
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{step}}, blobs(content))
	if w := worker(e.result.State, step.Worker.Type); w == nil || w.Corrupt != "" {
		c.t.Errorf("worker after a repeated install = %+v, want an intact worker", w)
	}
}

func testCanceled(t *testing.T, c *client) {
	exe := c.installRbee()
	content, step := program("w", "1")
	ctx, cancel := context.WithCancel(t.Context())
	holder := c.holdLock(ctx, exe, content, step)
	start := time.Now()
	cancel()
	close(holder.release)
	e := c.wait(holder.done)
	if !errors.Is(e.err, context.Canceled) || time.Since(start) > stopTimeout {
		t.Errorf("Run() with a canceled context = %v after %v, want %v within %s", e.err, time.Since(start), context.Canceled, stopTimeout)
	}
	c.mustApply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionRemoveWorker, Worker: step.Worker}}}, nil)
	c.checkRecovery(exe, content, step)
}

// testEndOfStdin closes stdin while the machine waits for an artifact.
func testEndOfStdin(t *testing.T, c *client) {
	exe := c.installRbee()
	content, step := program("w", "1")
	e := c.wait(c.start(call{ctx: t.Context(), exe: exe, onMessage: func(m wire.Message, in *io.PipeWriter) {
		if m.Need != nil {
			_ = in.Close()
		}
	}}, &wire.Request{Schema: wire.Schema, Owner: "hosttest", LockWait: lockWait, Steps: []wire.Step{step, {Action: wire.ActionStop}}}))
	if exitStatus(e.err) <= 0 {
		t.Errorf("Run() after the end of stdin = %v, want an exit status above 0", e.err)
	}
	if e.result == nil || len(e.result.Errors) != 2 || e.result.Errors[0] == "" || !notStarted(e.result, 1) || e.result.State == nil {
		t.Errorf("result after the end of stdin = %+v, want an error, a second step that was not started, and the state", e.result)
	}
	c.checkRecovery(exe, content, step)
}

func testConnectionLost(t *testing.T, c *client) {
	exe := c.installRbee()
	content, step := program("w", "1")
	holder := c.holdLock(t.Context(), exe, content, step)
	start := time.Now()
	c.machine.Disconnect()
	close(holder.release)
	e := c.wait(holder.done)
	if e.err == nil || errors.Is(e.err, context.Canceled) || time.Since(start) > stopTimeout {
		t.Errorf("Run() after the connection was lost = %v after %v, want an error within %s", e.err, time.Since(start), stopTimeout)
	}
	if e.result != nil {
		t.Errorf("result from a lost connection = %+v, want none", e.result)
	}
	if err := c.host.Run(t.Context(), []string{exe, "hive", "inspect"}, nil, nil, nil); err == nil {
		t.Error("Run() on a lost connection = nil, want an error")
	}
	c.checkRecovery(exe, content, step)
}
