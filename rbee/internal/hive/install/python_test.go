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

// origin is a server with the artifacts of Python workers.
type origin struct {
	*origintest.Server
	t          testing.TB
	uv, python wire.Tool
	steps      map[string]wire.Step // by type and version
}

func newOrigin(t *testing.T) *origin {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{Server: origintest.New(t), t: t, steps: map[string]wire.Step{}}
	o.AddTools(exe)
	const base = "/download/astral-sh/"
	o.uv = wire.Tool{
		Name: "uv", Version: "0.9.9", Format: wire.FormatTarGz, Strip: 1, Entry: "uv",
		Artifact: o.artifact(base + "uv/0.9.9/uv-x86_64-unknown-linux-gnu.tar.gz"),
	}
	o.python = wire.Tool{
		Name: "cpython", Version: "3.12.12", Format: wire.FormatTarGz, Strip: 1, Entry: "bin/python3",
		Artifact: o.artifact(base + "python-build-standalone/20251120/cpython-3.12.12+20251120-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"),
	}
	return o
}

// artifact returns the artifact that is published at a path.
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
		o.t.Fatalf("GET %s: %s, %v", path, resp.Status, err)
	}
	sum := sha256.Sum256(data)
	return wire.Artifact{Name: filepath.Base(path), URL: address, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))}
}

// pythonWorker returns a step that installs a version of a worker from two wheels: its own
// wheel and the dependency wax. edit, if not nil, modifies the worker's wheel and the step.
func (o *origin) pythonWorker(typ, version string, edit func(*origintest.Wheel, *wire.InstallStep)) wire.Step {
	o.t.Helper()
	workerWheel := origintest.Wheel{Name: typ, Version: version, Scripts: map[string]string{"serve": "#!/bin/sh\necho " + version + "\n"}}
	wax := origintest.Wheel{Name: "wax", Version: version, Files: map[string]string{"wax.py": "# " + strings.Repeat("wax ", 10_000) + version}}
	step := wire.InstallStep{Kind: wire.StepPython, Position: typ + ".yaml:7", Into: "venv", Python: &wire.Python{UV: o.uv, Interpreter: o.python}}
	if edit != nil {
		edit(&workerWheel, &step)
	}
	for _, w := range []origintest.Wheel{wax, workerWheel} {
		o.AddWheel(w)
		step.Python.Wheels = append(step.Python.Wheels, o.artifact("/packages/"+w.Filename()))
	}
	install := wire.Step{Action: wire.ActionInstallWorker, Worker: &wire.WorkerInstall{
		Type: typ, Version: version, Steps: []wire.InstallStep{step}, Entry: "venv/bin/serve",
	}}
	o.steps[typ+" "+version] = install
	return install
}

// runWorker runs the program of a worker and returns its output.
func runWorker(t *testing.T, h *Hive, typ string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), h.EntryPath(typ)).CombinedOutput()
	if err != nil {
		t.Errorf("the program of worker %s fails: %v\n%s", typ, err, out)
	}
	return strings.TrimSpace(string(out))
}

// install applies steps and returns their errors.
func install(t *testing.T, h *Hive, steps ...wire.Step) []string {
	t.Helper()
	return apply(t, h, &wire.Request{Steps: steps}, nil).Errors
}

// TestPython checks that an environment is created from wheels, that tools are downloaded
// once for all workers, and that they are removed with the last worker.
func TestPython(t *testing.T) {
	t.Parallel()
	h, o := newHive(t), newOrigin(t)
	before := o.RequestCount("uv-x86_64")
	one, two := o.pythonWorker("one", "1.0", nil), o.pythonWorker("two", "2.0", nil)
	if errs := install(t, h, one, two); errs[0]+errs[1] != "" {
		t.Fatalf("install() = %q, want no errors", errs)
	}
	if one, two := runWorker(t, h, "one"), runWorker(t, h, "two"); one != "1.0" || two != "2.0" {
		t.Errorf("the workers print %q and %q, want 1.0 and 2.0", one, two)
	}
	if n := o.RequestCount("uv-x86_64") - before; n != 1 {
		t.Errorf("downloads of uv = %d, want 1", n)
	}
	if _, err := os.Stat(h.Path(wire.DownloadDir)); err == nil {
		t.Errorf("%s exists after the install, want it removed", wire.DownloadDir)
	}
	dir := h.BuildDir("one", "1.0")
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("the build contains %v, want the manifest, the list of files, the entry and the payload", entries)
	}
	if w := h.Worker(t.Context(), "one", true); w.Corrupt != "" || w.Bytes < 40_000 {
		t.Errorf("Worker(one) = %+v, want an intact worker of at least 40000 bytes", w)
	}
	if err := os.WriteFile(filepath.Join(dir, "payload/venv/lib/python3.12/site-packages/wax.py"), []byte("honey"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := h.Worker(t.Context(), "one", true); !strings.Contains(w.Corrupt, "wax.py") {
		t.Errorf("Worker(one) with a modified file = %+v, want wax.py corrupt", w)
	}
	// Both workers use the same interpreter, so that the install of one repairs both.
	if err := os.Remove(filepath.Join(h.ToolPath(&o.python), "bin/python3")); err != nil {
		t.Fatal(err)
	}
	for _, deep := range []bool{false, true} {
		if w := h.Worker(t.Context(), "two", deep); !strings.HasPrefix(w.Corrupt, "tools/cpython-3.12.12-") || !strings.HasSuffix(w.Corrupt, "bin/python3 is missing") {
			t.Errorf("Worker(two) without an interpreter = %+v, want bin/python3 missing", w)
		}
	}
	if errs := install(t, h, one); errs[0] != "" || h.Worker(t.Context(), "one", true).Corrupt != "" || h.Worker(t.Context(), "two", true).Corrupt != "" {
		t.Errorf("repair = %q, want both workers intact", errs)
	}
	remove := func(typ string) wire.Step {
		return wire.Step{Action: wire.ActionRemoveWorker, Worker: &wire.WorkerInstall{Type: typ}}
	}
	if errs := install(t, h, remove("one")); errs[0] != "" || runWorker(t, h, "two") != "2.0" {
		t.Errorf("removal of one worker = %q, want the other one to run", errs)
	}
	if errs := install(t, h, remove("two")); errs[0] != "" {
		t.Errorf("removal of the other worker = %q, want no error", errs)
	}
	if _, err := os.Stat(h.Path(wire.ToolsDir)); err == nil {
		t.Errorf("%s exists after the removal of all workers, want it removed", wire.ToolsDir)
	}
}

// TestPythonInstallErrors checks that a failed install keeps the installed version, leaves no
// files, and returns an error with the line of the recipe.
func TestPythonInstallErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit     func(*origin, *origintest.Wheel, *wire.InstallStep)
		editStep func(*wire.InstallStep) // after the artifacts are published
		want     string
	}{
		"uv failure": {
			edit: func(_ *origin, w *origintest.Wheel, _ *wire.InstallStep) { w.Files = map[string]string{"FAIL": ""} },
			want: "w.yaml:7: failed to install: w-2-py3-none-any.whl",
		},
		"invalid wheel": {
			editStep: func(s *wire.InstallStep) { s.Python.Wheels[1] = s.Python.UV.Artifact },
			want:     "w.yaml:7: failed to read uv-x86_64",
		},
		"wrong checksum": {
			editStep: func(s *wire.InstallStep) { s.Python.Wheels[1].SHA256 = strings.Repeat("0", 64) },
			want:     strings.Repeat("0", 64),
		},
		"wheel too small": {
			editStep: func(s *wire.InstallStep) { s.Python.Wheels[0].Size++ },
			want:     ", want",
		},
		"wheel too large": {
			editStep: func(s *wire.InstallStep) { s.Python.Wheels[0].Size-- },
			want:     "more than",
		},
		"insufficient disk space": {
			editStep: func(s *wire.InstallStep) { s.Python.Wheels[0].Size = 1 << 60 },
			want:     "w.yaml:7: insufficient disk space",
		},
		"missing program": {
			edit: func(_ *origin, w *origintest.Wheel, _ *wire.InstallStep) { w.Scripts = nil },
			want: `w.yaml:7: invalid entry "venv/bin/serve": want a file of the artifact`,
		},
		"missing program of a tool": {
			editStep: func(s *wire.InstallStep) {
				s.Python.Interpreter.Entry, s.Python.Interpreter.Version = "bin/pypy", "7"
			},
			want: `has no program "bin/pypy"`,
		},
		"wheel not found": {
			edit: func(o *origin, w *origintest.Wheel, _ *wire.InstallStep) {
				w.Tag = "cp312-cp312-any"
			},
			editStep: func(s *wire.InstallStep) { s.Python.Wheels[1].URL += ".missing" },
			want:     "404",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, o := newHive(t), newOrigin(t)
			if errs := install(t, h, o.pythonWorker("w", "1", nil)); errs[0] != "" {
				t.Fatalf("install() = %q, want no errors", errs)
			}
			before := treeText(t, h.User)
			next := o.pythonWorker("w", "2", func(w *origintest.Wheel, s *wire.InstallStep) {
				if c.edit != nil {
					c.edit(o, w, s)
				}
			})
			if c.editStep != nil {
				c.editStep(&next.Worker.Steps[0])
			}
			if errs := install(t, h, next); !strings.Contains(errs[0], c.want) {
				t.Errorf("install() = %q, want an error with %q", errs, c.want)
			}
			if got := runWorker(t, h, "w"); got != "1" {
				t.Errorf("the worker prints %q after the failed install, want 1", got)
			}
			if err := os.RemoveAll(h.Path(wire.DownloadDir)); err != nil { // kept for the next attempt
				t.Fatal(err)
			}
			if after := treeText(t, h.User); after != before {
				t.Errorf("the failed install changed files from\n%sto\n%s", before, after)
			}
		})
	}
}

// TestResumeDownload checks that a partial download is resumed, in the same install and in
// the next one.
func TestResumeDownload(t *testing.T) {
	t.Parallel()
	h, o := newHive(t), newOrigin(t)
	step := o.pythonWorker("w", "1", nil)
	wheel := step.Worker.Steps[0].Python.Wheels[0]
	part := filepath.Join(h.Path(wire.DownloadDir), wheel.SHA256+partSuffix)

	// The connection breaks, and then the server fails.
	o.AddFault(origintest.Fault{Path: "/packages/wax", Cut: 40, Times: 1})
	o.AddFault(origintest.Fault{Path: "/packages/wax", Status: http.StatusServiceUnavailable, Times: 1})
	if errs := install(t, h, step); !strings.Contains(errs[0], "w.yaml:7: cannot download http://") || !strings.Contains(errs[0], "503") {
		t.Fatalf("install = %q, want status 503", errs)
	}
	if n := fileSize(part); n != 40 {
		t.Fatalf("the partial download has %d bytes, want 40", n)
	}
	before := o.RequestCount("/packages/wax")
	if errs := install(t, h, step); errs[0] != "" || runWorker(t, h, "w") != "1" || o.RequestCount("/packages/wax") != before+1 {
		t.Errorf("the next install = %q with %d requests, want success with 1", errs, o.RequestCount("/packages/wax")-before)
	}
	// The connection breaks once.
	two := o.pythonWorker("w", "2", nil)
	o.AddFault(origintest.Fault{Path: "/packages/w-2", Cut: 40, Times: 1})
	if errs := install(t, h, two); errs[0] != "" || runWorker(t, h, "w") != "2" {
		t.Errorf("install with a broken connection = %q, want success", errs)
	}
	// A partial download with other content, shorter or longer than the artifact.
	for version, size := range map[string]int{"3": 40, "4": 1 << 20} {
		step := o.pythonWorker("w", version, nil)
		part := filepath.Join(h.Path(wire.DownloadDir), step.Worker.Steps[0].Python.Wheels[0].SHA256+partSuffix)
		if err := os.MkdirAll(filepath.Dir(part), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(part, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if errs := install(t, h, step); errs[0] != "" || runWorker(t, h, "w") != version {
			t.Errorf("install with an invalid partial download of %d bytes = %q, want success", size, errs)
		}
	}
}

// TestRollback checks that a rollback restores an intact previous version, and that a second
// rollback undoes the first.
func TestRollback(t *testing.T) {
	t.Parallel()
	h, o := newHive(t), newOrigin(t)
	rollback := wire.Step{Action: wire.ActionRollback, Worker: &wire.WorkerInstall{Type: "w"}}
	if errs := install(t, h, rollback); !strings.Contains(errs[0], "not installed by rbee") {
		t.Errorf("rollback of a missing worker = %q, want not installed by rbee", errs)
	}
	if errs := install(t, h, o.pythonWorker("w", "1", nil), rollback); !strings.Contains(errs[1], "cannot roll back worker type w 1: no previous version") {
		t.Errorf("rollback of the only version = %q, want no previous version", errs)
	}
	if errs := install(t, h, o.pythonWorker("w", "2", nil)); errs[0] != "" {
		t.Fatalf("install() = %q, want no errors", errs)
	}
	for _, want := range []string{"1", "2", "1"} {
		if errs := install(t, h, rollback); errs[0] != "" || runWorker(t, h, "w") != want {
			t.Errorf("rollback to %s = %q, want success", want, errs)
		}
	}
	// The version is still on the hive, so its install needs no download.
	before := o.RequestCount("/")
	if errs := install(t, h, o.steps["w 2"]); errs[0] != "" || runWorker(t, h, "w") != "2" || o.RequestCount("/") != before {
		t.Errorf("install of a kept version = %q with %d requests, want success without a request", errs, o.RequestCount("/")-before)
	}
	if err := os.Remove(filepath.Join(h.BuildDir("w", "1"), "payload/venv/bin/serve")); err != nil {
		t.Fatal(err)
	}
	if errs := install(t, h, rollback); !strings.Contains(errs[0], "cannot roll back worker type w: version 1 is damaged") || runWorker(t, h, "w") != "2" {
		t.Errorf("rollback to a damaged version = %q, want an error", errs)
	}
	// The install of the damaged version replaces it.
	if errs := install(t, h, o.steps["w 1"]); errs[0] != "" || runWorker(t, h, "w") != "1" {
		t.Errorf("install of a damaged version = %q, want success", errs)
	}
}

// TestCancelKillsUV checks that cancellation kills uv and its child processes.
func TestCancelKillsUV(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	st := &stage{stepRunner: &stepRunner{Installer: h.Installer}, dir: t.TempDir()}
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
	if err := st.runUV(ctx, script, "venv"); !errors.Is(err, context.Canceled) {
		t.Errorf("runUV() = %v, want context.Canceled", err)
	}
}
