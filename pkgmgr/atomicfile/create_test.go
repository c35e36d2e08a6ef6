package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

func TestCreate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, "file")
	if err := atomicfile.Create(path, []byte("one"), 0o640); err != nil {
		t.Fatalf("Create() = %v, want no error", err)
	}
	if err := atomicfile.Create(path, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create() of an existing file = %v, want %v", err, fs.ErrExist)
	}
	data, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || string(data) != "one" || info.Mode() != 0o640 {
		t.Errorf("file after Create() = %q, mode %v, errors %v and %v, want %q and mode 640", data, info.Mode(), err, statErr, "one")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("directory after Create() = %v, %v, want only the file", entries, err)
	}
}

func TestSymlink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, temp := filepath.Join(dir, "link"), filepath.Join(dir, "temp")
	for _, target := range []string{"a", "b"} {
		if err := os.WriteFile(temp, nil, 0o600); err != nil { // as a killed process leaves it
			t.Fatal(err)
		}
		if err := atomicfile.Symlink(target, path, temp); err != nil {
			t.Fatalf("Symlink(%q) = %v, want no error", target, err)
		}
		if got, err := os.Readlink(path); err != nil || got != target {
			t.Errorf("Readlink() = %q, %v, want %q", got, err, target)
		}
	}
	if err := atomicfile.Symlink("c", filepath.Join(dir, "missing", "link"), temp); err == nil {
		t.Error("Symlink() in a missing directory = nil, want an error")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("directory after Symlink() = %v, %v, want only the link", entries, err)
	}
}

func TestRemoveTemp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	for _, name := range []string{".log123", "log", ".logs", "log123"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	atomicfile.RemoveTemp(path)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 || entries[0].Name() != ".logs" {
		t.Errorf("directory after RemoveTemp() = %v, %v, want .logs, log and log123", entries, err)
	}
}
