package install

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// waitUntil waits for what a test cannot go on without.
func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: it did not happen", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

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
			t.Fatalf("%q, %+v", res.Errors, res.State)
		}
		h.Exe = h.Path(wire.Binary)
		return res.State.Daemon
	}
	one, two := unusedPort(t), unusedPort(t)
	first := start(one, self(t, h))
	if again := start(one); again.PID != first.PID || !again.Since.Equal(first.Since) {
		t.Errorf("the second start replaced %+v by %+v", first, again)
	}
	moved := start(two)
	if moved.PID == first.PID {
		t.Errorf("the port changed, the process did not: %+v", moved)
	}
	if _, err := proc.Identify(first.PID); err == nil {
		t.Errorf("the daemon before still runs")
	}
}

// A log over the limit is put aside when a daemon starts, and its starter's
// descriptor still leads to the new one.
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
		t.Fatal(res.Errors)
	}
	kept, err := os.ReadFile(h.Path(home.OldLogFile))
	if err != nil || !bytes.Equal(kept, old) {
		t.Errorf("hive.log.1 has %d bytes, want %d; %v", len(kept), len(old), err)
	}
	fresh, err := os.ReadFile(h.Path(home.LogFile))
	if err != nil || !bytes.HasPrefix(fresh, []byte("time=")) || !bytes.Contains(fresh, []byte("listens")) {
		t.Errorf("hive.log: %.100q, %v", fresh, err)
	}
	if tail := h.LogTail(int64(len(old))); !strings.Contains(tail, "listens") {
		t.Errorf("the tail after a rotation: %q", tail)
	}
	if err := h.RotateLog(); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(h.Path(home.OldLogFile)); !bytes.Equal(again, old) {
		t.Error("a small log was rotated")
	}
}
