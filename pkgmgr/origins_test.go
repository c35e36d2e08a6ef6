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
	origintest.Main() // some tests run this very program as uv
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

func (f *lockFleet) publishCode(content string) []byte {
	code := origintest.TarGz(map[string]string{"engine-1.0/bin/engine": content})
	f.origin.AddRelease("bees/engine", origintest.Release{Tag: "v1.0", Code: code})
	return code
}

// addWheel publishes a version of the engine as a package.
func (f *lockFleet) addWheel(version string) {
	f.origin.AddWheel(origintest.Wheel{
		Name: "engine", Version: version, Requires: []string{"wax>=1.0"}, Scripts: map[string]string{"engine": "#!python\n"},
	})
}

func (f *lockFleet) addTools(uv, python string) {
	exe, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	f.origin.AddToolVersions(exe, uv, python)
}

// sentSteps notes the steps that a hive gets for its engine.
func (f *lockFleet) sentSteps(hive string, steps *[]wire.InstallStep) {
	f.machines[hive].OnStep = func(s wire.Step) error {
		if s.Worker != nil && s.Worker.Type == "engine" {
			*steps = s.Worker.Steps
		}
		return nil
	}
}

// TestGeneratedArchive holds that source code is asked for with the token, and that
// hives get the bytes that were locked although the server packs others by now.
func TestGeneratedArchive(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, codeRecipe)
	first := f.publishCode("#!/bin/sh\necho 1\n")
	f.origin.LimitRate("token")
	withToken := func(o *pkgmgr.Options) { o.Origins.GitHubToken = "token" }
	one := func(hive string, more func(*pkgmgr.Options)) *operations.SyncReport {
		return f.sync(plan.Options{}, func(o *pkgmgr.Options) { more(o); o.Only = []string{hive} })
	}
	if r := one("gpu-00", withToken); !bytes.Equal(f.machines["gpu-00"].Artifact("engine"), first) {
		t.Fatalf("%+v %+v", r.Plan.Blocked, r.Hives)
	}
	f.publishCode("#!/bin/sh\necho 2\n")
	if r := one("gpu-01", func(*pkgmgr.Options) {}); !bytes.Equal(f.machines["gpu-01"].Artifact("engine"), first) {
		t.Errorf("%+v", r.Hives)
	}

	// On a machine that never had it, what is wrong is said with the recipe's line.
	f.cache = t.TempDir()
	for name, k := range map[string]struct {
		options func(*pkgmgr.Options)
		want    string
	}{
		"without a token": {func(*pkgmgr.Options) {}, "engine.yaml:6: rate limit of http"},
		"limited":         {func(*pkgmgr.Options) {}, "exceeded until"},
		"what to do":      {func(*pkgmgr.Options) {}, ": set GITHUB_TOKEN"},
		"other bytes":     {withToken, "engine.yaml:6: fetching http"},
		"the sum":         {withToken, "its SHA-256 is"},
	} {
		f.machines["gpu-01"].Edit(func(s *wire.State) { s.Workers = nil })
		r := one("gpu-01", k.options)
		if failed := r.Hives[0].Failed; len(failed) != 1 || !strings.Contains(failed[0].Error.Message, k.want) {
			t.Errorf("%s: %+v", name, failed)
		}
	}
}

// TestPushNamesTheRecipesLine holds that what cannot be had for a hive is reported as
// the hive itself would.
func TestPushNamesTheRecipesLine(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.release("1.0")
	f.origin.Break(origintest.Fault{Path: "/download/", Status: 503})
	r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Push = true })
	for _, h := range r.Hives {
		if len(h.Failed) != 1 || !strings.Contains(h.Failed[0].Error.Message, "engine.yaml:5: fetching http") {
			t.Errorf("%+v", h.Failed)
		}
	}
	// What is cut goes on; what fails once does not fail for the next hive.
	f.origin.Mend()
	f.origin.Break(origintest.Fault{Path: "/download/", Status: 503, Times: 1})
	f.origin.Break(origintest.Fault{Path: "/download/", Cut: 20})
	asked := f.origin.Asked("/download/")
	r = f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Push, o.Parallel = true, 1 })
	if f.version("gpu-01") != "1.0" || len(r.Hives[0].Failed) != 1 || f.origin.Asked("/download/") != asked+3 {
		t.Errorf("%q, %+v, %d requests", f.version("gpu-01"), r.Hives, f.origin.Asked("/download/")-asked)
	}
}

// TestIndexPassword holds that the index's password is neither written nor sent to
// hives, and that what needs it is fetched here.
func TestIndexPassword(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, pythonRecipe)
	f.addTools("0.9.9", "20251120")
	f.addWheel("1.0")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.0"})
	index := f.origin.Lock("me", "secret")
	var steps []wire.InstallStep
	f.sentSteps("gpu-00", &steps)
	r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Origins.PythonIndex = index })
	if len(steps) != 1 || f.version("gpu-00") != "1.0" {
		t.Fatalf("%+v %+v", r.Plan.Blocked, r.Hives)
	}
	if p := steps[0].Python; p.Wheels[0].URL != "" {
		t.Errorf("the hive is told %+v", p.Wheels)
	}
	if text, err := os.ReadFile(f.lock); err != nil || bytes.Contains(text, []byte("secret")) || !bytes.Contains(text, []byte("/packages/engine-1.0")) {
		t.Errorf("%v:\n%s", err, text)
	}
}

// TestUpgradeMovesTools holds that an upgrade of a type moves the tools that it is
// installed with, says so, and leaves its packages as they are.
func TestUpgradeMovesTools(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, pythonRecipe)
	f.addTools("0.9.9", "20251120")
	f.addWheel("1.0")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.0"})
	f.sync(plan.Options{}, nil)
	f.addTools("0.10.0", "20251209")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.1"})
	var steps []wire.InstallStep
	f.sentSteps("gpu-00", &steps)
	upgrades := func(po plan.Options) string {
		var moved []string
		for _, u := range f.sync(po, nil).Plan.Upgrades {
			moved = append(moved, fmt.Sprintf("%s %s-%s", u.Worker, u.From, u.To))
		}
		slices.Sort(moved)
		return strings.Join(moved, ", ")
	}
	if got := upgrades(plan.Options{}) + upgrades(plan.Options{Upgrade: true, UpgradeTypes: []string{"echo"}}); got != "" || len(steps) != 0 {
		t.Errorf("moved %s", got)
	}
	const tools = "python 20251120-20251209, uv 0.9.9-0.10.0"
	if got := upgrades(plan.Options{Upgrade: true}); got != tools {
		t.Errorf("moved %s, want %s", got, tools)
	}
	if len(steps) != 1 || steps[0].Python.UV.Version != "0.10.0" || steps[0].Python.Interpreter.Version != "20251209" {
		t.Fatalf("%+v", steps)
	}
	if w := steps[0].Python.Wheels; len(w) != 2 || w[1].Name != "wax-1.0-py3-none-any.whl" {
		t.Errorf("%+v", w)
	}
	if plan, _ := f.plan(plan.Options{}); len(plan.Steps) != 0 {
		t.Errorf("%+v", plan.Steps)
	}
	f.addWheel("1.1")
	if got := upgrades(plan.Options{Upgrade: true, UpgradeTypes: []string{"engine"}}); got != "engine 1.0-1.1" || f.version("gpu-00") != "1.1" {
		t.Errorf("moved %s", got)
	}
}

// TestUpgradeWithoutTheReleaseAPI holds that an upgrade of packages needs the index
// only: tools that are known stay where nobody can be asked for newer ones.
func TestUpgradeWithoutTheReleaseAPI(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, pythonRecipe)
	f.addTools("0.9.9", "20251120")
	f.addWheel("1.0")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.0"})
	f.sync(plan.Options{}, nil)
	f.addTools("0.10.0", "20251209")
	f.origin.LimitRate("token")
	var steps []wire.InstallStep
	f.sentSteps("gpu-00", &steps)
	for _, newest := range []string{"1.0", "1.1"} { // what is there, and what is resolved anew
		f.addWheel(newest)
		var notes []string
		asked := f.origin.Asked("/api/")
		r := f.sync(plan.Options{Upgrade: true, UpgradeTypes: []string{"engine"}}, func(o *pkgmgr.Options) {
			o.Events = func(e operations.Event) {
				if strings.Contains(e.Message, "stays at") {
					notes = append(notes, e.Message)
				}
			}
		})
		if f.version("gpu-00") != newest || f.version("gpu-01") != newest || len(r.Plan.Blocked) != 0 {
			t.Errorf("%s, %s, want %s: %+v", f.version("gpu-00"), f.version("gpu-01"), newest, r.Plan.Blocked)
		}
		text := strings.Join(notes, "\n")
		if len(notes) != 2 || !strings.Contains(text, "uv stays at 0.9.9: ") || !strings.Contains(text, "python 3.12 stays at 20251120: ") || !strings.Contains(text, "rate limit of ") {
			t.Errorf("%s: noted %q", newest, notes)
		}
		if n := f.origin.Asked("/api/") - asked; n != 2 {
			t.Errorf("%s: the release API was asked %d times", newest, n)
		}
	}
	if len(steps) != 1 || steps[0].Python.UV.Version != "0.9.9" || steps[0].Python.Interpreter.Version != "20251120" {
		t.Errorf("%+v", steps)
	}
}

// twoPythons is a recipe that takes another Python for other machines.
var twoPythons = strings.Replace(pythonRecipe, "sources:\n", `sources:
  - name: arm
    os: linux
    arch: arm64
    steps: [python: { version: "3.9", packages: ["engine=={version}"] }]
    entry: venv/bin/engine
`, 1)

// TestTwoPythons holds that each version of Python is of the newest release that has
// it, and that each is upgraded on its own.
func TestTwoPythons(t *testing.T) {
	t.Parallel()
	f := newRecipeFleet(t, twoPythons)
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
		t.Fatalf("%s, %+v", pythons(), r.Plan.Blocked)
	}

	// An earlier release has both.
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
		t.Fatal(got)
	}
	addPython("20251201")
	plan, _ := f.plan(plan.Options{Upgrade: true})
	var moved []string
	for _, u := range plan.Upgrades {
		moved = append(moved, u.Worker+" "+u.Requested+" "+u.To)
	}
	slices.Sort(moved)
	if got := strings.Join(moved, ", "); got != "python 3.12 20251209, python 3.9 20251201" {
		t.Errorf("moved %s, blocked %+v", got, plan.Blocked)
	}
}

// TestLatestHasWhatIsChosen holds that a version is the newest that has the files of
// the variants which the hives get, and that one passed over is named.
func TestLatestHasWhatIsChosen(t *testing.T) {
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
	for name, k := range map[string]struct {
		cuda  []bool // the hives
		only  string
		want  string // version and notes
		wants string // how it is wished for
	}{
		"one needs it":  {[]bool{false, true}, "", "1.1; bees/engine 1.2 has no asset engine-1.2-cuda.tar.gz for gpu-01: taking 1.1", ""},
		"all need it":   {[]bool{true, true}, "", "1.1; bees/engine 1.2 has no asset engine-1.2-cuda.tar.gz for gpu-00: taking 1.1", ""},
		"nobody does":   {[]bool{false, false}, "", "1.2", ""},
		"out of scope":  {[]bool{false, true}, "gpu-00", "1.2", ""},
		"nobody has it": {[]bool{false, true}, "", "1.2; bees/engine 1.2 has no asset engine-1.2-cuda.tar.gz for gpu-01, and neither has a release before it all that is needed", ">1.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newRecipeFleet(t, recipe)
			add(f, "1.0", "cpu", "cuda")
			add(f, "1.1", "cpu", "cuda")
			add(f, "1.2", "cpu")
			for i, cuda := range k.cuda {
				workers := f.config.Hives[i].Workers
				if k.wants != "" {
					workers[len(workers)-1].Version = k.wants
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
				if k.only != "" {
					o.Only = []string{k.only}
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
			if text := strings.Join(got, "; "); text != k.want {
				t.Errorf("%s\nwant %s", text, k.want)
			}
		})
	}
}

// TestBundleOfCode holds that a bundle has what this machine alone can get.
func TestBundleOfCode(t *testing.T) {
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
		t.Errorf("%+v, %v", r, err)
	}
}

// TestTwoPythonsOnOnePlatform holds that each gets its own interpreter, and that the
// lock keeps them apart.
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
			t.Fatalf("%s: %+v", version, r.Plan.Blocked)
		}
		text, err := os.ReadFile(f.lock)
		if err != nil || !strings.Contains(string(text), `"cpython-`+version+".") {
			t.Errorf("%v: no interpreter for %s in %s", err, version, text)
		}
	}
}
