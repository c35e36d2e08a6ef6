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
	type thing struct{ A string }
	var got thing
	if err := atomicfile.ReadJSON(path, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	for _, want := range []thing{{"one"}, {"two"}} {
		if err := atomicfile.WriteJSON(path, want); err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.ReadJSON(path, &got); err != nil || got != want {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := atomicfile.WriteData(path, []byte("{"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.ReadJSON(path, &got); err == nil {
		t.Error("half a document was read")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
	// A directory in the place of the file keeps its content, and nothing is left
	// beside it.
	dir := filepath.Dir(path)
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteData(filepath.Join(dir, "d"), nil, 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestTemp holds that the temporary files that are left by a process which was killed are
// recognized.
func TestTemp(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file.json")
	err := atomicfile.WriteFile(path, 0o600, func(f *os.File) error {
		if !atomicfile.IsTemp(filepath.Base(f.Name())) || atomicfile.IsTemp(filepath.Base(path)) {
			t.Errorf("IsTemp(%q) = false, or IsTemp(%q) = true", f.Name(), path)
		}
		if found, err := filepath.Glob(atomicfile.TempGlob(path)); err != nil || len(found) != 1 || found[0] != f.Name() {
			t.Errorf("TempGlob() matches %v, %v, want %s", found, err, f.Name())
		}
		return errors.New("no more")
	})
	if err == nil {
		t.Error("WriteFile() = nil, want the error of its function")
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestIsTemp checks that only names with the form of temporary files are recognized.
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

// TestRemoveTempOther checks that only temporary files of one file are removed, also in a
// directory whose name is a pattern.
func TestRemoveTempOther(t *testing.T) {
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
		t.Errorf("RemoveTemp() left %q, want %q", got, want)
	}
}
