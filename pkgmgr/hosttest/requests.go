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

// testRefusedRequest sends what a machine refuses as a whole.
func testRefusedRequest(t *testing.T, c *client) {
	exe := c.installRbee()
	before := c.state()
	_, step := program("w", "1")
	for name, k := range map[string]struct {
		body string
		req  *wire.Request
		want string // a word in the error

		reason operations.Reason // of the error; "" for any
	}{
		"no JSON":          {body: "hello\n"},
		"another type":     {body: "[]\n"},
		"newer schema":     {req: &wire.Request{Schema: wire.Schema + 1, MinReader: wire.Schema + 1, Steps: []wire.Step{step}}, want: fmt.Sprint(wire.Schema + 1), reason: operations.ReasonOtherVersion},
		"older schema":     {req: &wire.Request{Schema: wire.MinReader - 1, Steps: []wire.Step{step}}, want: fmt.Sprint(wire.MinReader - 1), reason: operations.ReasonNewerHive},
		"no schema":        {body: `{"steps":[{"action":"stop"}]}` + "\n"},
		"no port":          {req: &wire.Request{Settings: &wire.Settings{Alias: "x"}}, want: "hive_port"},
		"port too high":    {req: &wire.Request{Settings: &wire.Settings{Alias: "x", HivePort: 65536}}, want: "hive_port"},
		"port is negative": {req: &wire.Request{Settings: &wire.Settings{Alias: "x", HivePort: -1}}, want: "hive_port"},
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
			t.Errorf("%s: result %+v, want an error with %q, and nothing done", name, e.result, k.want)
		}
		if e.result != nil && k.reason != "" && (e.result.Cause == nil || e.result.Cause.Reason != k.reason) {
			t.Errorf("%s: cause %+v, want reason %s", name, e.result.Cause, k.reason)
		}
	}
	c.same(before)
}

// same checks that the machine has what it had before.
func (c *client) same(before wire.State) {
	c.t.Helper()
	now := c.state()
	if fmt.Sprintf("%+v", now.Workers) != fmt.Sprintf("%+v", before.Workers) || now.Rbee == nil || now.Rbee.SHA256 != before.Rbee.SHA256 ||
		fmt.Sprintf("%+v", now.Settings) != fmt.Sprintf("%+v", before.Settings) || now.Daemon.PID != before.Daemon.PID {
		c.t.Errorf("the machine changed: %+v, want %+v", now, before)
	}
}

// testRefusedSteps sends steps that a machine refuses. Each of them leaves the machine as it is, and the step after it
// is done.
func testRefusedSteps(t *testing.T, c *client) {
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
	only := func(typ string) *wire.WorkerInstall { return &wire.WorkerInstall{Type: typ} }
	for name, k := range map[string]struct {
		step wire.Step
		want string // a word in the error
	}{
		"unknown action":         {wire.Step{Action: "fly"}, "fly"},
		"no action":              {wire.Step{}, "action"},
		"rbee without a record":  {wire.Step{Action: wire.ActionInstallSelf}, "install"},
		"install nothing":        {wire.Step{Action: wire.ActionInstallWorker}, "worker"},
		"remove nothing":         {wire.Step{Action: wire.ActionRemoveWorker}, "worker"},
		"remove no type":         {wire.Step{Action: wire.ActionRemoveWorker, Worker: only("")}, "worker"},
		"remove another place":   {wire.Step{Action: wire.ActionRemoveWorker, Worker: only("../w")}, "worker"},
		"roll back nothing":      {wire.Step{Action: wire.ActionRollback}, "worker"},
		"roll back a path":       {wire.Step{Action: wire.ActionRollback, Worker: only("../../x")}, "worker"},
		"roll back what is not":  {wire.Step{Action: wire.ActionRollback, Worker: only("none")}, "not installed"},
		"no version before":      {wire.Step{Action: wire.ActionRollback, Worker: only("w")}, "no earlier version"},
		"no type":                {install(func(w *wire.WorkerInstall) { w.Type = "" }), "worker type"},
		"type is a path":         {install(func(w *wire.WorkerInstall) { w.Type = "a/b" }), "worker type"},
		"type climbs":            {install(func(w *wire.WorkerInstall) { w.Type = ".." }), "worker type"},
		"type is hidden":         {install(func(w *wire.WorkerInstall) { w.Type = ".x" }), "worker type"},
		"type with a line break": {install(func(w *wire.WorkerInstall) { w.Type = "x\ny" }), "worker type"},
		"type is too long":       {install(func(w *wire.WorkerInstall) { w.Type = strings.Repeat("x", 129) }), "worker type"},
		"no version":             {install(func(w *wire.WorkerInstall) { w.Version = "" }), "version"},
		"version climbs":         {install(func(w *wire.WorkerInstall) { w.Version = "../1" }), "version"},
		"no install steps":       {install(func(w *wire.WorkerInstall) { w.Steps = nil }), "no install steps"},
		"program outside":        {install(func(w *wire.WorkerInstall) { w.Entry = "../../bin/rbee" }), "payload"},
		"program is absolute":    {install(func(w *wire.WorkerInstall) { w.Entry = "/bin/sh" }), "payload"},
		"file outside":           {first(func(s *wire.InstallStep) { s.Into = "../x" }), "payload"},
		"file is absolute":       {first(func(s *wire.InstallStep) { s.Into = "/etc/x" }), "payload"},
		"unknown kind":           {first(func(s *wire.InstallStep) { s.Kind = "compile" }), "compile"},
		"no kind":                {first(func(s *wire.InstallStep) { s.Kind = "" }), "kind"},
		"file without artifact":  {first(func(s *wire.InstallStep) { s.Artifact = nil }), "artifact"},
		"no checksum":            {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{Name: "f"} }), "SHA-256"},
		"short checksum":         {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{Name: "f", SHA256: sum[:62]} }), "SHA-256"},
		"checksum is a path":     {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{Name: "f", SHA256: "../" + sum[:61]} }), "SHA-256"},
		"artifact without name":  {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{SHA256: sum} }), "name"},
		"artifact name climbs":   {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{Name: "../f", SHA256: sum} }), "name"},
		"URL of a file": {first(func(s *wire.InstallStep) {
			s.Artifact = &wire.Artifact{Name: "f", SHA256: sum, URL: "file:///etc/passwd"}
		}), "URL"},
		"URL without a host":    {first(func(s *wire.InstallStep) { s.Artifact = &wire.Artifact{Name: "f", SHA256: sum, URL: "https:///x"} }), "URL"},
		"archive, no format":    {first(func(s *wire.InstallStep) { s.Kind, s.Artifact = wire.StepArchive, file }), "format"},
		"archive, other format": {first(func(s *wire.InstallStep) { s.Kind, s.Artifact, s.Format = wire.StepArchive, file, "rar" }), "format"},
		"archive, negative strip": {first(func(s *wire.InstallStep) {
			s.Kind, s.Artifact, s.Format, s.Strip = wire.StepArchive, file, wire.FormatZip, -1
		}), "invalid strip count"},
		"no server name":     {first(func(s *wire.InstallStep) { *s = wire.InstallStep{Kind: wire.StepBuiltin} }), "invalid built-in server"},
		"server name climbs": {first(func(s *wire.InstallStep) { *s = wire.InstallStep{Kind: wire.StepBuiltin, Builtin: "../echo"} }), "invalid built-in server"},
		"server with more": {install(func(w *wire.WorkerInstall) {
			w.Steps = append([]wire.InstallStep{{Kind: wire.StepBuiltin, Builtin: "echo"}}, w.Steps...)
		}), "invalid built-in server"},
		"no packages":         {first(func(s *wire.InstallStep) { *s = wire.InstallStep{Kind: wire.StepPython} }), "packages"},
		"tool name climbs":    {python(tool("../uv", "uv", wire.FormatTarGz)), "tool"},
		"tool program climbs": {python(tool("uv", "../uv", wire.FormatTarGz)), "tool"},
		"tool, no format":     {python(tool("uv", "uv", "")), "format"},
		"wheel, no checksum":  {python(tool("uv", "uv", wire.FormatTarGz), wire.Artifact{Name: "a.whl"}), "SHA-256"},
		"second step is bad": {install(func(w *wire.WorkerInstall) {
			w.Steps = append(w.Steps, wire.InstallStep{Kind: wire.StepFile, Artifact: file, Into: "a/../../b"})
		}), "payload"},
	} {
		e := c.apply(exe, &wire.Request{Steps: []wire.Step{k.step, {Action: wire.ActionStop}}}, blobs(content))
		if e.err != nil || e.result == nil || e.result.Error != "" || e.result.State == nil || len(e.needs()) > 0 {
			t.Errorf("%s: %s, %v, asked for %v; want an error of the step alone", name, e.failures(), e.err, e.needs())
			continue
		}
		after := 1
		if k.step.Action == wire.ActionInstallSelf { // nothing is tried after it
			if !strings.HasPrefix(e.result.Errors[1], "not begun") {
				t.Errorf("%s: the next step: %q, want \"not begun\"", name, e.result.Errors[1])
			}
			e.result.Errors[1], after = "", 0
		}
		if !strings.Contains(e.result.Errors[0], k.want) || e.result.Errors[0] == "" || e.result.Errors[1] != "" {
			t.Errorf("%s: errors %q, want one with %q, and none of the next step", name, e.result.Errors, k.want)
		}
		checkNotes(t, e, 1+after)
	}
	c.same(before)
}

// held is a run that has the machine's lock until it is told to go on.
type held struct {
	done  <-chan *exchange
	going chan struct{} // closed to send the blob
}

// hold starts an install that asks for a blob, and waits until it does.
func (c *client) hold(ctx context.Context, exe string, content []byte, step wire.Step) *held {
	c.t.Helper()
	h := &held{going: make(chan struct{})}
	asked := make(chan struct{})
	req := &wire.Request{Schema: wire.Schema, Owner: "the holder", LockWait: lockWait, Steps: []wire.Step{step}}
	h.done = c.start(call{ctx: ctx, exe: exe, on: func(m wire.Message, in *io.PipeWriter) {
		if m.Need == nil {
			return
		}
		close(asked)
		select {
		case <-h.going:
			_ = wire.SendBlob(in, strings.NewReader(string(content)), false) // the result says what came of it
		case <-c.t.Context().Done():
		}
	}}, req)
	select {
	case <-asked:
	case <-time.After(time.Minute):
		c.t.Fatal("the machine asks for no blob")
	}
	return h
}

func testLock(t *testing.T, c *client) {
	exe := c.installRbee()
	content, step := program("w", "1")
	holder := c.hold(t.Context(), exe, content, step)
	settings := &wire.Settings{Alias: "other", HivePort: c.machine.Port}
	e := c.apply(exe, &wire.Request{LockWait: -1, Settings: settings, Steps: []wire.Step{{Action: wire.ActionStop}, {Action: wire.ActionStop}}}, nil)
	if e.err != nil || e.result == nil || e.result.Locked == nil || e.result.Locked.Holder != "the holder" || e.result.Locked.Since.IsZero() || len(e.result.Errors) != 2 {
		t.Fatalf("a request while another run has the lock: %+v, %v", e.result, e.err)
	}
	for _, text := range e.result.Errors {
		if !strings.HasPrefix(text, "not begun") {
			t.Errorf("error of a step without the lock: %q, want \"not begun\"", text)
		}
	}
	if e.result.State != nil || slices.ContainsFunc(e.messages, func(m wire.Message) bool { return m.Step != nil }) {
		t.Errorf("a request without the lock did something: %+v", e)
	}
	if s := c.state(); s.Settings == nil || s.Settings.Alias != "m" {
		t.Errorf("a request without the lock changed the settings: %+v", s.Settings)
	}

	waits := make(chan wire.Waiting, 1)
	done := c.start(call{ctx: t.Context(), exe: exe, on: func(m wire.Message, _ *io.PipeWriter) {
		if m.Waiting != nil {
			waits <- *m.Waiting
		}
	}}, &wire.Request{Schema: wire.Schema, Owner: "the other", LockWait: time.Minute, Steps: []wire.Step{{Action: wire.ActionRemoveWorker, Worker: &wire.WorkerInstall{Type: "w"}}}})
	select {
	case w := <-waits:
		if w.Holder != "the holder" || w.Since.IsZero() {
			t.Errorf("waiting for %+v", w)
		}
	case <-time.After(answerLimit):
		t.Error("a request that waits for the lock does not say so")
	}
	close(holder.going)
	if e := c.wait(holder.done); e.failures() != "" || worker(e.result.State, "w") == nil {
		t.Errorf("the run with the lock: %s", e.failures())
	}
	if e := c.wait(done); e.failures() != "" || len(e.result.State.Workers) > 0 {
		t.Errorf("the run that waited: %s", e.failures())
	}
}

// recovers checks that a run that was broken off left nothing, and that the machine can be worked on.
func (c *client) recovers(exe string, content []byte, step wire.Step) {
	c.t.Helper()
	c.host = connect(c.t, c.machine)
	e := c.mustApply(exe, &wire.Request{}, nil)
	if w := worker(e.result.State, step.Worker.Type); w != nil {
		c.t.Errorf("a run that was broken off left %+v", w)
	}
	e = c.mustApply(exe, &wire.Request{Steps: []wire.Step{step}}, blobs(content))
	if w := worker(e.result.State, step.Worker.Type); w == nil || w.Corrupt != "" {
		c.t.Errorf("the install after one that was broken off: %+v", w)
	}
}

func testCanceled(t *testing.T, c *client) {
	exe := c.installRbee()
	content, step := program("w", "1")
	ctx, cancel := context.WithCancel(t.Context())
	holder := c.hold(ctx, exe, content, step)
	begun := time.Now()
	cancel()
	close(holder.going)
	e := c.wait(holder.done)
	if !errors.Is(e.err, context.Canceled) || time.Since(begun) > answerLimit {
		t.Errorf("Run() after its context was canceled = %v in %v, want %v", e.err, time.Since(begun), context.Canceled)
	}
	c.mustApply(exe, &wire.Request{Steps: []wire.Step{{Action: wire.ActionRemoveWorker, Worker: step.Worker}}}, nil)
	c.recovers(exe, content, step)
}

// testEndOfStdin closes stdin while the machine waits for a blob.
func testEndOfStdin(t *testing.T, c *client) {
	exe := c.installRbee()
	content, step := program("w", "1")
	e := c.wait(c.start(call{ctx: t.Context(), exe: exe, on: func(m wire.Message, in *io.PipeWriter) {
		if m.Need != nil {
			_ = in.Close()
		}
	}}, &wire.Request{Schema: wire.Schema, Owner: "hosttest", LockWait: lockWait, Steps: []wire.Step{step, {Action: wire.ActionStop}}}))
	if exitStatus(e.err) <= 0 {
		t.Errorf("Run() after the end of stdin = %v, want an exit status above 0", e.err)
	}
	if e.result == nil || len(e.result.Errors) != 2 || e.result.Errors[0] == "" || !strings.HasPrefix(e.result.Errors[1], "not begun") || e.result.State == nil {
		t.Errorf("the result after the end of stdin: %+v", e.result)
	}
	c.recovers(exe, content, step)
}

func testCut(t *testing.T, c *client) {
	exe := c.installRbee()
	content, step := program("w", "1")
	holder := c.hold(t.Context(), exe, content, step)
	begun := time.Now()
	c.machine.Cut()
	close(holder.going)
	e := c.wait(holder.done)
	if e.err == nil || errors.Is(e.err, context.Canceled) || time.Since(begun) > answerLimit {
		t.Errorf("Run() after the connection was lost = %v in %v, want an error", e.err, time.Since(begun))
	}
	if e.result != nil {
		t.Errorf("the lost connection brought a result: %+v", e.result)
	}
	if err := c.host.Run(t.Context(), []string{exe, "hive", "inspect"}, nil, nil, nil); err == nil {
		t.Error("Run() on a lost connection = nil")
	}
	c.recovers(exe, content, step)
}
