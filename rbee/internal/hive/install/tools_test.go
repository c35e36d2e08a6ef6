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

// TestDamagedTool holds that the quick look at a tool sees what keeps it from
// starting and the deep one everything, and that whoever needs it gets it whole.
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
	get := func() {
		t.Helper()
		st := &stage{stepRunner: &stepRunner{Installer: h.Installer, out: wire.NewWriter(io.Discard)}}
		program, err := st.tool(t.Context(), tool)
		if info, statErr := os.Stat(program); errors.Join(err, statErr) != nil || info.Mode()&0o111 == 0 {
			t.Fatal(program, err, statErr)
		}
		st.removeDownloads()
	}
	get()
	dir := h.ToolPath(tool)
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, c := range map[string]struct {
		do    func() error
		quick bool   // sees it
		want  string // of what is seen; empty if nothing is
	}{
		"the program is gone":   {func() error { return os.Remove(path("bin/python3")) }, true, "/bin/python3 is missing"},
		"it is no program":      {func() error { return os.Chmod(path("bin/python3"), 0o600) }, true, "/bin/python3 is not executable"},
		"it is a directory":     {func() error { return errors.Join(os.Remove(path("bin/python3")), os.Mkdir(path("bin/python3"), 0o700)) }, true, "/bin/python3 is not executable"},
		"all of it is gone":     {func() error { return os.RemoveAll(dir) }, true, "/bin/python3 is missing"},
		"a module is gone":      {func() error { return os.Remove(path("lib/os.py")) }, false, "/lib/os.py is missing"},
		"a module is another":   {func() error { return os.WriteFile(path("lib/os.py"), []byte("so"), 0o600) }, false, "/lib/os.py was modified"},
		"the list is no list":   {func() error { return os.WriteFile(path(installed.ToolFiles), []byte("{"), 0o600) }, false, "cannot be read"},
		"the list leads astray": {func() error { return os.WriteFile(path(installed.ToolFiles), []byte(`[{"path":"../x"}]`), 0o600) }, false, "outside"},
		"compiled anew":         {func() error { return os.WriteFile(path("lib/__pycache__/os.pyc"), []byte("anew"), 0o600) }, false, ""},
		"the list is gone":      {func() error { return os.Remove(path(installed.ToolFiles)) }, false, installed.ToolFiles + " is missing"},
	} {
		if err := c.do(); err != nil {
			t.Fatal(name, err)
		}
		if got := h.CheckTool(t.Context(), tool, false); (got != "") != c.quick || c.quick && !strings.HasSuffix(got, c.want) {
			t.Errorf("%s: the quick look sees %q", name, got)
		}
		got := h.CheckTool(t.Context(), tool, true)
		if (got != "") != (c.want != "") || !strings.Contains(got, c.want) || got != "" && !strings.HasPrefix(got, wire.ToolsDir+"/cpython-3-") {
			t.Errorf("%s: the deep look sees %q, want %q", name, got, c.want)
		}
		get()
		if got := h.CheckTool(t.Context(), tool, true); got != "" {
			t.Errorf("%s: afterwards %q", name, got)
		}
		if err := os.RemoveAll(dir); err != nil { // the cases come in any order
			t.Fatal(err)
		}
		get()
	}
	if left, _ := os.ReadDir(h.Path(wire.ToolsDir)); len(left) != 1 {
		t.Errorf("beside the tool: %v", left)
	}
	if whole, err := os.ReadFile(path("lib/os.py")); err != nil || string(whole) != "os" {
		t.Errorf("%q, %v", whole, err)
	}
}

// TestKilledToolReplacement holds that a run which was killed while a tool made room for
// its successor loses neither.
func TestKilledToolReplacement(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	tool := wire.Tool{Name: "cpython", Version: "3", Entry: "bin/python3", Artifact: wire.Artifact{SHA256: strings.Repeat("a", 64)}}
	m := installed.Manifest{Type: "w", Version: "1", Steps: []wire.InstallStep{{Kind: wire.StepPython, Python: &wire.Python{UV: tool, Interpreter: tool}}}}
	if err := atomicfile.WriteJSON(filepath.Join(h.BuildDir("w", "1"), installed.ManifestName), m); err != nil {
		t.Fatal(err)
	}
	dir := h.ToolPath(&tool)
	put := func(dir string) {
		t.Helper()
		program := filepath.Join(dir, "bin/python3")
		if err := errors.Join(os.MkdirAll(filepath.Dir(program), 0o700), os.WriteFile(program, []byte(filepath.Base(dir)), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		dirs []string
		want string // who is called so afterwards
	}{
		{"between two renames", []string{backupPath(dir)}, filepath.Base(backupPath(dir))},
		{"after both", []string{dir, backupPath(dir)}, filepath.Base(dir)},
		{"another's", []string{dir, backupPath(dir) + "x"}, filepath.Base(dir)},
	} {
		if err := os.RemoveAll(h.Path(wire.ToolsDir)); err != nil {
			t.Fatal(err)
		}
		for _, dir := range c.dirs {
			put(dir)
		}
		if err := h.cleanTools(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "bin/python3")); err != nil || string(got) != c.want {
			t.Errorf("%s: it is %q, %v", c.name, got, err)
		}
		if left, _ := os.ReadDir(h.Path(wire.ToolsDir)); len(left) != 1 {
			t.Errorf("%s: left %v", c.name, left)
		}
	}
}
