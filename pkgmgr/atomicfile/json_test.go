package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

func TestWriteAndRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "file.json")
	type value struct{ A string }
	var got value
	if err := atomicfile.ReadJSON(path, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadJSON() of a missing file = %v, want %v", err, fs.ErrNotExist)
	}
	for _, want := range []value{{"one"}, {"two"}} {
		if err := atomicfile.WriteJSON(path, want); err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.ReadJSON(path, &got); err != nil || got != want {
			t.Errorf("ReadJSON() = %+v, %v, want %+v", got, err, want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("Stat() after WriteJSON() = %v, %v, want mode 600", info, err)
	}
	if err := atomicfile.WriteData(path, []byte("{"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.ReadJSON(path, &got); err == nil {
		t.Error("ReadJSON() of an incomplete document = nil, want an error")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("Stat() after WriteData() = %v, %v, want mode 640", info, err)
	}
	// WriteData must not replace a directory, and must not leave a temporary file.
	dir := filepath.Dir(path)
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteData(filepath.Join(dir, "d"), nil, 0o600); err == nil {
		t.Error("WriteData() to a directory = nil, want an error")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("directory after WriteData() = %v, %v, want d and file.json", entries, err)
	}
}

// TestTempNames checks that IsTemp and TempGlob match the temporary file of WriteFile.
func TestTempNames(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file.json")
	err := atomicfile.WriteFile(path, 0o600, func(f *os.File) error {
		if !atomicfile.IsTemp(filepath.Base(f.Name())) || atomicfile.IsTemp(filepath.Base(path)) {
			t.Errorf("IsTemp(%q) = false or IsTemp(%q) = true, want true and false", f.Name(), path)
		}
		if found, err := filepath.Glob(atomicfile.TempGlob(path)); err != nil || len(found) != 1 || found[0] != f.Name() {
			t.Errorf("TempGlob() matches %v, %v, want %s", found, err, f.Name())
		}
		return errors.New("abort")
	})
	if err == nil {
		t.Error("WriteFile() = nil, want the error of its function")
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 0 {
		t.Errorf("directory after WriteFile() = %v, %v, want no files", files, err)
	}
}

func TestIsTemp(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		".file.json123": true, ".a1": true, ".rbee.json4294967295": true,
		"": false, ".": false, "..": false, ".123": false, ".file.json": false, ".file.json1.bak": false, ".ssh": false,
		"file.json1": false, ".git/config1": false,
	} {
		if got := atomicfile.IsTemp(name); got != want {
			t.Errorf("IsTemp(%q) = %t, want %t", name, got, want)
		}
	}
}

// TestRemoveTempKeepsOtherFiles checks that RemoveTemp removes only the temporary files of one
// file, even in a directory whose name contains glob metacharacters.
func TestRemoveTempKeepsOtherFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a[b]*")
	if err := os.MkdirAll(filepath.Join(dir, ".f.json9"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f.json", ".f.json", ".f.json1", ".f.json4294967295", ".f.json1.bak", ".g.json1", "f.json1"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	atomicfile.RemoveTemp(filepath.Join(dir, "f.json"))
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := []string{".f.json", ".f.json1.bak", ".f.json9", ".g.json1", "f.json", "f.json1"}; !slices.Equal(got, want) {
		t.Errorf("directory after RemoveTemp() = %q, want %q", got, want)
	}
}
