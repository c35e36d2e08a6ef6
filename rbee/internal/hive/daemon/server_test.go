package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/freeport"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/inspect"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/verify"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
)

// newServer returns the daemon of an empty rbee directory.
func newServer(t *testing.T) *Server {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	user := t.TempDir()
	dir := &home.Dir{Root: filepath.Join(user, ".local/share/rbee"), User: user}
	store := &installed.Store{Home: dir, Version: "1.0", Exe: exe}
	verifier := &verify.Verifier{Home: dir, Store: store}
	return &Server{
		Home: dir, Store: store, Verifier: verifier,
		Inspector: &inspect.Inspector{Home: dir, Store: store, Daemon: &control.Daemon{Home: dir, Supervisor: service.Detached}, Verifier: verifier},
	}
}

// freePort returns a port on which no program listens.
func freePort(t *testing.T) int {
	t.Helper()
	port, err := freeport.Find(nil)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestSecondDaemonFails(t *testing.T) {
	t.Parallel()
	h := newServer(t)
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.Serve(ctx, Options{Port: freePort(t), Log: quiet}) }()
	waittest.Until(t, "Serve() runs a daemon that responds", func() bool { return h.Inspector.Daemon.State(ctx).Running })
	err := h.Serve(ctx, Options{Port: freePort(t), Log: quiet})
	if err == nil || !strings.Contains(err.Error(), "a daemon of "+h.Home.Root+" is already running") {
		t.Errorf("Serve() of a second daemon = %v, want an error about a running daemon of %s", err, h.Home.Root)
	}
	if s := h.Inspector.Daemon.State(ctx); !s.Running {
		t.Errorf("State() after the second Serve() = %+v, want the first daemon running", s)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve() of the first daemon = %v, want no error", err)
	}
	if _, err := os.Stat(h.Home.Path(home.DaemonFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Serve(), Stat(%s) = %v, want ErrNotExist", home.DaemonFile, err)
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	h := newServer(t)
	token := strings.Repeat("ab", 32)
	srv := h.handler(&control.Record{Port: 1, Version: "1.0"}, token, http.NotFoundHandler(), http.NotFoundHandler(), http.NotFoundHandler())
	for name, tt := range map[string]struct {
		method, path, host, auth string
		want                     int
	}{
		"health":                 {"GET", "/health", "127.0.0.1:8600", "", 200},
		"health, IPv6":           {"GET", "/health", "[::1]:8600", "", 200},
		"health, localhost":      {"GET", "/health", "localhost:8600", "", 200},
		"health, no port":        {"GET", "/health", "127.0.0.1", "", 200},
		"info":                   {"GET", "/v1/info", "127.0.0.1:8600", "Bearer " + token, 200},
		"no token":               {"GET", "/v1/info", "127.0.0.1:8600", "", 401},
		"empty token":            {"GET", "/v1/info", "127.0.0.1:8600", "Bearer ", 401},
		"wrong token":            {"GET", "/v1/info", "127.0.0.1:8600", "Bearer " + strings.Repeat("ba", 32), 401},
		"truncated token":        {"GET", "/v1/info", "127.0.0.1:8600", "Bearer " + token[:32], 401},
		"other scheme":           {"GET", "/v1/info", "127.0.0.1:8600", "Basic " + token, 401},
		"other host":             {"GET", "/v1/info", "evil.example:8600", "Bearer " + token, 403},
		"health, other host":     {"GET", "/health", "evil.example:8600", "", 403},
		"host with an address":   {"GET", "/health", "127.0.0.1.evil.example", "", 403},
		"not a loopback address": {"GET", "/health", "192.0.2.1:8600", "", 403},
		"unknown path":           {"GET", "/v1/other", "127.0.0.1", "Bearer " + token, 404},
		"other method":           {"POST", "/v1/info", "127.0.0.1", "Bearer " + token, 404},
	} {
		req := httptest.NewRequest(tt.method, tt.path, http.NoBody)
		req.Host = tt.host
		if tt.auth != "" {
			req.Header.Set("Authorization", tt.auth)
		}
		resp := httptest.NewRecorder()
		srv.ServeHTTP(resp, req)
		if resp.Code != tt.want || strings.Contains(resp.Body.String(), token) {
			t.Errorf("%s: %s %s = %d %s, want %d", name, tt.method, tt.path, resp.Code, resp.Body, tt.want)
		}
	}
}

func TestEngineErrors(t *testing.T) {
	t.Parallel()
	h := newServer(t)
	for typ, want := range map[string]operations.Code{"nothing": operations.CodeNotFound, "../x": operations.CodeBadOperation} {
		if _, err := h.Engine(t.Context(), typ); operations.CodeOf(err) != want {
			t.Errorf("Engine(%q) = %v, want code %s", typ, err, want)
		}
	}
	// Programs that rbee did not install, with and without a builtin recipe.
	if err := os.MkdirAll(h.Home.Path(wire.WorkersDir), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, typ := range []string{"vllm", "mine"} {
		if err := os.WriteFile(h.Store.EntryPath(typ), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if e, err := h.Engine(t.Context(), "vllm"); err != nil || e.Entry != h.Store.EntryPath("vllm") || len(e.Launch.Args) == 0 {
		t.Errorf("Engine(vllm) = %+v, %v, want the entry point with the arguments of the builtin recipe", e, err)
	}
	if _, err := h.Engine(t.Context(), "mine"); err == nil || !strings.Contains(err.Error(), "has no recipe") {
		t.Errorf("Engine(mine) = %v, want an error about a missing recipe", err)
	}
}
