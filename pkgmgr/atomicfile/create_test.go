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
		t.Fatalf("Create() = %v", err)
	}
	if err := atomicfile.Create(path, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("Create() of an existing file = %v, want ErrExist", err)
	}
	data, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || string(data) != "one" || info.Mode() != 0o640 {
		t.Errorf("the file has %q, mode %v, %v, %v; want one with mode 640", data, info.Mode(), err, statErr)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v, want the file alone", entries, err)
	}
}

func TestSymlink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, temp := filepath.Join(dir, "link"), filepath.Join(dir, "temp")
	for _, target := range []string{"a", "b"} {
		if err := os.WriteFile(temp, nil, 0o600); err != nil { // of a process that was killed
			t.Fatal(err)
		}
		if err := atomicfile.Symlink(target, path, temp); err != nil {
			t.Fatalf("Symlink(%q) = %v", target, err)
		}
		if got, err := os.Readlink(path); err != nil || got != target {
			t.Errorf("Readlink() = %q, %v, want %q", got, err, target)
		}
	}
	if err := atomicfile.Symlink("c", filepath.Join(dir, "missing", "link"), temp); err == nil {
		t.Error("Symlink() in a missing directory succeeded")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v, want the link alone", entries, err)
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
		t.Errorf("the directory has %v, %v, want all files but .log123", entries, err)
	}
}
