package service

import (
	"context"
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

func TestLinger(t *testing.T) {
	t.Parallel()
	var commands []string
	var runErr error
	run := func(_ context.Context, argv ...string) (string, error) {
		commands = append(commands, strings.Join(argv, " "))
		return "", runErr
	}
	dir, unitDir := t.TempDir(), t.TempDir()
	if enabled, err := enableLinger(t.Context(), run, dir); !enabled || err != nil {
		t.Errorf("enableLinger() = %t, %v, want true, nil", enabled, err)
	}
	runErr = errors.New("not allowed")
	if enabled, err := enableLinger(t.Context(), run, dir); enabled || !errors.Is(err, runErr) {
		t.Errorf("enableLinger() without permission = %t, %v, want false, %v", enabled, err, runErr)
	}
	runErr = nil
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, u.Username), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if enabled, err := enableLinger(t.Context(), run, dir); enabled || err != nil || len(commands) != 2 {
		t.Errorf("enableLinger() with lingering enabled = %t, %v, commands %q, want false, nil and no third command", enabled, err, commands)
	}

	unit := filepath.Join(unitDir, "rbee-queen.service")
	if err := os.WriteFile(unit, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := disableLinger(t.Context(), run, unitDir); err != nil || len(commands) != 2 {
		t.Errorf("disableLinger() with another unit = %v, commands %q, want nil and no third command", err, commands)
	}
	if err := errors.Join(os.Remove(unit), disableLinger(t.Context(), run, unitDir)); err != nil || len(commands) != 3 || commands[2] != "loginctl disable-linger" {
		t.Errorf("disableLinger() = %v, commands %q, want nil and loginctl disable-linger last", err, commands)
	}
}
