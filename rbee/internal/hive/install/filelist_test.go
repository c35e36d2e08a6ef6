package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
)

func TestMissingFileListIsCorrupt(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	step := worker("1", "", nil)
	mustInstall(t, h, self(t, h), step)
	path := filepath.Join(h.BuildDir("w", "1"), installed.FilesName)
	for content, want := range map[string]string{"": "files.json is missing", "{": "files.json cannot be read"} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if content != "" {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if w := h.Worker(t.Context(), "w", false); w.Corrupt != "" {
			t.Errorf("files.json is %q: quick Worker().Corrupt = %q, want an empty string, because the quick check does not read the list", content, w.Corrupt)
		}
		if w := h.Worker(t.Context(), "w", true); !strings.Contains(w.Corrupt, want) {
			t.Errorf("files.json is %q: deep Worker().Corrupt = %q, want %q", content, w.Corrupt, want)
		}
		mustInstall(t, h, step)
		path = filepath.Join(h.BuildDir("w", h.EntryBuild("w")), installed.FilesName)
		if w := h.Worker(t.Context(), "w", true); w.Corrupt != "" {
			t.Errorf("files.json is %q: after the next install, Worker().Corrupt = %q, want an empty string", content, w.Corrupt)
		}
	}
}

// BenchmarkListWorkers measures listing a worker with 62,000 files and 169 wheels, which the
// daemon does every five seconds.
func BenchmarkListWorkers(b *testing.B) {
	h := connect(b.TempDir(), "", "")
	dir := h.BuildDir("w", "1")
	m := installed.Manifest{Type: "w", Version: "1", Entry: "bin/f0", Steps: []wire.InstallStep{{Kind: wire.StepPython, Python: &wire.Python{}}}}
	for i := range 169 {
		m.Steps[0].Python.Wheels = append(m.Steps[0].Python.Wheels, wire.Artifact{
			Name: fmt.Sprintf("package_%d-1.0-cp312-cp312-manylinux_2_28_x86_64.whl", i), SHA256: strings.Repeat("0", 64), Size: 1 << 24,
			URL: "https://files.example.org/packages/" + strings.Repeat("0", 64) + "/package.whl",
		})
	}
	m.Steps[0].Python.Interpreter.Artifact.SHA256 = strings.Repeat("1", 64)
	m.Steps[0].Python.Interpreter.Name, m.Steps[0].Python.Interpreter.Entry = "cpython", "bin/python3"
	for i := range 62_000 {
		m.Files = append(m.Files, installed.File{Path: fmt.Sprintf("bin/f%d", i), Size: 0, SHA256: strings.Repeat("2", 64), Mode: installed.ModeProgram})
	}
	python := filepath.Join(h.ToolPath(&m.Steps[0].Python.Interpreter), "bin/python3")
	err := errors.Join(
		writeFile(filepath.Join(dir, installed.PayloadDir, "bin/f0"), nil), os.Chmod(filepath.Join(dir, installed.PayloadDir, "bin/f0"), 0o700),
		writeFile(python, nil), os.Chmod(python, 0o700),
		os.Symlink(installed.PayloadDir+"/bin/f0", filepath.Join(dir, installed.EntryName)), os.Symlink("w/1/"+installed.EntryName, h.EntryPath("w")),
	)
	if err := errors.Join(err, writeManifest(dir, &m)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		w, err := h.Workers(b.Context(), false)
		if err != nil || len(w) != 1 || w[0].Corrupt != "" {
			b.Fatalf("Workers() = %+v, %v, want one intact worker", w, err)
		}
	}
}
