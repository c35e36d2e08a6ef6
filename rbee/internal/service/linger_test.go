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
	var told []string
	var fails error
	run := func(_ context.Context, argv ...string) (string, error) {
		told = append(told, strings.Join(argv, " "))
		return "", fails
	}
	dir, units := t.TempDir(), t.TempDir()
	if on, err := enableLinger(t.Context(), run, dir); !on || err != nil {
		t.Errorf("off before: %v, %v", on, err)
	}
	fails = errors.New("not allowed")
	if on, err := enableLinger(t.Context(), run, dir); on || !errors.Is(err, fails) {
		t.Errorf("not allowed: %v, %v", on, err)
	}
	fails = nil
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, u.Username), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if on, err := enableLinger(t.Context(), run, dir); on || err != nil || len(told) != 2 {
		t.Errorf("on before: %v, %v, ran %q", on, err, told)
	}

	unit := filepath.Join(units, "rbee-queen.service")
	if err := os.WriteFile(unit, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := disableLinger(t.Context(), run, units); err != nil || len(told) != 2 {
		t.Errorf("another unit is there: %v, ran %q", err, told)
	}
	if err := errors.Join(os.Remove(unit), disableLinger(t.Context(), run, units)); err != nil || len(told) != 3 || told[2] != "loginctl disable-linger" {
		t.Errorf("%v, ran %q", err, told)
	}
}
