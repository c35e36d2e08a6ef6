package install

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
)

// eachUV runs a test with a fake uv. If RBEE_TEST_UV is set to the path of a real uv, eachUV
// also runs the test with this uv and the python3 of this machine.
func eachUV(t *testing.T, test func(t *testing.T, h *Hive, o *origin)) {
	t.Run("fake", func(t *testing.T) {
		t.Parallel()
		test(t, newHive(t), newOrigin(t))
	})
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		uv := os.Getenv("RBEE_TEST_UV")
		if uv == "" {
			t.Skip("RBEE_TEST_UV is not set")
		}
		test(t, newHive(t), realOrigin(t, uv))
	})
}

// realOrigin returns an origin whose tools are a real uv and RBEE_TEST_PYTHON, which defaults
// to the python3 of this machine.
func realOrigin(t testing.TB, uv string) *origin {
	t.Helper()
	python := os.Getenv("RBEE_TEST_PYTHON")
	if python == "" {
		out, err := exec.Command("python3", "-c", "import sys, os; print(os.path.realpath(sys.executable))").Output()
		if err != nil {
			t.Skipf("no python3: %v", err)
		}
		python = strings.TrimSpace(string(out))
	}
	o := &origin{Server: origintest.New(t), t: t, steps: map[string]wire.Step{}}
	o.AddRelease("astral-sh/uv", origintest.Release{Tag: "1", Assets: map[string][]byte{
		"uv.tar.gz":     programTar(t, "uv/uv", uv),
		"python.tar.gz": programTar(t, "python/bin/python3", python),
	}})
	const base = "/download/astral-sh/uv/1/"
	o.uv = wire.Tool{Name: "uv", Version: "1", Format: wire.FormatTarGz, Strip: 1, Entry: "uv", Artifact: o.artifact(base + "uv.tar.gz")}
	o.python = wire.Tool{Name: "cpython", Version: "3", Format: wire.FormatTarGz, Strip: 1, Entry: "bin/python3", Artifact: o.artifact(base + "python.tar.gz")}
	return o
}

// programTar returns a .tar.gz archive that contains the program at path as name.
func programTar(t testing.TB, name, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	err = w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))})
	if err == nil {
		_, err = w.Write(data)
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// sitePath returns the path of a file in site-packages of an installed worker type.
func sitePath(t *testing.T, h *Hive, typ, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(h.BuildDir(typ, h.EntryBuild(typ)), "payload/venv/lib/python*/site-packages", name))
	if err != nil || len(found) != 1 {
		t.Fatalf("files %s of worker %s = %v (%v), want one", name, typ, found, err)
	}
	return found[0]
}

// cacheState returns the names of the wheels in the cache and the number of unpacked wheels.
func cacheState(t *testing.T, h *Hive) (wheels []string, archives int) {
	t.Helper()
	records, _ := filepath.Glob(h.Path(installed.WheelsDir + "/*/" + installed.UnpackedName))
	for _, r := range records {
		found, _ := filepath.Glob(filepath.Join(filepath.Dir(r), "*.whl"))
		if len(found) != 1 || fileSize(found[0]) != 0 {
			t.Errorf("wheels in the directory of %s = %v, want one empty file", r, found)
			continue
		}
		wheels = append(wheels, filepath.Base(found[0]))
	}
	return wheels, len(h.cache().archives())
}

// mustInstall applies steps and fails the test if a step fails.
func mustInstall(t *testing.T, h *Hive, steps ...wire.Step) {
	t.Helper()
	for i, e := range install(t, h, steps...) {
		if e != "" {
			t.Fatalf("install step %d returned error %q, want none", i, e)
		}
	}
}

// removal returns a step that removes a worker type.
func removal(typ string) wire.Step {
	return wire.Step{Action: wire.ActionRemoveWorker, Worker: &wire.WorkerInstall{Type: typ}}
}

func TestEnvironmentsShareWheels(t *testing.T) {
	t.Parallel()
	eachUV(t, func(t *testing.T, h *Hive, o *origin) {
		h.Root = filepath.Join(h.User, "a, b %20#?c")
		one, two := o.pythonWorker("one", "1.0", nil), o.pythonWorker("two", "1.0", nil)
		before := o.RequestCount("/packages/wax")
		mustInstall(t, h, one)
		mustInstall(t, h, two)
		if n := o.RequestCount("/packages/wax") - before; n != 1 {
			t.Errorf("downloads of the common wheel = %d, want 1", n)
		}
		if wheels, archives := cacheState(t, h); len(wheels) != 3 || archives != 3 {
			t.Errorf("the cache contains wheels %v and %d archives, want 3 of each", wheels, archives)
		}
		for _, name := range []string{"wax.py", "__pycache__/wax.*.pyc"} {
			if !sameFile(sitePath(t, h, "one", name), sitePath(t, h, "two", name)) {
				t.Errorf("%s is stored twice, want one file with two links", name)
			}
		}
		if one, two := runWorker(t, h, "one"), runWorker(t, h, "two"); one != "1.0" || two != "1.0" {
			t.Errorf("the workers print %q and %q, want 1.0", one, two)
		}

		// Python may write bytecode at any time.
		pyc := sitePath(t, h, "one", "__pycache__/wax.*.pyc")
		other := filepath.Join(filepath.Dir(pyc), "other.cpython-399.pyc")
		if err := errors.Join(os.Remove(pyc), os.WriteFile(other, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if w := h.Worker(t.Context(), "one", true); w.Corrupt != "" {
			t.Errorf("Worker(one).Corrupt after a change of bytecode = %q, want it empty", w.Corrupt)
		}
		if w := h.Worker(t.Context(), "two", true); w.Corrupt != "" || w.Bytes <= 40_000 {
			t.Errorf("Worker(two) = %+v, want an intact worker of more than 40000 bytes", w)
		}
	})
}

func TestImportKeepsBytecode(t *testing.T) {
	t.Parallel()
	uv := os.Getenv("RBEE_TEST_UV")
	if uv == "" {
		t.Skip("RBEE_TEST_UV is not set")
	}
	h, o := newHive(t), realOrigin(t, uv)
	module := func(w *origintest.Wheel, _ *wire.InstallStep) {
		w.Files = map[string]string{"comb.py": "print('imported')\n", "broken.py": "print 'Python 2'\n"}
	}
	mustInstall(t, h, o.pythonWorker("one", "1.0", module), o.pythonWorker("two", "1.0", module))
	for _, typ := range []string{"one", "two"} {
		pyc := sitePath(t, h, typ, "__pycache__/comb.*.pyc")
		before, err := os.Stat(pyc)
		if err != nil {
			t.Fatal(err)
		}
		python := filepath.Join(h.BuildDir(typ, "1.0"), "payload/venv/bin/python")
		if out, err := exec.Command(python, "-c", "import comb").CombinedOutput(); err != nil || string(out) != "imported\n" {
			t.Errorf("%s: import of comb = %q (%v), want imported", typ, out, err)
		}
		after, err := os.Stat(sitePath(t, h, typ, "__pycache__/comb.*.pyc"))
		if err != nil || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
			t.Errorf("%s: the import rewrote the bytecode (%v), want the file unchanged", typ, err)
		}
		if w := h.Worker(t.Context(), typ, true); w.Corrupt != "" {
			t.Errorf("Worker(%s).Corrupt = %q, want it empty", typ, w.Corrupt)
		}
	}
}

// TestDamagedCacheIsReplaced checks that an install replaces cached files that were modified
// through the hard links of an environment.
func TestDamagedCacheIsReplaced(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(string) error{
		"content": func(path string) error { return os.WriteFile(path, []byte("honey"), 0o600) },
		"mode":    func(path string) error { return os.Chmod(path, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachUV(t, func(t *testing.T, h *Hive, o *origin) {
				one, two := o.pythonWorker("one", "1.0", nil), o.pythonWorker("two", "1.0", nil)
				wheels, tools := o.RequestCount("/packages/wax"), o.RequestCount("astral-sh")
				mustInstall(t, h, one)
				if err := damage(sitePath(t, h, "one", "wax.py")); err != nil {
					t.Fatal(err)
				}
				mustInstall(t, h, two)
				if n := o.RequestCount("/packages/wax") - wheels; n != 2 {
					t.Errorf("downloads of the damaged wheel = %d, want 2", n)
				}
				if n := o.RequestCount("astral-sh") - tools; n != 2 {
					t.Errorf("downloads of the two tools = %d, want 2", n)
				}
				if got, err := os.ReadFile(sitePath(t, h, "two", "wax.py")); err != nil || !strings.HasPrefix(string(got), "# wax wax") {
					t.Errorf("wax.py of the second environment starts with %.20q (%v), want the original content", got, err)
				}
				if w := h.Worker(t.Context(), "one", true); !strings.Contains(w.Corrupt, "wax.py") {
					t.Errorf("Worker(one) = %+v, want wax.py corrupt", w)
				}
				mustInstall(t, h, one)
				if w := h.Worker(t.Context(), "one", true); w.Corrupt != "" {
					t.Errorf("Worker(one).Corrupt after the repair = %q, want it empty", w.Corrupt)
				}
			})
		})
	}
}

// TestUnusableCacheIsReplaced checks that wheels are downloaded again if files of the cache
// are missing, or if another version of uv does not find them.
func TestUnusableCacheIsReplaced(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(h *Hive) error{
		"other layout": func(h *Hive) error {
			return errors.Join(os.RemoveAll(h.Path(uvCacheDir+"/wheels-v8")), os.RemoveAll(h.Path(uvCacheDir+"/wheels-v5")))
		},
		"missing archives": func(h *Hive) error {
			for _, a := range h.cache().archives() {
				if err := os.RemoveAll(filepath.Join(h.Path(uvCacheDir), a)); err != nil {
					return err
				}
			}
			return nil
		},
		"missing file of an archive": func(h *Hive) error {
			found, err := filepath.Glob(filepath.Join(h.Path(uvCacheDir), archivesGlob, "*", "wax.py"))
			if err != nil || len(found) != 1 {
				return errors.Join(err, fmt.Errorf("found %v, want one wax.py", found))
			}
			return os.Remove(found[0])
		},
		"missing cache of uv": func(h *Hive) error { return os.RemoveAll(h.Path(uvCacheDir)) },
		"missing cache":       func(h *Hive) error { return os.RemoveAll(h.Path(wire.CacheDir)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachUV(t, func(t *testing.T, h *Hive, o *origin) {
				one, two := o.pythonWorker("one", "1.0", nil), o.pythonWorker("two", "1.0", nil)
				mustInstall(t, h, one)
				if err := damage(h); err != nil {
					t.Fatal(err)
				}
				mustInstall(t, h, two)
				for _, typ := range []string{"one", "two"} {
					if w := h.Worker(t.Context(), typ, true); w.Corrupt != "" || runWorker(t, h, typ) != "1.0" {
						t.Errorf("Worker(%s) = %+v, want an intact worker that prints 1.0", typ, w)
					}
				}
				three := o.pythonWorker("three", "1.0", nil)
				before := o.RequestCount("/packages/wax")
				mustInstall(t, h, three)
				if n := o.RequestCount("/packages/wax") - before; n != 0 {
					t.Errorf("downloads of the wheel with a repaired cache = %d, want 0", n)
				}
			})
		})
	}
}

// TestCacheIsCleaned checks that the cache contains only the wheels of the existing builds.
func TestCacheIsCleaned(t *testing.T) {
	t.Parallel()
	eachUV(t, func(t *testing.T, h *Hive, o *origin) {
		check := func(when string, want ...string) {
			t.Helper()
			wheels, archives := cacheState(t, h)
			have := map[string]bool{}
			for _, w := range wheels {
				parts := strings.Split(w, "-")
				have[parts[0]+" "+parts[1]] = true
			}
			for _, w := range want {
				if !have[w] {
					t.Errorf("%s: the cache contains %v, want also %s", when, wheels, w)
				}
			}
			if len(wheels) != len(want) || archives != len(want) {
				t.Errorf("%s: the cache contains %d wheels and %d archives, want %d of each", when, len(wheels), archives, len(want))
			}
		}
		mustInstall(t, h, o.pythonWorker("w", "1", nil), o.pythonWorker("v", "1", nil))
		check("after two installs", "w 1", "v 1", "wax 1")
		mustInstall(t, h, o.pythonWorker("w", "2", nil))
		check("with a previous version", "w 1", "w 2", "v 1", "wax 1", "wax 2")
		mustInstall(t, h, o.pythonWorker("w", "3", nil))
		check("after the removal of the first version", "w 2", "w 3", "v 1", "wax 1", "wax 2", "wax 3")
		mustInstall(t, h, removal("w"))
		check("after a removal", "v 1", "wax 1")
		if w := h.Worker(t.Context(), "v", true); w.Corrupt != "" {
			t.Errorf("Worker(v).Corrupt = %q, want it empty", w.Corrupt)
		}
		mustInstall(t, h, removal("v"))
		if _, err := os.Stat(h.Path(wire.CacheDir)); err == nil {
			t.Errorf("after the removal of all workers, the cache exists, want it removed:\n%s", treeText(t, h.Path(wire.CacheDir)))
		}
	})
}

// TestKilledInstallKeepsCacheConsistent checks that the run after a killed run cleans up and
// uses the cache.
func TestKilledInstallKeepsCacheConsistent(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"received", "staged", "complete", "renamed", "linked"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h, o := newHive(t), newOrigin(t)
			mustInstall(t, h, self(t, h), o.pythonWorker("w", "1", nil))
			two := o.pythonWorker("w", "2", nil)
			killAt(t, h, h.Path(wire.Binary), point, two)
			if w := h.Worker(t.Context(), "w", true); w == nil || w.Corrupt != "" {
				t.Fatalf("Worker() after the kill = %+v, want an intact worker", w)
			}
			mustInstall(t, h, two)
			if wheels, archives := cacheState(t, h); len(wheels) != 4 || archives != 4 || runWorker(t, h, "w") != "2" {
				t.Errorf("after the next run, the cache contains wheels %v and %d archives, want 4 of each", wheels, archives)
			}
		})
	}
}

// TestEntryIsNotShared checks that making a program executable does not change the file in
// other environments.
func TestEntryIsNotShared(t *testing.T) {
	t.Parallel()
	h, o := newHive(t), newOrigin(t)
	one, two := o.pythonWorker("one", "1.0", nil), o.pythonWorker("two", "1.0", nil)
	const name = "lib/python3.12/site-packages/wax.py"
	two.Worker.Entry = "venv/" + name
	mustInstall(t, h, one, two)
	first, second := sitePath(t, h, "one", "wax.py"), sitePath(t, h, "two", "wax.py")
	info, err := os.Stat(first)
	if err != nil || info.Mode().Perm() != 0o644 || sameFile(first, second) {
		t.Errorf("wax.py of the other environment has mode %v (%v), want a separate file with 0644", info.Mode(), err)
	}
	mustInstall(t, h, o.pythonWorker("three", "1.0", nil))
	for _, typ := range []string{"one", "two", "three"} {
		if w := h.Worker(t.Context(), typ, true); w.Corrupt != "" {
			t.Errorf("Worker(%s).Corrupt = %q, want it empty", typ, w.Corrupt)
		}
	}
}

func TestRequirement(t *testing.T) {
	t.Parallel()
	h := connect("/home/rbee", "", "")
	for name, want := range map[string]string{
		"numpy-2.5.5-cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl": "numpy==2.5.5",
		"torch-2.11.0+cu128-cp312-cp312-linux_x86_64.whl":                         "torch==2.11.0+cu128",
		"ruamel.yaml-0.18-1build-py3-none-any.whl":                                "ruamel.yaml==0.18",
		"x-1!2.0rc1-py3-none-any.whl":                                             "x==1!2.0rc1",
		"x-1.0.tar.gz":                                                            "/home/rbee/cache/wheels/ab/x-1.0.tar.gz",
	} {
		if got := h.cache().requirement(&wire.Artifact{Name: name, SHA256: "AB"}); got != want {
			t.Errorf("requirement(%q) = %q, want %q", name, got, want)
		}
	}
}

// BenchmarkEnvironment installs the wheels in the directory RBEE_BENCH_WHEELS as two workers,
// with the uv in RBEE_TEST_UV, and removes them. It reports the time and the disk space of
// each step. RBEE_BENCH_DIR sets the parent directory of the temporary files.
func BenchmarkEnvironment(b *testing.B) {
	uv, wheels := os.Getenv("RBEE_TEST_UV"), os.Getenv("RBEE_BENCH_WHEELS")
	if uv == "" || wheels == "" {
		b.Skip("RBEE_TEST_UV or RBEE_BENCH_WHEELS is not set")
	}
	top := os.Getenv("RBEE_BENCH_DIR")
	if top == "" {
		top = b.TempDir()
	}
	files := httptest.NewServer(http.FileServer(http.Dir(wheels)))
	defer files.Close()
	o := realOrigin(b, uv)
	step := wire.InstallStep{Kind: wire.StepPython, Into: "venv", Python: &wire.Python{UV: o.uv, Interpreter: o.python}}
	names, err := filepath.Glob(filepath.Join(wheels, "*.whl"))
	if err != nil {
		b.Fatal(err)
	}
	for _, path := range names {
		sum, size, err := fetch.HashFile(path)
		if err != nil {
			b.Fatal(err)
		}
		name := filepath.Base(path)
		step.Python.Wheels = append(step.Python.Wheels, wire.Artifact{Name: name, URL: files.URL + "/" + url.PathEscape(name), SHA256: sum, Size: size})
	}
	for b.Loop() {
		h := connect(filepath.Join(top, "rbee"), top, filepath.Join(top, "none"))
		run := func(metric string, s wire.Step) {
			before := diskUsed(b, h.Root)
			start := time.Now()
			longest := longestSilence(b, h, s)
			b.ReportMetric(time.Since(start).Seconds(), metric+"-s")
			b.ReportMetric(longest.Seconds(), metric+"-silent-s")
			b.ReportMetric(float64(diskUsed(b, h.Root)-before)/(1<<20), metric+"-MiB")
		}
		for i, metric := range []string{"cold", "warm"} {
			run(metric, wire.Step{Action: wire.ActionInstallWorker, Worker: &wire.WorkerInstall{
				Type: "w" + strconv.Itoa(i), Version: "1", Steps: []wire.InstallStep{step}, Entry: "venv/bin/python",
			}})
		}
		for i := range 2 {
			run("remove"+strconv.Itoa(i), removal("w"+strconv.Itoa(i)))
		}
	}
}

// diskUsed returns the disk space of a directory in bytes. It counts hard links once, as du
// does.
func diskUsed(b *testing.B, dir string) (used int64) {
	b.Helper()
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[st.Ino] {
			seen[st.Ino] = true
			used += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return used
}

// longestSilence applies a step and returns the longest time between two messages.
func longestSilence(b *testing.B, h *Hive, step wire.Step) (longest time.Duration) {
	b.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- h.Apply(b.Context(), inR, outW) }()
	if err := wire.WriteRequest(inW, &wire.Request{Schema: wire.Schema, Owner: "bench", Steps: []wire.Step{step}}); err != nil {
		b.Fatal(err)
	}
	last, phase := time.Now(), wire.Phase("")
	for r := wire.NewReader(outR); ; {
		var m wire.Message
		if err := r.Read(&m); err != nil {
			b.Fatal(err)
		}
		longest = max(longest, time.Since(last))
		last = time.Now()
		if m.Progress != nil && m.Progress.Phase != phase {
			phase = m.Progress.Phase
			b.Logf("%s %s: %+v", last.Format("05.0"), step.Worker.Type, *m.Progress)
		}
		if m.Result != nil {
			if err := <-done; err != nil || m.Result.Errors[0] != "" {
				b.Fatalf("Apply() = %v, errors %q, want none", err, m.Result.Errors)
			}
			return longest
		}
	}
}
