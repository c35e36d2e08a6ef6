package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// origin is where the tests' Python workers come from.
type origin struct {
	*origintest.Server
	t          testing.TB
	uv, python wire.Tool
	servers    map[string]wire.Step // by type and version
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{Server: origintest.New(t), t: t, servers: map[string]wire.Step{}}
	o.AddTools(exe)
	const of = "/download/astral-sh/"
	o.uv = wire.Tool{
		Name: "uv", Version: "0.9.9", Format: wire.FormatTarGz, Strip: 1, Entry: "uv",
		Artifact: o.artifact(of + "uv/0.9.9/uv-x86_64-unknown-linux-gnu.tar.gz"),
	}
	o.python = wire.Tool{
		Name: "cpython", Version: "3.12.12", Format: wire.FormatTarGz, Strip: 1, Entry: "bin/python3",
		Artifact: o.artifact(of + "python-build-standalone/20251120/cpython-3.12.12+20251120-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"),
	}
	return o
}

// artifact is what is published under a path.
func (o *origin) artifact(path string) wire.Artifact {
	o.t.Helper()
	address := strings.TrimSuffix(o.API(), "/api") + path
	resp, err := http.Get(address)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		o.t.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
	sum := sha256.Sum256(data)
	return wire.Artifact{Name: filepath.Base(path), URL: address, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

// server is a step that installs version of a worker from a wheel of its own and
// one that it needs, changed by edit.
func (o *origin) server(typ, version string, edit func(*origintest.Wheel, *wire.InstallStep)) wire.Step {
	o.t.Helper()
	own := origintest.Wheel{Name: typ, Version: version, Scripts: map[string]string{"serve": "#!/bin/sh\necho " + version + "\n"}}
	wax := origintest.Wheel{Name: "wax", Version: version, Files: map[string]string{"wax.py": "# " + strings.Repeat("wax ", 10_000) + version}}
	step := wire.InstallStep{Kind: wire.StepPython, At: typ + ".yaml:7", Into: "venv", Python: &wire.Python{UV: o.uv, Interpreter: o.python}}
	if edit != nil {
		edit(&own, &step)
	}
	for _, w := range []origintest.Wheel{wax, own} {
		o.AddWheel(w)
		step.Python.Wheels = append(step.Python.Wheels, o.artifact("/packages/"+w.Filename()))
	}
	made := wire.Step{Action: wire.ActionInstallWorker, Worker: &wire.WorkerInstall{
		Type: typ, Version: version, Steps: []wire.InstallStep{step}, Entry: "venv/bin/serve",
	}}
	o.servers[typ+" "+version] = made
	return made
}

// says is what a worker's program prints.
func says(t *testing.T, h *Hive, typ string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), h.EntryPath(typ)).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v", typ, err)
	}
	return strings.TrimSpace(string(out))
}

func install(t *testing.T, h *Hive, steps ...wire.Step) []string {
	t.Helper()
	return apply(t, h, &wire.Request{Steps: steps}, nil).Errors
}

// TestPython holds that an environment is made from wheels, that tools are
// fetched once for all workers, and go with the last of them.
func TestPython(t *testing.T) {
	t.Parallel()
	h, o := newHive(t), newOrigin(t)
	asked := o.Asked("uv-x86_64")
	one, two := o.server("one", "1.0", nil), o.server("two", "2.0", nil)
	if errs := install(t, h, one, two); errs[0]+errs[1] != "" {
		t.Fatal(errs)
	}
	if says(t, h, "one") != "1.0" || says(t, h, "two") != "2.0" {
		t.Error("the programs do not say what they shall")
	}
	if n := o.Asked("uv-x86_64") - asked; n != 1 {
		t.Errorf("uv was fetched %d times", n)
	}
	if _, err := os.Stat(h.Path(wire.DownloadDir)); err == nil {
		t.Error("downloads were left")
	}
	dir := h.BuildDir("one", "1.0")
	if left, _ := os.ReadDir(dir); len(left) != 4 {
		t.Errorf("beside manifest, list of files, entry and payload: %v", left)
	}
	if w := h.Worker(t.Context(), "one", true); w.Corrupt != "" || w.Bytes < 40_000 {
		t.Errorf("%+v", w)
	}
	if err := os.WriteFile(filepath.Join(dir, "payload/venv/lib/python3.12/site-packages/wax.py"), []byte("honey"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := h.Worker(t.Context(), "one", true); !strings.Contains(w.Corrupt, "wax.py") {
		t.Errorf("%+v", w)
	}
	// Without its interpreter it would not start; an install heals that, and both.
	if err := os.Remove(filepath.Join(h.ToolPath(&o.python), "bin/python3")); err != nil {
		t.Fatal(err)
	}
	for _, deep := range []bool{false, true} {
		if w := h.Worker(t.Context(), "two", deep); !strings.HasPrefix(w.Corrupt, "tools/cpython-3.12.12-") || !strings.HasSuffix(w.Corrupt, "bin/python3 is missing") {
			t.Errorf("without an interpreter: %+v", w)
		}
	}
	if errs := install(t, h, one); errs[0] != "" || h.Worker(t.Context(), "one", true).Corrupt != "" || h.Worker(t.Context(), "two", true).Corrupt != "" {
		t.Errorf("%q", errs)
	}
	remove := func(typ string) wire.Step {
		return wire.Step{Action: wire.ActionRemoveWorker, Worker: &wire.WorkerInstall{Type: typ}}
	}
	if errs := install(t, h, remove("one")); errs[0] != "" || says(t, h, "two") != "2.0" {
		t.Errorf("%q", errs)
	}
	if errs := install(t, h, remove("two")); errs[0] != "" {
		t.Error(errs)
	}
	if _, err := os.Stat(h.Path(wire.ToolsDir)); err == nil {
		t.Error("tools were left")
	}
}

// TestPythonGoesWrong holds that the version before stays, whatever happens to the
// next one, that nothing of that is left, and that the error names the recipe's line.
func TestPythonGoesWrong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit func(*origin, *origintest.Wheel, *wire.InstallStep)
		then func(*wire.InstallStep)
		want string
	}{
		"half-way": {
			edit: func(_ *origin, w *origintest.Wheel, _ *wire.InstallStep) { w.Files = map[string]string{"FAIL": ""} },
			want: "w.yaml:7: failed to install: w-2-py3-none-any.whl",
		},
		"a wheel that is none": {
			then: func(s *wire.InstallStep) { s.Python.Wheels[1] = s.Python.UV.Artifact },
			want: "w.yaml:7: failed to read uv-x86_64",
		},
		"a wrong sum": {
			then: func(s *wire.InstallStep) { s.Python.Wheels[1].SHA256 = strings.Repeat("0", 64) },
			want: "unexpected content: its SHA-256 is",
		},
		"less than was promised": {
			then: func(s *wire.InstallStep) { s.Python.Wheels[0].Size++ },
			want: "bytes, want",
		},
		"more than was promised": {
			then: func(s *wire.InstallStep) { s.Python.Wheels[0].Size-- },
			want: "unexpected content: more than",
		},
		"more than the disk has": {
			then: func(s *wire.InstallStep) { s.Python.Wheels[0].Size = 1 << 60 },
			want: "w.yaml:7: not enough disk",
		},
		"no program": {
			edit: func(_ *origin, w *origintest.Wheel, _ *wire.InstallStep) { w.Scripts = nil },
			want: `w.yaml:7: the artifact holds no program "venv/bin/serve"`,
		},
		"a tool without its program": {
			then: func(s *wire.InstallStep) { s.Python.Interpreter.Entry, s.Python.Interpreter.Version = "bin/pypy", "7" },
			want: `holds no program "bin/pypy"`,
		},
		"a server out of order": {
			edit: func(o *origin, w *origintest.Wheel, _ *wire.InstallStep) {
				w.Tag = "cp312-cp312-any"
			},
			then: func(s *wire.InstallStep) { s.Python.Wheels[1].URL += ".gone" },
			want: "the server answered 404",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, o := newHive(t), newOrigin(t)
			if errs := install(t, h, o.server("w", "1", nil)); errs[0] != "" {
				t.Fatal(errs)
			}
			before := tree(t, h.User)
			next := o.server("w", "2", func(w *origintest.Wheel, s *wire.InstallStep) {
				if c.edit != nil {
					c.edit(o, w, s)
				}
			})
			if c.then != nil {
				c.then(&next.Worker.Steps[0])
			}
			if errs := install(t, h, next); !strings.Contains(errs[0], c.want) {
				t.Errorf("got %q, want %q", errs, c.want)
			}
			if says(t, h, "w") != "1" {
				t.Error("the version before does not run any more")
			}
			if err := os.RemoveAll(h.Path(wire.DownloadDir)); err != nil { // what did arrive may wait for another try
				t.Fatal(err)
			}
			if after := tree(t, h.User); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// TestCutDownload holds that what has arrived of a wheel counts, in the same try
// and in the next.
func TestCutDownload(t *testing.T) {
	t.Parallel()
	h, o := newHive(t), newOrigin(t)
	step := o.server("w", "1", nil)
	wheel := step.Worker.Steps[0].Python.Wheels[0]
	part := filepath.Join(h.Path(wire.DownloadDir), wheel.SHA256+partSuffix)

	// The line is cut, and then the server is out of order.
	o.Break(origintest.Fault{Path: "/packages/wax", Cut: 40, Times: 1})
	o.Break(origintest.Fault{Path: "/packages/wax", Status: http.StatusServiceUnavailable, Times: 1})
	if errs := install(t, h, step); !strings.Contains(errs[0], "w.yaml:7: downloading http://") || !strings.Contains(errs[0], "answered 503") {
		t.Fatal(errs)
	}
	if fileSize(part) != 40 {
		t.Fatalf("%d bytes were kept", fileSize(part))
	}
	asked := o.Asked("/packages/wax")
	if errs := install(t, h, step); errs[0] != "" || says(t, h, "w") != "1" || o.Asked("/packages/wax") != asked+1 {
		t.Error(errs)
	}
	// The line is cut, and there again.
	two := o.server("w", "2", nil)
	o.Break(origintest.Fault{Path: "/packages/w-2", Cut: 40, Times: 1})
	if errs := install(t, h, two); errs[0] != "" || says(t, h, "w") != "2" {
		t.Error(errs)
	}
	// What an earlier try has left is no beginning of it: shorter, or longer.
	for version, left := range map[string]int{"3": 40, "4": 1 << 20} {
		step := o.server("w", version, nil)
		part := filepath.Join(h.Path(wire.DownloadDir), step.Worker.Steps[0].Python.Wheels[0].SHA256+partSuffix)
		if err := os.MkdirAll(filepath.Dir(part), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(part, make([]byte, left), 0o600); err != nil {
			t.Fatal(err)
		}
		if errs := install(t, h, step); errs[0] != "" || says(t, h, "w") != version {
			t.Error(errs)
		}
	}
}

// TestRollback holds that the version before is gone back to if it is whole, and
// that going back twice comes out where it began.
func TestRollback(t *testing.T) {
	t.Parallel()
	h, o := newHive(t), newOrigin(t)
	rollback := wire.Step{Action: wire.ActionRollback, Worker: &wire.WorkerInstall{Type: "w"}}
	if errs := install(t, h, rollback); !strings.Contains(errs[0], "not installed by rbee") {
		t.Error(errs)
	}
	if errs := install(t, h, o.server("w", "1", nil), rollback); !strings.Contains(errs[1], "no earlier version of w is there, only 1") {
		t.Error(errs)
	}
	if errs := install(t, h, o.server("w", "2", nil)); errs[0] != "" {
		t.Fatal(errs)
	}
	for _, want := range []string{"1", "2", "1"} {
		if errs := install(t, h, rollback); errs[0] != "" || says(t, h, "w") != want {
			t.Errorf("%s: %q", want, errs)
		}
	}
	// Without a download: the version lies there.
	asked := o.Asked("/")
	if errs := install(t, h, o.servers["w 2"]); errs[0] != "" || says(t, h, "w") != "2" || o.Asked("/") != asked {
		t.Errorf("%q, %d requests", errs, o.Asked("/")-asked)
	}
	if err := os.Remove(filepath.Join(h.BuildDir("w", "1"), "payload/venv/bin/serve")); err != nil {
		t.Fatal(err)
	}
	if errs := install(t, h, rollback); !strings.Contains(errs[0], "w 1 is damaged") || says(t, h, "w") != "2" {
		t.Errorf("%q", errs)
	}
	// The damaged one is made anew, by its whole install.
	if errs := install(t, h, o.servers["w 1"]); errs[0] != "" || says(t, h, "w") != "1" {
		t.Errorf("%q", errs)
	}
}

// TestCanceledPython holds that uv ends with the request that started it.
func TestCanceledPython(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	st := &stage{session: &session{Installer: h.Installer}, dir: t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	started := filepath.Join(st.dir, "started")
	script := filepath.Join(st.dir, "uv")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nmkfifo lock\n(read x < lock) &\n: > started\nwait\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(started); err == nil {
				cancel()
			}
		}
	}()
	if err := st.run(ctx, script, "venv"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
