package pkgmgr_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// releaseDate is the upload date of the packages in these tests.
var releaseDate = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newFloorFleet returns a fleet with one hive for each version of glibc. Its engine is a Python
// package that depends on llguidance, which has wheels only for glibc 2.31 and newer.
func newFloorFleet(t *testing.T, glibc ...string) *lockFleet {
	t.Helper()
	f := newRecipeFleet(t, pythonRecipe)
	f.addTools("0.9.9", "20251120")
	f.addEngine("1.0", releaseDate, "llguidance>=1.7")
	f.origin.AddWheel(origintest.Wheel{
		Name: "llguidance", Version: "1.7", Uploaded: releaseDate, Tag: "cp39-abi3-manylinux_2_31_x86_64",
	})
	f.setGlibc(glibc...)
	return f
}

// addEngine publishes a version of the engine as a Python package with an upload date.
func (f *lockFleet) addEngine(version string, at time.Time, requires ...string) {
	f.origin.AddWheel(origintest.Wheel{
		Name: "engine", Version: version, Uploaded: at, Requires: requires, Scripts: map[string]string{"engine": "#!python\n"},
	})
}

// setGlibc replaces the hives of the fleet with one hive for each version of glibc.
func (f *lockFleet) setGlibc(glibc ...string) {
	f.t.Helper()
	f.config, f.machines = echoFleet(len(glibc))
	for i := range f.config.Hives {
		h := &f.config.Hives[i]
		h.Workers = append(h.Workers, engineWorker)
		f.machines[h.Alias].Edit(func(s *wire.State) { s.LibcVersion = glibc[i] })
	}
}

// floor returns the minimum glibc of the engine in the lock, as "oldest→glibc packages".
func (f *lockFleet) floor() string {
	f.t.Helper()
	data, err := os.ReadFile(f.lock)
	if err != nil {
		return "no lock"
	}
	var lock struct {
		Sources []lockfile.Source `json:"sources"`
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		f.t.Fatal(err)
	}
	for _, s := range lock.Sources {
		if s.Type == "engine" && s.Floor != nil {
			return strings.TrimSpace(s.Floor.Oldest + "→" + s.Floor.Glibc + " " + strings.Join(s.Floor.NeededBy, " "))
		}
	}
	return "no floor"
}

// lockText returns the content of the lock file.
func (f *lockFleet) lockText() []byte {
	f.t.Helper()
	data, err := os.ReadFile(f.lock)
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

// blockReasons formats the blocked hives as "hive reason; …".
func blockReasons(r *operations.SyncReport) string {
	var all []string
	for _, b := range r.Plan.Blocked {
		all = append(all, b.Hive+" "+b.Reason)
	}
	return strings.Join(all, "; ")
}

// TestGlibcFloor checks for which glibc the packages are resolved, and which hives are
// blocked.
func TestGlibcFloor(t *testing.T) {
	t.Parallel()
	const tooOld = "llguidance needs glibc 2.31, this machine has 2.28"
	for name, tt := range map[string]struct {
		glibc   []string
		only    []string
		down    string // unreachable hive
		floor   string
		blocked string
	}{
		"oldest machine":        {[]string{"2.39", "2.35"}, nil, "", "2.35→2.35", ""},
		"raised for a package":  {[]string{"2.39", "2.28"}, nil, "", "2.28→2.31 llguidance", "gpu-01 " + tooOld},
		"all machines too old":  {[]string{"2.28", "2.28"}, nil, "", "2.28→2.31 llguidance", "gpu-00 " + tooOld + "; gpu-01 " + tooOld},
		"subset of the hives":   {[]string{"2.39", "2.35"}, []string{"gpu-00"}, "", "2.28→2.31 llguidance", ""},
		"unreachable hive":      {[]string{"2.39", "2.35"}, nil, "gpu-01", "2.28→2.31 llguidance", ""},
		"unknown glibc version": {[]string{"2.39", "?"}, nil, "", "2.28→2.31 llguidance", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFloorFleet(t, tt.glibc...)
			if tt.down != "" {
				f.machines[tt.down].Unreachable = errors.New("connection refused")
			}
			r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Aliases = tt.only })
			if got := f.floor(); got != tt.floor {
				t.Errorf("sync: floor() = %q, want %q", got, tt.floor)
			}
			if got := blockReasons(r); got != tt.blocked {
				t.Errorf("sync: blocked %q, want %q", got, tt.blocked)
			}
			// A second sync changes nothing.
			before := f.lockText()
			again := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Aliases = tt.only })
			if len(again.Plan.Steps) != 0 || !bytes.Equal(before, f.lockText()) {
				t.Errorf("the second sync has steps %+v and lock %s, want no changes", again.Plan.Steps, f.lockText())
			}
		})
	}
}

// TestLockIsStable checks that the lock does not change in a sync of a subset of the hives,
// with an unreachable hive, or in the environment of another user.
func TestLockIsStable(t *testing.T) {
	for name, tt := range map[string]struct {
		env  map[string]string
		only []string
		down string
		opts plan.Options
	}{
		"subset of the hives":         {only: []string{"gpu-00"}},
		"upgrade of a subset":         {only: []string{"gpu-00"}, opts: plan.Options{Upgrade: true}},
		"unreachable hive":            {down: "gpu-01"},
		"upgrade with that hive down": {down: "gpu-01", opts: plan.Options{Upgrade: true}},
		"force":                       {opts: plan.Options{Force: true}},
		"another user": {env: map[string]string{
			"UV_OVERRIDE": "/nowhere", "UV_CONSTRAINT": "/nowhere", "UV_EXCLUDE_NEWER": "2001-01-01", "PIP_INDEX_URL": "http://127.0.0.1:1/", "VIRTUAL_ENV": "/nowhere",
			"UV_PRERELEASE": "allow", "UV_TORCH_BACKEND": "cpu",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFloorFleet(t, "2.39", "2.35")
			f.sync(plan.Options{}, nil)
			want := f.lockText()
			if !strings.Contains(string(want), `"glibc": "2.35"`) {
				t.Fatalf("the lock is %s, want the minimum glibc 2.35 in it", want)
			}
			for name, value := range tt.env {
				t.Setenv(name, value)
				// Resolve again, without lock and cache.
				if err := os.Remove(f.lock); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				f.cache = t.TempDir()
			}
			if tt.down != "" {
				f.machines[tt.down].Unreachable = errors.New("connection refused")
			}
			f.sync(tt.opts, func(o *pkgmgr.Options) { o.Aliases = tt.only })
			if got := f.lockText(); !bytes.Equal(withoutTimes(t, got), withoutTimes(t, want)) {
				t.Errorf("lockText() = %s\nwant %s", got, want)
			}
		})
	}
}

// withoutTimes returns the lock without the times at which versions were resolved.
func withoutTimes(t *testing.T, lock []byte) []byte {
	t.Helper()
	var out [][]byte
	for line := range bytes.Lines(lock) {
		if !bytes.Contains(line, []byte(`"resolved_at"`)) {
			out = append(out, line)
		}
	}
	return bytes.Join(out, nil)
}

// TestGlibcFloorFollowsConfig checks that the packages are resolved again if a machine with
// an older glibc is added. If that machine cannot run the packages, only the first run
// changes the lock.
func TestGlibcFloorFollowsConfig(t *testing.T) {
	t.Parallel()
	f := newFloorFleet(t, "2.39", "2.36")
	f.sync(plan.Options{}, nil)
	f.setGlibc("2.39", "2.36", "2.33")
	status, _ := f.open(nil)
	status.Read(t.Context(), pkgmgr.ReadOptions{})
	if plan := status.Plan(t.Context(), plan.Options{}); len(plan.Blocked) != 0 && !strings.Contains(fmt.Sprint(plan.Blocked), "locked yet") {
		t.Errorf("Plan() without Fetch is blocked by %+v, want only versions that are not locked", plan.Blocked)
	}
	if r := f.sync(plan.Options{}, nil); f.floor() != "2.33→2.33" || blockReasons(r) != "" {
		t.Errorf("sync: floor() = %s, blocked %s; want 2.33→2.33 and none", f.floor(), blockReasons(r))
	}
	f.setGlibc("2.39", "2.36", "2.30")
	r := f.sync(plan.Options{}, nil)
	if f.floor() != "2.28→2.31 llguidance" || blockReasons(r) != "gpu-02 llguidance needs glibc 2.31, this machine has 2.30" {
		t.Errorf("sync: floor() = %s, blocked %s; want 2.28→2.31 llguidance and gpu-02", f.floor(), blockReasons(r))
	}
	before, requests := f.lockText(), f.origin.RequestCount("/simple/")
	if f.sync(plan.Options{}, nil); !bytes.Equal(before, f.lockText()) || f.origin.RequestCount("/simple/") != requests {
		t.Errorf("the second sync made %d requests to the index and wrote lock %s, want none and no change", f.origin.RequestCount("/simple/")-requests, f.lockText())
	}
}

// TestLatestWithoutSolution checks that a version without a solution for any glibc is
// skipped with a note, and that a failing index is reported as an error instead.
func TestLatestWithoutSolution(t *testing.T) {
	t.Parallel()
	f := newFloorFleet(t, "2.39")
	f.addEngine("1.1", releaseDate, "cuda-tile>=1.6")
	f.addEngine("1.2", releaseDate, "cuda-tile>=1.6")
	var notes []string
	r := f.sync(plan.Options{}, func(o *pkgmgr.Options) {
		o.Events = func(e operations.Event) {
			if strings.HasPrefix(e.Message, "warning: ") {
				notes = append(notes, e.Message)
			}
		}
	})
	if v := f.version("gpu-00"); v != "1.0" {
		t.Fatalf("version(gpu-00) = %q, blocked %s; want 1.0", v, blockReasons(r))
	}
	want := "warning: using engine 1.0: cannot resolve the packages of engine 1.2 for linux/amd64 (glibc): cuda-tile was not found in the package registry; also no solution for 1.1"
	if !slices.Contains(notes, want) {
		t.Errorf("sync emitted notes %q, want %q", notes, want)
	}

	// All matching versions have no solution.
	f.config.Hives[0].Workers[1].Version = ">1.0"
	r = f.sync(plan.Options{}, nil)
	if !strings.Contains(blockReasons(r), "none of the newest 2 versions of engine has a solution: ") {
		t.Errorf("sync: blocked %s, want none of the newest 2 versions to have a solution", blockReasons(r))
	}

	// The index fails during the resolution.
	f = newFloorFleet(t, "2.39")
	f.addEngine("1.1", releaseDate, "wax>=1")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1", Uploaded: releaseDate})
	f.origin.AddFault(origintest.Fault{Path: "/simple/wax/", Status: 500})
	r = f.sync(plan.Options{}, nil)
	if got := blockReasons(r); f.version("gpu-00") != "" || !strings.Contains(got, "500 Internal Server Error") || !strings.Contains(got, "/simple/wax/") {
		t.Errorf("version(gpu-00) = %q, blocked %s; want none, blocked by the failed request", f.version("gpu-00"), got)
	}
}

// TestReleaseDate checks that the packages of a version are chosen by its release date, and
// which packages are chosen if the index does not have all upload dates.
func TestReleaseDate(t *testing.T) {
	t.Parallel()
	later := releaseDate.AddDate(0, 1, 0)
	for name, tt := range map[string]struct {
		recipe   string // added to the python step
		index    func(f *lockFleet)
		wax      string // expected version
		warning  string
		html     bool
		noEngine bool // the upload date of the engine is missing
	}{
		"release date": {"", func(f *lockFleet) { f.addWax("1.0", releaseDate); f.addWax("2.0", later) }, "1.0", "", false, false},
		"never":        {`, exclude_newer: never`, func(f *lockFleet) { f.addWax("1.0", releaseDate); f.addWax("2.0", later) }, "2.0", "", false, false},
		"date in the recipe": {`, exclude_newer: "2026-04-30"`, func(f *lockFleet) {
			f.addWax("1.0", releaseDate)
			f.addWax("2.0", later)
			f.addWax("3.0", later.AddDate(1, 0, 0))
		}, "2.0", "", false, false},
		"dates of new files only": {"", func(f *lockFleet) { f.addWax("0.9", releaseDate); f.addWax("1.0", time.Time{}); f.addWax("2.0", later) }, "2.0", "", false, false},
		"no dates":                {"", func(f *lockFleet) { f.addWax("1.0", time.Time{}); f.addWax("2.0", time.Time{}) }, "2.0", "has no solution with the packages of its release date (2026-03-02): using the newest packages", false, false},
		"no date of the version":  {"", func(f *lockFleet) { f.addWax("1.0", releaseDate); f.addWax("2.0", later) }, "2.0", "does not record the upload date of engine 1.0: using the newest packages", false, true},
		"HTML":                    {"", func(f *lockFleet) { f.addWax("1.0", releaseDate); f.addWax("2.0", later) }, "2.0", "does not record the upload date of engine 1.0: using the newest packages", true, false},
		"published before its dependency": {"", func(f *lockFleet) { f.addWax("2.0", later) }, "2.0",
			"has no solution with the packages of its release date (2026-03-02): using the newest packages", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, strings.Replace(pythonRecipe, `"engine=={version}"]`, `"engine=={version}"]`+tt.recipe, 1))
			f.addTools("0.9.9", "20251120")
			at := releaseDate
			if tt.noEngine {
				at = time.Time{}
			}
			f.addEngine("1.0", at, "wax")
			tt.index(f)
			if tt.html {
				f.origin.ServeHTML()
			}
			var notes []string
			r := f.sync(plan.Options{}, func(o *pkgmgr.Options) {
				o.Events = func(e operations.Event) { notes = append(notes, e.Message) }
			})
			if want := "/packages/wax-" + tt.wax + "-py3-none-any.whl"; !strings.Contains(string(f.lockText()), want) {
				t.Fatalf("sync: blocked %s, lock %s\nwant %s in it", blockReasons(r), f.lockText(), want)
			}
			if text := strings.Join(notes, "\n"); tt.warning != "" && !strings.Contains(text, tt.warning) || tt.warning == "" && strings.Contains(text, "warning: ") {
				t.Errorf("sync emitted notes %q, want warning %q", text, tt.warning)
			}
		})
	}
}

// addWax publishes a version of the package wax.
func (f *lockFleet) addWax(version string, at time.Time) {
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: version, Uploaded: at})
}

// TestInvalidIndex checks the errors for servers that are not a package index.
func TestInvalidIndex(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ contentType, body, want string }{
		"garbage":       {"application/vnd.pypi.simple.v1+json", `{"files": [`, "invalid response"},
		"content type":  {"text/plain", "hello", `invalid response of type "text/plain": want a package index page`},
		"login page":    {"text/html", "<html><body><p>Log in</p></body></html>", "the package index has no version of engine that satisfies latest"},
		"not HTML":      {"text/html", "<<<", "cannot parse HTML page"},
		"no files":      {"application/vnd.pypi.simple.v1+json", `{"files": []}`, "the package index has no version of engine that satisfies latest"},
		"not a package": {"application/vnd.pypi.simple.v1+json", `[]`, "invalid response"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, pythonRecipe)
			f.addTools("0.9.9", "20251120")
			f.origin.SetResponse("/simple/", tt.contentType, tt.body)
			r := f.sync(plan.Options{}, nil)
			if got := blockReasons(r); !strings.Contains(got, tt.want) {
				t.Errorf("sync: blocked %q, want %q in it", got, tt.want)
			}
		})
	}
}

// TestExtraIndexes checks the overrides, constraints and indexes of an environment, and that
// the indexes have precedence and do not require upload dates.
func TestExtraIndexes(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, pythonRecipe)
	index := f.origin.Index() + "/extra-{version}"
	f.setRecipe(strings.Replace(pythonRecipe, `"engine=={version}"]`,
		`"engine=={version}"], overrides: ["wax==1.0", "soot; sys_platform == 'never'"], constraints: ["comb<3"], indexes: [{ url: "`+index+`", packages: [comb] }]`, 1))
	f.addTools("0.9.9", "20251120")
	f.addEngine("1.0", releaseDate, "wax>=2", "soot", "comb")
	f.addWax("1.0", releaseDate)
	f.addWax("2.0", releaseDate)
	f.origin.AddWheel(origintest.Wheel{Name: "comb", Version: "9.0", Uploaded: releaseDate})
	for _, v := range []string{"2.0+local", "3.0"} {
		f.origin.AddWheel(origintest.Wheel{Name: "comb", Version: v, Torch: "extra-1.0"})
	}
	r := f.sync(plan.Options{}, nil)
	lock := string(f.lockText())
	for _, want := range []string{"/wax-1.0-py3", "/comb-2.0+local-py3", "/engine-1.0-py3"} {
		if !strings.Contains(lock, want) {
			t.Errorf("sync: blocked %s, lock %s\nwant %s in it", blockReasons(r), lock, want)
		}
	}
	if strings.Contains(lock, "soot") {
		t.Errorf("sync: lock %s, want no soot in it", lock)
	}
}

// TestTorchMirror checks that a mirror of PyTorch's indexes is used instead of pytorch.org,
// and that its password is neither written to the lock nor sent to hives.
func TestTorchMirror(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, strings.Replace(pythonRecipe, `"engine=={version}"]`, `"engine=={version}"], torch: cpu`, 1))
	f.addTools("0.9.9", "20251120")
	f.addEngine("1.0", releaseDate, "torch>=2")
	f.origin.AddWheel(origintest.Wheel{Name: "torch", Version: "3.0", Uploaded: releaseDate}) // newer than the mirror's
	f.origin.AddWheel(origintest.Wheel{Name: "torch", Version: "2.9+cpu", Torch: "cpu"})
	index := f.origin.RequirePassword("me", "secret")
	var steps []wire.InstallStep
	f.recordSteps("gpu-00", &steps)
	r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Origins.PythonIndex, o.Origins.TorchIndex = index, index })
	if lock := string(f.lockText()); !strings.Contains(lock, "/torch-2.9+cpu-") || strings.Contains(lock, "secret") {
		t.Fatalf("sync: blocked %s, lock %s\nwant torch 2.9+cpu and no password in it", blockReasons(r), lock)
	}
	if len(steps) != 1 {
		t.Fatalf("the hive got %d steps, want 1", len(steps))
	}
	for _, w := range steps[0].Python.Wheels {
		if w.URL != "" {
			t.Errorf("the hive got URL %s of %s, want none", w.URL, w.Name)
		}
	}
	// The mirror does not have the backend.
	f = newRecipeFleet(t, strings.Replace(pythonRecipe, `"engine=={version}"]`, `"engine=={version}"], torch: cu130`, 1))
	f.addTools("0.9.9", "20251120")
	f.addEngine("1.0", releaseDate, "torch>=2")
	r = f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Origins.TorchIndex = f.origin.Index() })
	if got := blockReasons(r); !strings.Contains(got, "the PyTorch index ") || !strings.Contains(got, "/simple/cu130 does not contain torch") {
		t.Errorf("sync: blocked %s, want the PyTorch index /simple/cu130 without torch", got)
	}
}

// TestLatestReleaseWithoutSolution checks that a release whose packages have no solution is
// skipped.
func TestLatestReleaseWithoutSolution(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, `type: engine
versions: { github: bees/engine, tag: "v{version}" }
sources:
  - os: linux
    steps:
      - archive: { source_code: true, strip: 1, into: app }
      - python: { version: "3.12", requirements: app/requirements.txt }
    entry: venv/bin/python
start: { args: [--port, "{port}"] }
ready: { path: /health }
`)
	f.addTools("0.13.9", "20251120")
	f.addWax("1.0", releaseDate)
	release := func(version, requirements string) {
		f.origin.AddRelease("bees/engine", origintest.Release{Tag: "v" + version, Published: releaseDate, Code: origintest.TarGz(map[string]string{"engine-x/requirements.txt": requirements + "\n"})})
	}
	release("1.0", "wax")
	release("1.1", "soot")
	var notes []string
	r := f.sync(plan.Options{}, func(o *pkgmgr.Options) {
		o.Events = func(e operations.Event) { notes = append(notes, e.Message) }
	})
	if v := f.version("gpu-00"); v != "1.0" {
		t.Fatalf("version(gpu-00) = %q, want 1.0; blocked %s", v, blockReasons(r))
	}
	const want = "bees/engine 1.1 has no solution (soot was not found in the package registry): using 1.0"
	if !slices.Contains(notes, want) {
		t.Errorf("sync emitted notes %q, want %q", notes, want)
	}
}

// TestOldLockedUV checks that a locked uv that cannot exempt packages from a cutoff date is
// replaced with a newer one.
func TestOldLockedUV(t *testing.T) {
	t.Parallel()
	f := newFloorFleet(t, "2.39", "2.36") // with uv 0.9.9
	f.sync(plan.Options{}, nil)
	f.addTools("0.13.9", "20251120")
	f.setRecipe(strings.Replace(pythonRecipe, `"engine=={version}"]`, `"engine=={version}", llguidance]`, 1)) // resolved again
	f.sync(plan.Options{}, nil)
	for _, w := range f.load().Workers() {
		if w.Type == "uv" && w.Version != "0.13.9" {
			t.Errorf("the lock has uv %s, want 0.13.9", w.Version)
		}
	}
}

// TestGlibcFloorOfOldLock checks that machines that cannot run the locked wheels are blocked
// even if an earlier rbee wrote the lock, without a minimum glibc.
func TestGlibcFloorOfOldLock(t *testing.T) {
	t.Parallel()
	f := newFloorFleet(t, "2.39")
	f.sync(plan.Options{}, nil)
	f.editLock(func(l *lockText) {
		for _, s := range l.Sources {
			delete(s, "glibc")
		}
	})
	f.setGlibc("2.39", "2.28")
	if got := blockReasons(f.sync(plan.Options{}, nil)); !strings.Contains(got, "glibc 2.31, this machine has 2.28") {
		t.Errorf("sync: blocked %q, want gpu-01 because of its glibc", got)
	}
}
