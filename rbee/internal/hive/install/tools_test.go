package install

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
)

// TestDamagedTool checks that the quick check of a tool finds a missing or unusable program,
// that the deep check finds all damage, and that the next install repairs the tool.
func TestDamagedTool(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	data := origintest.TarGz(map[string]string{
		"python/bin/python3": "#!/bin/sh\n", "python/lib/os.py": "os", "python/lib/__pycache__/os.pyc": "compiled",
	})
	tool := &wire.Tool{
		Name: "cpython", Version: "3", Format: wire.FormatTarGz, Strip: 1, Entry: "bin/python3",
		Artifact: *publish(t, "cpython.tar.gz", data),
	}
	installTool := func() {
		t.Helper()
		st := &stage{stepRunner: &stepRunner{Installer: h.Installer, out: wire.NewWriter(io.Discard)}}
		program, err := st.tool(t.Context(), tool)
		if info, statErr := os.Stat(program); errors.Join(err, statErr) != nil || info.Mode()&0o111 == 0 {
			t.Fatalf("tool() = %s, %v (%v), want an executable program", program, err, statErr)
		}
		st.removeDownloads()
	}
	installTool()
	dir := h.ToolPath(tool)
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, c := range map[string]struct {
		damage func() error
		quick  bool   // whether the quick check finds the damage
		want   string // the problem; empty for none
	}{
		"missing program":        {func() error { return os.Remove(path("bin/python3")) }, true, "/bin/python3 is missing"},
		"program not executable": {func() error { return os.Chmod(path("bin/python3"), 0o600) }, true, "/bin/python3 is not executable"},
		"directory as program":   {func() error { return errors.Join(os.Remove(path("bin/python3")), os.Mkdir(path("bin/python3"), 0o700)) }, true, "/bin/python3 is not executable"},
		"missing directory":      {func() error { return os.RemoveAll(dir) }, true, "/bin/python3 is missing"},
		"missing module":         {func() error { return os.Remove(path("lib/os.py")) }, false, "/lib/os.py is missing"},
		"modified module":        {func() error { return os.WriteFile(path("lib/os.py"), []byte("so"), 0o600) }, false, "/lib/os.py was modified"},
		"invalid list":           {func() error { return os.WriteFile(path(installed.ToolFiles), []byte("{"), 0o600) }, false, "cannot be read"},
		"list with outer path":   {func() error { return os.WriteFile(path(installed.ToolFiles), []byte(`[{"path":"../x"}]`), 0o600) }, false, "outside"},
		"modified bytecode":      {func() error { return os.WriteFile(path("lib/__pycache__/os.pyc"), []byte("new"), 0o600) }, false, ""},
		"missing list":           {func() error { return os.Remove(path(installed.ToolFiles)) }, false, installed.ToolFiles + " is missing"},
	} {
		if err := c.damage(); err != nil {
			t.Fatalf("%s: damage() = %v", name, err)
		}
		if got := h.CheckTool(t.Context(), tool, false); (got != "") != c.quick || c.quick && !strings.HasSuffix(got, c.want) {
			t.Errorf("%s: quick CheckTool() = %q, want problem %q: %t", name, got, c.want, c.quick)
		}
		got := h.CheckTool(t.Context(), tool, true)
		if (got != "") != (c.want != "") || !strings.Contains(got, c.want) || got != "" && !strings.HasPrefix(got, wire.ToolsDir+"/cpython-3-") {
			t.Errorf("%s: deep CheckTool() = %q, want %q", name, got, c.want)
		}
		installTool()
		if got := h.CheckTool(t.Context(), tool, true); got != "" {
			t.Errorf("%s: CheckTool() after the repair = %q, want it empty", name, got)
		}
		if err := os.RemoveAll(dir); err != nil { // start the next case with a new tool
			t.Fatal(err)
		}
		installTool()
	}
	if entries, _ := os.ReadDir(h.Path(wire.ToolsDir)); len(entries) != 1 {
		t.Errorf("%s contains %v, want only the tool", wire.ToolsDir, entries)
	}
	if data, err := os.ReadFile(path("lib/os.py")); err != nil || string(data) != "os" {
		t.Errorf("lib/os.py contains %q (%v), want os", data, err)
	}
}

// TestKilledToolReplacement checks that cleanTools keeps one directory of a tool if a run was
// killed while it replaced the tool.
func TestKilledToolReplacement(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	tool := wire.Tool{Name: "cpython", Version: "3", Entry: "bin/python3", Artifact: wire.Artifact{SHA256: strings.Repeat("a", 64)}}
	m := installed.Manifest{Type: "w", Version: "1", Steps: []wire.InstallStep{{Kind: wire.StepPython, Python: &wire.Python{UV: tool, Interpreter: tool}}}}
	if err := atomicfile.WriteJSON(filepath.Join(h.BuildDir("w", "1"), installed.ManifestName), m); err != nil {
		t.Fatal(err)
	}
	dir := h.ToolPath(&tool)
	createTool := func(dir string) {
		t.Helper()
		program := filepath.Join(dir, "bin/python3")
		if err := errors.Join(os.MkdirAll(filepath.Dir(program), 0o700), os.WriteFile(program, []byte(filepath.Base(dir)), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		dirs []string
		want string // base name of the directory that is kept
	}{
		{"between the renames", []string{backupPath(dir)}, filepath.Base(backupPath(dir))},
		{"after both renames", []string{dir, backupPath(dir)}, filepath.Base(dir)},
		{"backup of another tool", []string{dir, backupPath(dir) + "x"}, filepath.Base(dir)},
	} {
		if err := os.RemoveAll(h.Path(wire.ToolsDir)); err != nil {
			t.Fatal(err)
		}
		for _, dir := range c.dirs {
			createTool(dir)
		}
		if err := h.cleanTools(); err != nil {
			t.Errorf("%s: cleanTools() = %v, want nil", c.name, err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "bin/python3")); err != nil || string(got) != c.want {
			t.Errorf("%s: after cleanTools(), the program of the tool contains %q (%v), want %q", c.name, got, err, c.want)
		}
		if entries, _ := os.ReadDir(h.Path(wire.ToolsDir)); len(entries) != 1 {
			t.Errorf("%s: after cleanTools(), %s contains %v, want one directory", c.name, wire.ToolsDir, entries)
		}
	}
}
