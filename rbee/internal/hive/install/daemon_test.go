package install

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

func unusedPort(t *testing.T) int {
	t.Helper()
	port, ln := freePort(t)
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestStartAgainAndPortChange(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	t.Cleanup(func() { _, _ = h.Stop(context.Background()) })
	start := func(port int, steps ...wire.Step) wire.Daemon {
		t.Helper()
		res := apply(t, h, &wire.Request{
			Settings: &wire.Settings{Alias: "a", HivePort: port}, Steps: append(steps, wire.Step{Action: wire.ActionStart}),
		}, nil)
		if strings.Join(res.Errors, "") != "" || !res.State.Daemon.Running || res.State.Daemon.Port != port {
			t.Fatalf("start = %q, state %+v, want a daemon on port %d", res.Errors, res.State, port)
		}
		h.Exe = h.Path(wire.Binary)
		return res.State.Daemon
	}
	one, two := unusedPort(t), unusedPort(t)
	first := start(one, self(t, h))
	if again := start(one); again.PID != first.PID || !again.Since.Equal(first.Since) {
		t.Errorf("the second start replaced %+v with %+v, want the same process", first, again)
	}
	moved := start(two)
	if moved.PID == first.PID {
		t.Errorf("start on another port = %+v, want another process", moved)
	}
	if _, err := proc.Identify(first.PID); err == nil {
		t.Errorf("process %d is still running, want it stopped after the start on another port", first.PID)
	}
}

// TestLogRotation checks that the daemon rotates a large log when it starts, and writes its
// output to the new log.
func TestLogRotation(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	t.Cleanup(func() { _, _ = h.Stop(context.Background()) })
	old := append(bytes.Repeat([]byte("old line\n"), home.MaxLogSize/9), "last old line\n"...)
	err := errors.Join(os.Mkdir(h.Path(wire.LogsDir), 0o700), os.WriteFile(h.Path(home.LogFile), old, 0o600),
		os.WriteFile(h.Path(home.OldLogFile), []byte("older"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	res := apply(t, h, &wire.Request{
		Settings: &wire.Settings{HivePort: unusedPort(t)}, Steps: []wire.Step{self(t, h), {Action: wire.ActionStart}},
	}, nil)
	if strings.Join(res.Errors, "") != "" {
		t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
	}
	kept, err := os.ReadFile(h.Path(home.OldLogFile))
	if err != nil || !bytes.Equal(kept, old) {
		t.Errorf("after a rotation, hive.log.1 has %d bytes, want %d (%v)", len(kept), len(old), err)
	}
	current, err := os.ReadFile(h.Path(home.LogFile))
	if err != nil || !bytes.HasPrefix(current, []byte("time=")) || !bytes.Contains(current, []byte("listening")) {
		t.Errorf("after a rotation, hive.log contains %.100q, %v, want the output of the daemon", current, err)
	}
	if tail := h.LogTail(int64(len(old))); !strings.Contains(tail, "listening") {
		t.Errorf("LogTail() after a rotation = %q, want the output of the daemon", tail)
	}
	if err := h.RotateLog(); err != nil {
		t.Fatal(err)
	}
	if kept, _ := os.ReadFile(h.Path(home.OldLogFile)); !bytes.Equal(kept, old) {
		t.Error("RotateLog() rotated a small log, want it unchanged")
	}
}
