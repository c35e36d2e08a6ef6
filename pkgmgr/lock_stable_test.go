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

// released is when the packages of a floorFleet were published.
var released = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// newFloorFleet is a fleet whose engine is a package that depends on llguidance, which
// has wheels for glibc 2.31 and newer only. glibc are the hives' versions.
func newFloorFleet(t *testing.T, glibc ...string) *lockFleet {
	t.Helper()
	f := newRecipeFleet(t, pythonRecipe)
	f.addTools("0.9.9", "20251120")
	f.addEngine("1.0", released, "llguidance>=1.7")
	f.origin.AddWheel(origintest.Wheel{
		Name: "llguidance", Version: "1.7", Uploaded: released, Tag: "cp39-abi3-manylinux_2_31_x86_64",
	})
	f.setGlibc(glibc...)
	return f
}

// addEngine publishes a version of the engine as a package with dates.
func (f *lockFleet) addEngine(version string, at time.Time, requires ...string) {
	f.origin.AddWheel(origintest.Wheel{
		Name: "engine", Version: version, Uploaded: at, Requires: requires, Scripts: map[string]string{"engine": "#!python\n"},
	})
}

// setGlibc makes the fleet have one hive for each version of glibc.
func (f *lockFleet) setGlibc(glibc ...string) {
	f.t.Helper()
	f.config, f.machines = echoFleet(len(glibc))
	for i := range f.config.Hives {
		h := &f.config.Hives[i]
		h.Workers = append(h.Workers, engineWish)
		f.machines[h.Alias].Edit(func(s *wire.State) { s.LibcVersion = glibc[i] })
	}
}

// floor is the glibc floor of the engine in the lock, as "oldest→glibc package…".
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

func (f *lockFleet) lockText() []byte {
	f.t.Helper()
	data, err := os.ReadFile(f.lock)
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

func blocks(r *operations.SyncReport) string {
	var all []string
	for _, b := range r.Plan.Blocked {
		all = append(all, b.Hive+" "+b.Reason)
	}
	return strings.Join(all, "; ")
}

// TestFloorOfTheFleet checks for which glibc packages are resolved, and which hives are
// blocked.
func TestFloorOfTheFleet(t *testing.T) {
	t.Parallel()
	const old = "llguidance needs glibc 2.31, this machine has 2.28"
	for name, tt := range map[string]struct {
		glibc  []string
		only   []string
		down   string
		floor  string
		blocks string
	}{
		"oldest machine":           {[]string{"2.39", "2.35"}, nil, "", "2.35→2.35", ""},
		"raised for a package":     {[]string{"2.39", "2.28"}, nil, "", "2.28→2.31 llguidance", "gpu-01 " + old},
		"all machines are too old": {[]string{"2.28", "2.28"}, nil, "", "2.28→2.31 llguidance", "gpu-00 " + old + "; gpu-01 " + old},
		"a part of the hives":      {[]string{"2.39", "2.35"}, []string{"gpu-00"}, "", "2.28→2.31 llguidance", ""},
		"an unreachable hive":      {[]string{"2.39", "2.35"}, nil, "gpu-01", "2.28→2.31 llguidance", ""},
		"an unreadable glibc":      {[]string{"2.39", "?"}, nil, "", "2.28→2.31 llguidance", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFloorFleet(t, tt.glibc...)
			if tt.down != "" {
				f.machines[tt.down].Unreachable = errors.New("connection refused")
			}
			r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Only = tt.only })
			if got := f.floor(); got != tt.floor {
				t.Errorf("floor = %q, want %q", got, tt.floor)
			}
			if got := blocks(r); got != tt.blocks {
				t.Errorf("blocked: %q, want %q", got, tt.blocks)
			}
			// A second sync changes nothing.
			before := f.lockText()
			again := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Only = tt.only })
			if len(again.Plan.Steps) != 0 || !bytes.Equal(before, f.lockText()) {
				t.Errorf("the second sync has steps %+v, lock %s", again.Plan.Steps, f.lockText())
			}
		})
	}
}

// TestLockIsStable checks that a lock stays byte for byte what it is for a part of the
// hives, with a hive that is away, and in the environment of another user.
func TestLockIsStable(t *testing.T) {
	for name, tt := range map[string]struct {
		env  map[string]string
		only []string
		down string
		opts plan.Options
	}{
		"a part of the hives":          {only: []string{"gpu-00"}},
		"an upgrade of a part":         {only: []string{"gpu-00"}, opts: plan.Options{Upgrade: true}},
		"an unreachable hive":          {down: "gpu-01"},
		"an upgrade without that hive": {down: "gpu-01", opts: plan.Options{Upgrade: true}},
		"forced":                       {opts: plan.Options{Force: true}},
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
				t.Fatalf("the lock has no floor 2.35: %s", want)
			}
			for name, value := range tt.env {
				t.Setenv(name, value)
				// Resolved again, from nothing.
				if err := os.Remove(f.lock); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				f.cache = t.TempDir()
			}
			if tt.down != "" {
				f.machines[tt.down].Unreachable = errors.New("connection refused")
			}
			f.sync(tt.opts, func(o *pkgmgr.Options) { o.Only = tt.only })
			if got := f.lockText(); !bytes.Equal(withoutTimes(t, got), withoutTimes(t, want)) {
				t.Errorf("lock = %s\nwant %s", got, want)
			}
		})
	}
}

// withoutTimes is a lock without the times at which versions were resolved.
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

// TestFloorFollowsTheConfig checks that a machine with an older glibc that joins the
// fleet is resolved for, and that one that cannot run the packages changes nothing
// from the second run on.
func TestFloorFollowsTheConfig(t *testing.T) {
	t.Parallel()
	f := newFloorFleet(t, "2.39", "2.36")
	f.sync(plan.Options{}, nil)
	f.setGlibc("2.39", "2.36", "2.33")
	status, lock := f.open(nil)
	status.Read(t.Context(), pkgmgr.ReadOptions{})
	if plan := status.Plan(t.Context(), plan.Options{}); len(plan.Blocked) != 0 && !strings.Contains(fmt.Sprint(plan.Blocked), "lock yet") {
		t.Errorf("status blocks %+v", plan.Blocked)
	}
	_ = lock
	if r := f.sync(plan.Options{}, nil); f.floor() != "2.33→2.33" || blocks(r) != "" {
		t.Errorf("floor = %s, blocked %s", f.floor(), blocks(r))
	}
	f.setGlibc("2.39", "2.36", "2.30")
	r := f.sync(plan.Options{}, nil)
	if f.floor() != "2.28→2.31 llguidance" || blocks(r) != "gpu-02 llguidance needs glibc 2.31, this machine has 2.30" {
		t.Errorf("floor = %s, blocked %s", f.floor(), blocks(r))
	}
	before, asked := f.lockText(), f.origin.Asked("/simple/")
	if f.sync(plan.Options{}, nil); !bytes.Equal(before, f.lockText()) || f.origin.Asked("/simple/") != asked {
		t.Errorf("%d further requests to the index, lock %s", f.origin.Asked("/simple/")-asked, f.lockText())
	}
}

// TestLatestWithoutSolution checks that a version which has no solution for any glibc is
// passed over, with a note, and that an index which fails is not taken for that.
func TestLatestWithoutSolution(t *testing.T) {
	t.Parallel()
	f := newFloorFleet(t, "2.39")
	f.addEngine("1.1", released, "cuda-tile>=1.6")
	f.addEngine("1.2", released, "cuda-tile>=1.6")
	var notes []string
	r := f.sync(plan.Options{}, func(o *pkgmgr.Options) {
		o.Events = func(e operations.Event) {
			if strings.HasPrefix(e.Message, "warning: ") {
				notes = append(notes, e.Message)
			}
		}
	})
	if v := f.version("gpu-00"); v != "1.0" {
		t.Fatalf("version = %q, blocked %s", v, blocks(r))
	}
	want := "warning: taking engine 1.0: cannot resolve the packages of engine 1.2 for linux/amd64 (glibc): cuda-tile was not found in the package registry, and neither has 1.1"
	if !slices.Contains(notes, want) {
		t.Errorf("notes = %q, want %q", notes, want)
	}

	// Only versions without a solution are left.
	f.config.Hives[0].Workers[1].Version = ">1.0"
	r = f.sync(plan.Options{}, nil)
	if !strings.Contains(blocks(r), "none of the newest 2 versions of engine has a solution: ") {
		t.Errorf("blocked: %s", blocks(r))
	}

	// An index that fails in the middle of it.
	f = newFloorFleet(t, "2.39")
	f.addEngine("1.1", released, "wax>=1")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1", Uploaded: released})
	f.origin.Break(origintest.Fault{Path: "/simple/wax/", Status: 500})
	r = f.sync(plan.Options{}, nil)
	if got := blocks(r); f.version("gpu-00") != "" || !strings.Contains(got, "500 Internal Server Error") || !strings.Contains(got, "/simple/wax/") {
		t.Errorf("version = %q, blocked: %s", f.version("gpu-00"), got)
	}
}

// TestReleaseDate checks that packages are chosen as of a version's release date, and
// what happens with an index that has no dates, or only some.
func TestReleaseDate(t *testing.T) {
	t.Parallel()
	later := released.AddDate(0, 1, 0)
	for name, tt := range map[string]struct {
		recipe   string // added to the python step
		index    func(f *lockFleet)
		wax      string // the version that is chosen
		warning  string
		html     bool
		noEngine bool // the engine's own upload date is missing
	}{
		"as of the release": {"", func(f *lockFleet) { f.addWax("1.0", released); f.addWax("2.0", later) }, "1.0", "", false, false},
		"never":             {`, exclude_newer: never`, func(f *lockFleet) { f.addWax("1.0", released); f.addWax("2.0", later) }, "2.0", "", false, false},
		"a date of the recipe": {`, exclude_newer: "2026-04-30"`, func(f *lockFleet) {
			f.addWax("1.0", released)
			f.addWax("2.0", later)
			f.addWax("3.0", later.AddDate(1, 0, 0))
		}, "2.0", "", false, false},
		"only new files have dates": {"", func(f *lockFleet) { f.addWax("0.9", released); f.addWax("1.0", time.Time{}); f.addWax("2.0", later) }, "2.0", "", false, false},
		"no dates":                  {"", func(f *lockFleet) { f.addWax("1.0", time.Time{}); f.addWax("2.0", time.Time{}) }, "2.0", "has no solution with the packages of its release date (2026-03-02): using today's packages", false, false},
		"no date of the version":    {"", func(f *lockFleet) { f.addWax("1.0", released); f.addWax("2.0", later) }, "2.0", "does not record the upload date of engine 1.0: using today's packages", false, true},
		"HTML":                      {"", func(f *lockFleet) { f.addWax("1.0", released); f.addWax("2.0", later) }, "2.0", "does not record the upload date of engine 1.0: using today's packages", true, false},
		"published before what it needs": {"", func(f *lockFleet) { f.addWax("2.0", later) }, "2.0",
			"has no solution with the packages of its release date (2026-03-02): using today's packages", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, strings.Replace(pythonRecipe, `"engine=={version}"]`, `"engine=={version}"]`+tt.recipe, 1))
			f.addTools("0.9.9", "20251120")
			at := released
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
				t.Fatalf("the lock has not %s; blocked %s\n%s", want, blocks(r), f.lockText())
			}
			if warned := strings.Join(notes, "\n"); tt.warning != "" && !strings.Contains(warned, tt.warning) || tt.warning == "" && strings.Contains(warned, "warning: ") {
				t.Errorf("warnings: %q, want %q", warned, tt.warning)
			}
		})
	}
}

func (f *lockFleet) addWax(version string, at time.Time) {
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: version, Uploaded: at})
}

// TestBadIndex checks what is reported of an index that does not answer as one.
func TestBadIndex(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ kind, body, want string }{
		"garbage":       {"application/vnd.pypi.simple.v1+json", `{"files": [`, "invalid response"},
		"another type":  {"text/plain", "hello", `invalid answer of type "text/plain": want a page of a package index`},
		"a login page":  {"text/html", "<html><body><p>Log in</p></body></html>", "the package index has no version latest of engine"},
		"not HTML":      {"text/html", "<<<", "cannot read the page as HTML"},
		"no files":      {"application/vnd.pypi.simple.v1+json", `{"files": []}`, "the package index has no version latest of engine"},
		"not a package": {"application/vnd.pypi.simple.v1+json", `[]`, "invalid response"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, pythonRecipe)
			f.addTools("0.9.9", "20251120")
			f.origin.Answer("/simple/", tt.kind, tt.body)
			r := f.sync(plan.Options{}, nil)
			if got := blocks(r); !strings.Contains(got, tt.want) {
				t.Errorf("blocked: %s, want %s", got, tt.want)
			}
		})
	}
}

// TestExtraIndexes checks the further keys of an environment: overrides, constraints
// and indexes, which are asked first and need no dates.
func TestExtraIndexes(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, pythonRecipe)
	index := f.origin.Index() + "/extra-{version}"
	f.setRecipe(strings.Replace(pythonRecipe, `"engine=={version}"]`,
		`"engine=={version}"], overrides: ["wax==1.0", "soot; sys_platform == 'never'"], constraints: ["comb<3"], indexes: [{ url: "`+index+`", packages: [comb] }]`, 1))
	f.addTools("0.9.9", "20251120")
	f.addEngine("1.0", released, "wax>=2", "soot", "comb")
	f.addWax("1.0", released)
	f.addWax("2.0", released)
	f.origin.AddWheel(origintest.Wheel{Name: "comb", Version: "9.0", Uploaded: released})
	for _, v := range []string{"2.0+local", "3.0"} {
		f.origin.AddWheel(origintest.Wheel{Name: "comb", Version: v, Torch: "extra-1.0"})
	}
	r := f.sync(plan.Options{}, nil)
	lock := string(f.lockText())
	for _, want := range []string{"/wax-1.0-py3", "/comb-2.0+local-py3", "/engine-1.0-py3"} {
		if !strings.Contains(lock, want) {
			t.Errorf("the lock has not %s; blocked %s", want, blocks(r))
		}
	}
	if strings.Contains(lock, "soot") {
		t.Errorf("the lock has soot: %s", lock)
	}
}

// TestTorchMirror checks that a mirror of PyTorch's indexes is asked in place of
// pytorch.org, and that its password is neither written nor sent.
func TestTorchMirror(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, strings.Replace(pythonRecipe, `"engine=={version}"]`, `"engine=={version}"], torch: cpu`, 1))
	f.addTools("0.9.9", "20251120")
	f.addEngine("1.0", released, "torch>=2")
	f.origin.AddWheel(origintest.Wheel{Name: "torch", Version: "3.0", Uploaded: released}) // newer than the mirror's
	f.origin.AddWheel(origintest.Wheel{Name: "torch", Version: "2.9+cpu", Torch: "cpu"})
	index := f.origin.Lock("me", "secret")
	var steps []wire.InstallStep
	f.sentSteps("gpu-00", &steps)
	r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Origins.PythonIndex, o.Origins.TorchIndex = index, index })
	if lock := string(f.lockText()); !strings.Contains(lock, "/torch-2.9+cpu-") || strings.Contains(lock, "secret") {
		t.Fatalf("lock = %s, blocked %s", lock, blocks(r))
	}
	if len(steps) != 1 {
		t.Fatalf("the hive got %d steps, want 1", len(steps))
	}
	for _, w := range steps[0].Python.Wheels {
		if w.URL != "" {
			t.Errorf("the hive got the address %s of %s, want none", w.URL, w.Name)
		}
	}
	// A mirror without the backend.
	f = newRecipeFleet(t, strings.Replace(pythonRecipe, `"engine=={version}"]`, `"engine=={version}"], torch: cu130`, 1))
	f.addTools("0.9.9", "20251120")
	f.addEngine("1.0", released, "torch>=2")
	r = f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Origins.TorchIndex = f.origin.Index() })
	if got := blocks(r); !strings.Contains(got, "the PyTorch index ") || !strings.Contains(got, "/simple/cu130 has no torch") {
		t.Errorf("blocked: %s", got)
	}
}

// TestLatestReleaseWithoutSolution checks that a release whose packages have no solution
// is passed over as well.
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
	f.addWax("1.0", released)
	release := func(version, requirements string) {
		f.origin.AddRelease("bees/engine", origintest.Release{Tag: "v" + version, Published: released, Code: origintest.TarGz(map[string]string{"engine-x/requirements.txt": requirements + "\n"})})
	}
	release("1.0", "wax")
	release("1.1", "soot")
	var notes []string
	r := f.sync(plan.Options{}, func(o *pkgmgr.Options) {
		o.Events = func(e operations.Event) { notes = append(notes, e.Message) }
	})
	if v := f.version("gpu-00"); v != "1.0" {
		t.Fatalf("version = %q, want 1.0; blocked %s", v, blocks(r))
	}
	const want = "bees/engine 1.1 has no solution (soot was not found in the package registry): taking 1.0"
	if !slices.Contains(notes, want) {
		t.Errorf("notes = %q, want %q", notes, want)
	}
}

// TestOldLockedUV checks that a locked uv that cannot exempt packages from a cutoff makes
// room for a newer one.
func TestOldLockedUV(t *testing.T) {
	t.Parallel()
	f := newFloorFleet(t, "2.39", "2.36") // with uv 0.9.9
	f.sync(plan.Options{}, nil)
	f.addTools("0.13.9", "20251120")
	f.setRecipe(strings.Replace(pythonRecipe, `"engine=={version}"]`, `"engine=={version}", llguidance]`, 1)) // resolved again
	f.sync(plan.Options{}, nil)
	for _, w := range f.load().Workers() {
		if w.Type == "uv" && w.Version != "0.13.9" {
			t.Errorf("uv %s is locked, want 0.13.9", w.Version)
		}
	}
}

// TestFloorOfOldLock checks that a lock without floors, as an earlier rbee writes it,
// still blocks machines that cannot run its wheels.
func TestFloorOfOldLock(t *testing.T) {
	t.Parallel()
	f := newFloorFleet(t, "2.39")
	f.sync(plan.Options{}, nil)
	f.editLock(func(l *lockText) {
		for _, s := range l.Sources {
			delete(s, "glibc")
		}
	})
	f.setGlibc("2.39", "2.28")
	if got := blocks(f.sync(plan.Options{}, nil)); !strings.Contains(got, "glibc 2.31, this machine has 2.28") {
		t.Errorf("blocked: %q, want gpu-01 for its glibc", got)
	}
}
