package hive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// until waits for what a test cannot go on without.
func until(t *testing.T, what string, ok func() bool) {
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

func TestStartTwiceAndOtherPort(t *testing.T) {
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
	old := append(bytes.Repeat([]byte("old line\n"), maxLog/9), "last old line\n"...)
	err := errors.Join(os.Mkdir(h.Path(wire.LogsDir), 0o700), os.WriteFile(h.Path(logFile), old, 0o600),
		os.WriteFile(h.Path(oldLogFile), []byte("older"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	res := apply(t, h, &wire.Request{
		Settings: &wire.Settings{HivePort: unusedPort(t)}, Steps: []wire.Step{self(t, h), {Action: wire.ActionStart}},
	}, nil)
	if strings.Join(res.Errors, "") != "" {
		t.Fatal(res.Errors)
	}
	kept, err := os.ReadFile(h.Path(oldLogFile))
	if err != nil || !bytes.Equal(kept, old) {
		t.Errorf("hive.log.1 has %d bytes, want %d; %v", len(kept), len(old), err)
	}
	fresh, err := os.ReadFile(h.Path(logFile))
	if err != nil || !bytes.HasPrefix(fresh, []byte("time=")) || !bytes.Contains(fresh, []byte("listens")) {
		t.Errorf("hive.log: %.100q, %v", fresh, err)
	}
	if tail := h.LogTail(int64(len(old))); !strings.Contains(tail, "listens") {
		t.Errorf("the tail after a rotation: %q", tail)
	}
	if err := h.RotateLog(); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(h.Path(oldLogFile)); !bytes.Equal(again, old) {
		t.Error("a small log was rotated")
	}
}

// A daemon that runs for long does not fill the disk with its log.
func TestLogRotatesWhileItRuns(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	grown := bytes.Repeat([]byte("a line\n"), maxLog/7+1)
	if err := errors.Join(os.Mkdir(h.Path(wire.LogsDir), 0o700), os.WriteFile(h.Path(logFile), grown, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); h.RotateLogs(ctx, time.Millisecond, slog.New(slog.DiscardHandler)) }()
	until(t, "a new log", func() bool {
		info, err := os.Stat(h.Path(logFile))
		return err == nil && info.Size() < maxLog
	})
	cancel()
	<-ended
	if kept, err := os.Stat(h.Path(oldLogFile)); err != nil || kept.Size() < maxLog {
		t.Errorf("the old one: %+v, %v", kept, err)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, ServeOptions{Port: unusedPort(t), Log: quiet}) }()
	until(t, "the daemon answers", func() bool { return h.State(ctx).Running })
	err := h.Serve(ctx, ServeOptions{Port: unusedPort(t), Log: quiet})
	if err == nil || !strings.Contains(err.Error(), "another daemon of "+h.Root) {
		t.Errorf("the second: %v", err)
	}
	if !h.State(ctx).Running {
		t.Error("the second one disturbed the first")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the first ended with %v", err)
	}
	if _, err := os.Stat(h.Path(daemonFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its record is left: %v", err)
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	token := strings.Repeat("ab", 32)
	srv := h.handler(&record{Port: 1, Version: "1.0"}, token, http.NotFoundHandler(), http.NotFoundHandler(), http.NotFoundHandler())
	for name, tt := range map[string]struct {
		method, path, host, auth string
		want                     int
	}{
		"health":             {"GET", "/health", "127.0.0.1:8600", "", 200},
		"health, IPv6":       {"GET", "/health", "[::1]:8600", "", 200},
		"health, localhost":  {"GET", "/health", "localhost:8600", "", 200},
		"health, no port":    {"GET", "/health", "127.0.0.1", "", 200},
		"info":               {"GET", "/v1/info", "127.0.0.1:8600", "Bearer " + token, 200},
		"no token":           {"GET", "/v1/info", "127.0.0.1:8600", "", 401},
		"empty token":        {"GET", "/v1/info", "127.0.0.1:8600", "Bearer ", 401},
		"wrong token":        {"GET", "/v1/info", "127.0.0.1:8600", "Bearer " + strings.Repeat("ba", 32), 401},
		"half a token":       {"GET", "/v1/info", "127.0.0.1:8600", "Bearer " + token[:32], 401},
		"other scheme":       {"GET", "/v1/info", "127.0.0.1:8600", "Basic " + token, 401},
		"a web page's name":  {"GET", "/v1/info", "evil.example:8600", "Bearer " + token, 403},
		"health for a page":  {"GET", "/health", "evil.example:8600", "", 403},
		"looks like local":   {"GET", "/health", "127.0.0.1.evil.example", "", 403},
		"another address":    {"GET", "/health", "192.0.2.1:8600", "", 403},
		"nothing there":      {"GET", "/v1/other", "127.0.0.1", "Bearer " + token, 404},
		"nothing to be sent": {"POST", "/v1/info", "127.0.0.1", "Bearer " + token, 404},
	} {
		req := httptest.NewRequest(tt.method, tt.path, http.NoBody)
		req.Host = tt.host
		if tt.auth != "" {
			req.Header.Set("Authorization", tt.auth)
		}
		resp := httptest.NewRecorder()
		srv.ServeHTTP(resp, req)
		if resp.Code != tt.want || strings.Contains(resp.Body.String(), token) {
			t.Errorf("%s: got %d %s, want %d", name, resp.Code, resp.Body, tt.want)
		}
	}
}
