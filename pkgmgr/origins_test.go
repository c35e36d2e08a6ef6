package pkgmgr_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

func TestMain(m *testing.M) {
	origintest.Main() // some tests run the test binary as uv
	m.Run()
}

const codeRecipe = `type: engine
versions: { github: bees/engine, tag: "v{version}" }
sources:
  - name: any
    steps:
      - archive: { source_code: true, strip: 1 }
    entry: bin/engine
start: { args: [--port, "{port}"] }
ready: { path: /health }
`

const pythonRecipe = `type: engine
versions: { package: engine }
sources:
  - os: linux
    steps: [python: { version: "3.12", packages: ["engine=={version}"] }]
    entry: venv/bin/engine
start: { args: [--port, "{port}"] }
ready: { path: /health }
`

// publishCode publishes a release of the engine with source code, and returns the archive.
func (f *lockFleet) publishCode(content string) []byte {
	code := origintest.TarGz(map[string]string{"engine-1.0/bin/engine": content})
	f.origin.AddRelease("bees/engine", origintest.Release{Tag: "v1.0", Code: code})
	return code
}

// addWheel publishes a version of the engine as a Python package.
func (f *lockFleet) addWheel(version string) {
	f.origin.AddWheel(origintest.Wheel{
		Name: "engine", Version: version, Requires: []string{"wax>=1.0"}, Scripts: map[string]string{"engine": "#!python\n"},
	})
}

// addTools publishes uv and Python.
func (f *lockFleet) addTools(uv, python string) {
	exe, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	f.origin.AddToolVersions(exe, uv, python)
}

// recordSteps stores in steps the install steps of the engine that a hive receives.
func (f *lockFleet) recordSteps(hive string, steps *[]wire.InstallStep) {
	f.machines[hive].OnStep = func(s wire.Step) error {
		if s.Worker != nil && s.Worker.Type == "engine" {
			*steps = s.Worker.Steps
		}
		return nil
	}
}

// TestGeneratedArchive checks that source code is fetched with the token, and that hives get
// the locked archive even if the server generates a different one later.
func TestGeneratedArchive(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, codeRecipe)
	first := f.publishCode("#!/bin/sh\necho 1\n")
	f.origin.LimitRate("token")
	withToken := func(o *pkgmgr.Options) { o.Origins.GitHubToken = "token" }
	syncHive := func(hive string, edit func(*pkgmgr.Options)) *operations.SyncReport {
		return f.sync(plan.Options{}, func(o *pkgmgr.Options) { edit(o); o.Aliases = []string{hive} })
	}
	if r := syncHive("gpu-00", withToken); !bytes.Equal(f.machines["gpu-00"].Artifact("engine"), first) {
		t.Fatalf("sync of gpu-00: blocked %+v, reports %+v, want the engine installed", r.Plan.Blocked, r.Hives)
	}
	f.publishCode("#!/bin/sh\necho 2\n")
	if r := syncHive("gpu-01", func(*pkgmgr.Options) {}); !bytes.Equal(f.machines["gpu-01"].Artifact("engine"), first) {
		t.Errorf("sync of gpu-01: reports %+v, want the locked archive installed", r.Hives)
	}

	// With an empty cache, the errors contain the line of the recipe.
	f.cache = t.TempDir()
	for name, tt := range map[string]struct {
		options func(*pkgmgr.Options)
		want    string
	}{
		"without a token":   {func(*pkgmgr.Options) {}, "engine.yaml:6: rate limit of http"},
		"rate limit":        {func(*pkgmgr.Options) {}, "exceeded until"},
		"hint":              {func(*pkgmgr.Options) {}, ": set GITHUB_TOKEN"},
		"different content": {withToken, "engine.yaml:6: cannot fetch http"},
		"checksum":          {withToken, "its SHA-256 is"},
	} {
		f.machines["gpu-01"].Edit(func(s *wire.State) { s.Workers = nil })
		r := syncHive("gpu-01", tt.options)
		if failed := r.Hives[0].FailedSteps; len(failed) != 1 || !strings.Contains(failed[0].Error.Message, tt.want) {
			t.Errorf("%s: sync has failed steps %+v, want %q in the error", name, failed, tt.want)
		}
	}
}

// TestPushErrorsContainRecipeLine checks that an artifact that this machine cannot fetch for
// a hive is reported with the line of the recipe, as for an artifact that the hive fetches.
func TestPushErrorsContainRecipeLine(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	f.origin.AddFault(origintest.Fault{Path: "/download/", Status: 503})
	r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Push = true })
	for _, h := range r.Hives {
		if len(h.FailedSteps) != 1 || !strings.Contains(h.FailedSteps[0].Error.Message, "engine.yaml:5: cannot fetch http") {
			t.Errorf("%s: sync has failed steps %+v, want one with the line of the recipe", h.Alias, h.FailedSteps)
		}
	}
	// An interrupted download is continued. After a failure, the next hive tries again.
	f.origin.ClearFaults()
	f.origin.AddFault(origintest.Fault{Path: "/download/", Status: 503, Times: 1})
	f.origin.AddFault(origintest.Fault{Path: "/download/", Cut: 20})
	before := f.origin.RequestCount("/download/")
	r = f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Push, o.Parallel = true, 1 })
	if f.version("gpu-01") != "1.0" || len(r.Hives[0].FailedSteps) != 1 || f.origin.RequestCount("/download/") != before+3 {
		t.Errorf("sync: gpu-01 has engine %q after %d requests, reports %+v; want 1.0 after 3 requests, and one failure on gpu-00", f.version("gpu-01"), f.origin.RequestCount("/download/")-before, r.Hives)
	}
}

// TestIndexPassword checks that the password of the index is neither written to the lock nor
// sent to hives, and that this machine fetches the packages.
func TestIndexPassword(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, pythonRecipe)
	f.addTools("0.9.9", "20251120")
	f.addWheel("1.0")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.0"})
	index := f.origin.RequirePassword("me", "secret")
	var steps []wire.InstallStep
	f.recordSteps("gpu-00", &steps)
	r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Origins.PythonIndex = index })
	if len(steps) != 1 || f.version("gpu-00") != "1.0" {
		t.Fatalf("sync: blocked %+v, reports %+v, want the engine installed on gpu-00", r.Plan.Blocked, r.Hives)
	}
	if p := steps[0].Python; p.Wheels[0].URL != "" {
		t.Errorf("the hive got wheels %+v, want none with a URL", p.Wheels)
	}
	if text, err := os.ReadFile(f.lock); err != nil || bytes.Contains(text, []byte("secret")) || !bytes.Contains(text, []byte("/packages/engine-1.0")) {
		t.Errorf("the lock is %s, %v, want the URL of the engine without a password", text, err)
	}
}

// TestUpgradeIncludesTools checks that an upgrade of a worker type also upgrades the tools
// that install it, reports their upgrade, and does not change the packages.
func TestUpgradeIncludesTools(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, pythonRecipe)
	f.addTools("0.9.9", "20251120")
	f.addWheel("1.0")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.0"})
	f.sync(plan.Options{}, nil)
	f.addTools("0.10.0", "20251209")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.1"})
	var steps []wire.InstallStep
	f.recordSteps("gpu-00", &steps)
	upgrades := func(po plan.Options) string {
		var list []string
		for _, u := range f.sync(po, nil).Plan.Upgrades {
			list = append(list, fmt.Sprintf("%s %s-%s", u.Worker, u.From, u.To))
		}
		slices.Sort(list)
		return strings.Join(list, ", ")
	}
	if got := upgrades(plan.Options{}) + upgrades(plan.Options{Upgrade: true, UpgradeTypes: []string{"echo"}}); got != "" || len(steps) != 0 {
		t.Errorf("sync without an upgrade of the engine has upgrades %q, steps %+v, want none", got, steps)
	}
	const tools = "python 20251120-20251209, uv 0.9.9-0.10.0"
	if got := upgrades(plan.Options{Upgrade: true}); got != tools {
		t.Errorf("sync with Upgrade has upgrades %q, want %q", got, tools)
	}
	if len(steps) != 1 || steps[0].Python.UV.Version != "0.10.0" || steps[0].Python.Interpreter.Version != "20251209" {
		t.Fatalf("the hive got steps %+v, want one with uv 0.10.0 and Python 20251209", steps)
	}
	if w := steps[0].Python.Wheels; len(w) != 2 || w[1].Name != "wax-1.0-py3-none-any.whl" {
		t.Errorf("the hive got wheels %+v, want wax 1.0", w)
	}
	if plan, _ := f.plan(plan.Options{}); len(plan.Steps) != 0 {
		t.Errorf("Plan() after the upgrade has steps %+v, want none", plan.Steps)
	}
	f.addWheel("1.1")
	if got := upgrades(plan.Options{Upgrade: true, UpgradeTypes: []string{"engine"}}); got != "engine 1.0-1.1" || f.version("gpu-00") != "1.1" {
		t.Errorf("sync with Upgrade of the engine has upgrades %q, gpu-00 has engine %q, want 1.1", got, f.version("gpu-00"))
	}
}

// TestUpgradeWithoutReleaseAPI checks that an upgrade of packages only requires the index:
// the tools keep their versions if the release API is not available.
func TestUpgradeWithoutReleaseAPI(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, pythonRecipe)
	f.addTools("0.9.9", "20251120")
	f.addWheel("1.0")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.0"})
	f.sync(plan.Options{}, nil)
	f.addTools("0.10.0", "20251209")
	f.origin.LimitRate("token")
	var steps []wire.InstallStep
	f.recordSteps("gpu-00", &steps)
	for _, newest := range []string{"1.0", "1.1"} { // the installed version, and a newer one
		f.addWheel(newest)
		var notes []string
		before := f.origin.RequestCount("/api/")
		r := f.sync(plan.Options{Upgrade: true, UpgradeTypes: []string{"engine"}}, func(o *pkgmgr.Options) {
			o.Events = func(e operations.Event) {
				if strings.Contains(e.Message, "keeping ") {
					notes = append(notes, e.Message)
				}
			}
		})
		if f.version("gpu-00") != newest || f.version("gpu-01") != newest || len(r.Plan.Blocked) != 0 {
			t.Errorf("the hives have engines %s and %s, want %s; blocked %+v", f.version("gpu-00"), f.version("gpu-01"), newest, r.Plan.Blocked)
		}
		text := strings.Join(notes, "\n")
		if len(notes) != 2 || !strings.Contains(text, "keeping uv at 0.9.9: ") || !strings.Contains(text, "keeping python 3.12 at 20251120: ") || !strings.Contains(text, "rate limit of ") {
			t.Errorf("%s: sync emitted notes %q, want that uv and Python keep their versions", newest, notes)
		}
		if n := f.origin.RequestCount("/api/") - before; n != 2 {
			t.Errorf("%s: sync made %d requests to the release API, want 2", newest, n)
		}
	}
	if len(steps) != 1 || steps[0].Python.UV.Version != "0.9.9" || steps[0].Python.Interpreter.Version != "20251120" {
		t.Errorf("the hive got steps %+v, want one with uv 0.9.9 and Python 20251120", steps)
	}
}

// twoPythonsRecipe is a recipe that uses another version of Python on arm64.
var twoPythonsRecipe = strings.Replace(pythonRecipe, "sources:\n", `sources:
  - name: arm
    os: linux
    arch: arm64
    steps: [python: { version: "3.9", packages: ["engine=={version}"] }]
    entry: venv/bin/engine
`, 1)

// TestTwoPythons checks that each version of Python comes from the newest release that
// contains it, and is upgraded separately.
func TestTwoPythons(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, twoPythonsRecipe)
	f.addTools("0.9.9", "20251209") // without 3.9
	f.addWheel("1.0")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.0"})
	addPython := func(release string) {
		r := origintest.Release{Tag: release, Assets: map[string][]byte{}}
		for _, system := range []string{"x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"} {
			r.Assets["cpython-3.9.25+"+release+"-"+system+"-install_only_stripped.tar.gz"] = []byte(release)
		}
		f.origin.AddRelease("astral-sh/python-build-standalone", r)
	}
	addPython("20251031")
	f.machines["gpu-01"].Edit(func(s *wire.State) { s.Arch = "arm64" })
	pythons := func() string {
		var all []string
		for _, w := range f.load().Workers() {
			if w.Type == "python" {
				all = append(all, w.Requested+"="+w.Version)
			}
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	const both = "3.12=20251209 3.9=20251031"
	if r := f.sync(plan.Options{}, nil); len(r.Plan.Blocked) != 0 || pythons() != both {
		t.Fatalf("sync: the lock has Pythons %q, want %q; blocked %+v", pythons(), both, r.Plan.Blocked)
	}

	// Lock an earlier release that contains both.
	f.editLock(func(l *lockText) {
		for _, w := range l.Workers {
			if w["type"] == "python" && w["requested"] == "3.12" {
				w["version"] = "20251031"
			}
		}
		for _, s := range l.Sources {
			if s["type"] == "python" {
				s["version"] = "20251031"
			}
		}
	})
	if got := pythons(); got != "3.12=20251031 3.9=20251031" {
		t.Fatalf("the edited lock has Pythons %q, want 20251031 for both", got)
	}
	addPython("20251201")
	plan, _ := f.plan(plan.Options{Upgrade: true})
	var upgrades []string
	for _, u := range plan.Upgrades {
		upgrades = append(upgrades, u.Worker+" "+u.Requested+" "+u.To)
	}
	slices.Sort(upgrades)
	if got, want := strings.Join(upgrades, ", "), "python 3.12 20251209, python 3.9 20251201"; got != want {
		t.Errorf("Plan() with Upgrade has upgrades %q, want %q; blocked %+v", got, want, plan.Blocked)
	}
}

// TestLatestHasFilesOfVariants checks that the newest version is chosen that has the files
// of all variants that the hives need, and that a skipped version is reported.
func TestLatestHasFilesOfVariants(t *testing.T) {
	t.Parallel()
	recipe := strings.Replace(engineRecipe, "sources:\n", `sources:
  - name: cuda
    gpu: nvidia
    steps: [archive: { asset: "engine-{version}-cuda.tar.gz" }]
    entry: bin/engine
`, 1)
	recipe = strings.Replace(recipe, "engine-{version}-*", "engine-{version}-cpu", 1)
	add := func(f *lockFleet, version string, variants ...string) {
		r := origintest.Release{Tag: "v" + version, Assets: map[string][]byte{}}
		for _, v := range variants {
			r.Assets["engine-"+version+"-"+v+".tar.gz"] = []byte(version)
		}
		f.origin.AddRelease("bees/engine", r)
	}
	for name, tt := range map[string]struct {
		cuda       []bool // whether each hive has a GPU
		only       string
		want       string // version and notes
		constraint string // empty for the default
	}{
		"one hive needs CUDA": {[]bool{false, true}, "", "1.1; bees/engine 1.2 has no asset engine-1.2-cuda.tar.gz for gpu-01: using 1.1", ""},
		"all hives need CUDA": {[]bool{true, true}, "", "1.1; bees/engine 1.2 has no asset engine-1.2-cuda.tar.gz for gpu-00: using 1.1", ""},
		"no hive needs CUDA":  {[]bool{false, false}, "", "1.2", ""},
		"hive not selected":   {[]bool{false, true}, "gpu-00", "1.2", ""},
		"no version has CUDA": {[]bool{false, true}, "", "1.2; bees/engine 1.2 has no asset engine-1.2-cuda.tar.gz for gpu-01, and no earlier release has all required files", ">1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, recipe)
			add(f, "1.0", "cpu", "cuda")
			add(f, "1.1", "cpu", "cuda")
			add(f, "1.2", "cpu")
			for i, cuda := range tt.cuda {
				workers := f.config.Hives[i].Workers
				if tt.constraint != "" {
					workers[len(workers)-1].Version = tt.constraint
				}
				machine := f.machines[f.config.Hives[i].Alias]
				machine.Edit(func(s *wire.State) {
					s.DevicesKnown = true
					if cuda {
						s.Devices = []gpu.Device{{Vendor: "nvidia", Name: "RTX", Driver: "580"}}
					}
				})
			}
			var got []string
			fleet, lock := f.open(func(o *pkgmgr.Options) {
				if tt.only != "" {
					o.Aliases = []string{tt.only}
				}
				o.Events = func(e operations.Event) {
					if strings.HasPrefix(e.Message, "bees/engine") {
						got = append(got, e.Message)
					}
				}
			})
			fleet.Read(t.Context(), pkgmgr.ReadOptions{Devices: true})
			fleet.Plan(t.Context(), plan.Options{Fetch: true})
			for _, w := range lock.Workers() {
				got = slices.Insert(got, 0, w.Version)
			}
			if text := strings.Join(got, "; "); text != tt.want {
				t.Errorf("Plan() chose %s\nwant %s", text, tt.want)
			}
		})
	}
}

// TestBundleContainsSourceCode checks that a bundle contains artifacts that only this machine
// can fetch.
func TestBundleContainsSourceCode(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, codeRecipe)
	f.publishCode("#!/bin/sh\n")
	f.origin.LimitRate("token")
	withToken := func(o *pkgmgr.Options) { o.Origins.GitHubToken = "token" }
	f.sync(plan.Options{}, withToken)
	f.cache = t.TempDir()
	fleet, _ := f.open(withToken)
	fleet.Read(t.Context(), pkgmgr.ReadOptions{})
	if r, err := fleet.WriteBundle(t.Context(), filepath.Join(t.TempDir(), "fleet.rbee"), pkgmgr.BundleOptions{}); err != nil || r.Artifacts != 1 {
		t.Errorf("WriteBundle() = %+v, %v, want one artifact", r, err)
	}
}

// TestTwoPythonsOnOnePlatform checks that each version of Python gets its own interpreter in
// the lock.
func TestTwoPythonsOnOnePlatform(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, pythonRecipe)
	f.addTools("0.9.9", "20251120")
	f.addWheel("1.0")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.0"})
	r := origintest.Release{Tag: "20251209", Assets: map[string][]byte{}}
	for _, version := range []string{"3.12.12", "3.9.25"} {
		r.Assets["cpython-"+version+"+20251209-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz"] = []byte(version)
	}
	f.origin.AddRelease("astral-sh/python-build-standalone", r)
	for _, version := range []string{"3.12", "3.9"} {
		f.setRecipe(strings.Replace(pythonRecipe, `version: "3.12"`, `version: "`+version+`"`, 1))
		if r := f.sync(plan.Options{}, nil); len(r.Plan.Blocked) != 0 {
			t.Fatalf("sync with Python %s: blocked %+v, want none", version, r.Plan.Blocked)
		}
		text, err := os.ReadFile(f.lock)
		if err != nil || !strings.Contains(string(text), `"cpython-`+version+".") {
			t.Errorf("the lock is %s, %v, want an interpreter for Python %s in it", text, err, version)
		}
	}
}
