package pkgmgr_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

const engineRecipe = `type: engine
versions: { github: bees/engine, tag: "v{version}" }
sources:
  - name: any
    steps: [archive: { asset: "engine-{version}-*.tar.gz" }]
    entry: bin/engine
start: { args: [--port, "{port}"] }
ready: { path: /health }
`

// engineWorker is the worker that the hives of a lockFleet have in addition to echo.
var engineWorker = config.Worker{Type: "engine", Version: version.Latest}

// lockFleet is a fleet with a lockfile, whose worker engine comes from releases.
type lockFleet struct {
	t        *testing.T
	origin   *origintest.Server
	config   *config.Config
	machines fakehost.Machines
	lock     string // path of the lockfile
	catalog  *catalog.Catalog
	cache    string
}

func newLockFleet(t *testing.T) *lockFleet { return newRecipeFleet(t, engineRecipe) }

// newRecipeFleet returns a lockFleet with another recipe for the engine.
func newRecipeFleet(t *testing.T, recipe string) *lockFleet {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "engine.yaml"), []byte(recipe), 0o600); err != nil {
		t.Fatal(err)
	}
	catalog, err := catalog.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	f := &lockFleet{t: t, origin: origintest.New(t), lock: filepath.Join(dir, "hives.lock"), catalog: catalog, cache: t.TempDir()}
	f.config, f.machines = echoFleet(2)
	for i := range f.config.Hives {
		f.config.Hives[i].Workers = append(f.config.Hives[i].Workers, engineWorker)
	}
	return f
}

// addRelease publishes a version of the engine.
func (f *lockFleet) addRelease(version string) {
	f.origin.AddRelease("bees/engine", origintest.Release{Tag: "v" + version, Assets: map[string][]byte{
		"engine-" + version + "-any.tar.gz": origintest.TarGz(map[string]string{"bin/engine": "#!/bin/sh\necho " + version + "\n"}),
	}})
}

// load loads the lockfile.
func (f *lockFleet) load() *lockfile.Lock {
	f.t.Helper()
	l, err := lockfile.Load(f.lock)
	if err != nil {
		f.t.Fatal(err)
	}
	return l
}

// open returns a fleet with the lockfile, and the loaded lockfile.
func (f *lockFleet) open(edit func(*pkgmgr.Options)) (*pkgmgr.Fleet, *lockfile.Lock) {
	f.t.Helper()
	lock := f.load()
	return openFleet(f.t, f.config, f.machines, func(o *pkgmgr.Options) {
		o.Catalog, o.Lock, o.CacheDir = f.catalog, lock, f.cache
		o.Origins = pkgmgr.Origins{GitHubAPI: f.origin.API(), PythonIndex: f.origin.Index()}
		if edit != nil {
			edit(o)
		}
	}), lock
}

// sync reads the hives, plans, applies the plan and saves the lockfile.
func (f *lockFleet) sync(po plan.Options, edit func(*pkgmgr.Options)) *operations.SyncReport {
	f.t.Helper()
	fleet, lock := f.open(edit)
	r := syncFleet(f.t.Context(), fleet, po, pkgmgr.ApplyOptions{})
	if err := lock.Save(); err != nil {
		f.t.Fatal(err)
	}
	return r
}

// version returns the version of the engine that is installed on a hive.
func (f *lockFleet) version(hive string) (v string) {
	f.machines[hive].Edit(func(s *wire.State) {
		for _, w := range s.Workers {
			if w.Type == "engine" {
				v = w.Version
			}
		}
	})
	return v
}

// TestLockIsReused checks that a version constraint is resolved once and then read from the
// lockfile, until an upgrade changes it.
func TestLockIsReused(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	if r := f.sync(plan.Options{}, nil); results(r.Hives) != "gpu-00=installed gpu-01=installed" || f.version("gpu-00") != "1.0" {
		t.Fatalf("sync = %s, gpu-00 has engine %q, want 1.0 on both hives", results(r.Hives), f.version("gpu-00"))
	}
	first, err := os.ReadFile(f.lock)
	if err != nil {
		t.Fatal(err)
	}
	f.addRelease("1.1")
	requests := f.origin.RequestCount("/")
	f.machines["gpu-01"].Edit(func(s *wire.State) { s.Workers = nil })
	if f.sync(plan.Options{}, nil); f.version("gpu-01") != "1.0" || f.origin.RequestCount("/releases") != 1 {
		t.Errorf("second sync: gpu-01 has engine %s after %d more requests, want 1.0 without a lookup", f.version("gpu-01"), f.origin.RequestCount("/")-requests)
	}
	if again, _ := os.ReadFile(f.lock); !bytes.Equal(first, again) {
		t.Errorf("second sync: the lockfile is\n%s\nwant it unchanged:\n%s", again, first)
	}
	fleet, _ := f.open(nil)
	fleet.Read(t.Context(), pkgmgr.ReadOptions{})
	changes := fleet.Plan(t.Context(), plan.Options{Fetch: true, Upgrade: true})
	if len(changes.Upgrades) != 1 || changes.Upgrades[0].From != "1.0" || changes.Upgrades[0].To != "1.1" || len(changes.Steps) != 2 {
		t.Errorf("Plan() with Upgrade = %+v, want an upgrade from 1.0 to 1.1 on both hives", changes)
	}
	if again, _ := os.ReadFile(f.lock); !bytes.Equal(first, again) {
		t.Errorf("Plan() wrote the lockfile\n%s\nwant it unchanged:\n%s", again, first)
	}
	// A pinned hive keeps its version until an upgrade.
	lock := f.load()
	lock.Pin("gpu-00", engineWorker, "1.0", time.Now())
	if err := lock.Save(); err != nil {
		t.Fatal(err)
	}
	if f.sync(plan.Options{Upgrade: true, UpgradeTypes: []string{"echo"}}, nil); f.version("gpu-01") != "1.0" {
		t.Errorf("gpu-01 has engine %s after an upgrade of echo, want 1.0", f.version("gpu-01"))
	}
	if f.sync(plan.Options{Upgrade: true}, nil); f.version("gpu-00") != "1.1" || f.version("gpu-01") != "1.1" {
		t.Errorf("the hives have engines %s and %s after an upgrade, want 1.1", f.version("gpu-00"), f.version("gpu-01"))
	}
	if text, _ := os.ReadFile(f.lock); !strings.Contains(string(text), `"previous": "1.0"`) || strings.Contains(string(text), "holds") {
		t.Errorf("the lockfile after an upgrade is\n%s\nwant the previous version 1.0 and no pins", text)
	}
}

// TestVersionWithTagPrefix checks that a version in the config may have the prefix of its
// tag.
func TestVersionWithTagPrefix(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	f.addRelease("1.1")
	for i, constraint := range []string{"v1.0", "1.0"} {
		f.config.Hives[i].Workers[1].Version = constraint
	}
	if r := f.sync(plan.Options{}, nil); f.version("gpu-00") != "1.0" || f.version("gpu-01") != "1.0" {
		t.Fatalf("sync = %s, engines = %s and %s, want 1.0 on both hives", results(r.Hives), f.version("gpu-00"), f.version("gpu-01"))
	}
	fleet, _ := f.open(func(o *pkgmgr.Options) { o.Lock = new(lockfile.Lock) })
	fleet.Read(t.Context(), pkgmgr.ReadOptions{})
	if plan := fleet.Plan(t.Context(), plan.Options{}); len(plan.Drift) != 0 {
		t.Errorf("Plan() with an empty lockfile has drift %+v, want none", plan.Drift)
	}
}

func TestPin(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	f.sync(plan.Options{}, nil)
	f.addRelease("1.1")
	f.sync(plan.Options{Upgrade: true}, nil)
	lock := f.load()
	lock.Pin("gpu-00", engineWorker, "1.0", time.Now())
	if err := lock.Save(); err != nil {
		t.Fatal(err)
	}
	f.machines["gpu-00"].Edit(func(s *wire.State) { s.Workers = nil })
	f.machines["gpu-01"].Edit(func(s *wire.State) { s.Workers = nil })
	if f.sync(plan.Options{}, nil); f.version("gpu-00") != "1.0" || f.version("gpu-01") != "1.1" {
		t.Errorf("the hives have engines %s and %s, want the pinned 1.0 and 1.1", f.version("gpu-00"), f.version("gpu-01"))
	}
}

func TestLoadLockProblems(t *testing.T) {
	t.Parallel()
	const sum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	source := func(sum string) string {
		return `{"lock":1,"sources":[{"type":"e","version":"1","steps":[{"kind":"file","artefact":{"name":"x","url":"https://h/x","sha256":"` + sum + `"}}]}]}`
	}
	for text, want := range map[string]string{
		"":                                    "unexpected end",
		"<<<<<<< ours":                        "invalid character",
		`{}`:                                  `want the key "schema"`,
		`{"lock":2}`:                          `want the key "schema"`,
		`{"schema":9,"min_reader":2}`:         "it requires schema 2, but this rbee supports 1",
		`{"schema":9,"min_reader":1}`:         "",
		`{"lock":1,"workers":[{"type":"e"}]}`: `e: invalid version ""`,
		`{"lock":1,"workers":[{"type":"e","version":"../x"}]}`: `invalid version "../x"`,
		source(""):                "e 1: x has no SHA-256",
		source("ABC"):             "e 1: x has no SHA-256",
		source(sum):               "",
		`{"lock":1,"later":true}`: "",
	} {
		path := filepath.Join(t.TempDir(), "hives.lock")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := lockfile.Load(path)
		code := operations.CodeConfigInvalid
		if newer := (*wire.NewerSchemaError)(nil); errors.As(err, &newer) {
			code = operations.CodeOf(err) // not CodeConfigInvalid: the lockfile is valid
			if operations.ReasonOf(err) != operations.ReasonNewerFile {
				t.Errorf("Load() of %s has reason %s, want %s", text, operations.ReasonOf(err), operations.ReasonNewerFile)
			}
		}
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || operations.CodeOf(err) != code) {
			t.Errorf("Load() of %s = %v, want %q in it", text, err, want)
		}
	}
}

// TestDamagedCache checks that a damaged artifact in the cache is fetched again, and an
// intact one is not.
func TestDamagedCache(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	push := func(o *pkgmgr.Options) { o.Push = true }
	f.sync(plan.Options{}, push)
	cached, err := filepath.Glob(filepath.Join(f.cache, "artefacts", "*"))
	if err != nil || len(cached) != 1 || f.origin.RequestCount("/download/") != 1 {
		t.Fatalf("the cache contains %q, %v, after %d requests, want one file after one request", cached, err, f.origin.RequestCount("/download/"))
	}
	for _, damage := range []bool{false, true} {
		if damage {
			if err := os.WriteFile(cached[0], []byte("honey"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range f.machines {
			m.Edit(func(s *wire.State) { s.Workers = nil })
		}
		want := 1
		if damage {
			want = 2
		}
		if f.sync(plan.Options{}, push); f.version("gpu-01") != "1.0" || f.origin.RequestCount("/download/") != want {
			t.Errorf("damaged %t: gpu-01 has engine %q after %d requests, want 1.0 after %d", damage, f.version("gpu-01"), f.origin.RequestCount("/download/"), want)
		}
	}
}

// TestBundle checks that workers can be installed from a bundle without any other source,
// and that a damaged bundle is detected.
func TestBundle(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	path := filepath.Join(t.TempDir(), "fleet.rbee")
	fleet, _ := f.open(nil)
	fleet.Read(t.Context(), pkgmgr.ReadOptions{})
	r, err := fleet.WriteBundle(t.Context(), path, pkgmgr.BundleOptions{Recipes: map[string]string{"engine.yaml": engineRecipe}})
	if err != nil || r.Artifacts != 1 || len(r.Blocked) != 0 || len(r.Platforms) != 1 {
		t.Fatalf("WriteBundle() = %+v, %v, want one artifact and one platform", r, err)
	}
	bundle, err := os.ReadFile(path)
	if err != nil || int64(len(bundle)) != r.Bytes {
		t.Fatalf("the bundle has %d bytes, %v, want %d as reported", len(bundle), err, r.Bytes)
	}
	f.origin.Close()

	// use installs from a bundle with an empty cache and an empty lockfile.
	use := func(path string) (*operations.SyncReport, error) {
		b, err := artifact.OpenBundle(path)
		if err != nil {
			return nil, err
		}
		defer b.Close()
		if err := b.ExtractBinaries(t.TempDir()); err != nil {
			return nil, err
		}
		f.cache = t.TempDir()
		empty, err := lockfile.Load(filepath.Join(t.TempDir(), "hives.lock"))
		if err != nil {
			return nil, err
		}
		lock, err := b.Lock(empty)
		if err != nil {
			return nil, err
		}
		catalog, err := b.Catalog(nil)
		if err != nil {
			return nil, err
		}
		return f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Bundle, o.Push, o.Lock, o.Catalog = b, true, lock, catalog }), nil
	}
	// Change single bytes. The damage is detected when the bundle is opened or used.
	damaged := filepath.Join(t.TempDir(), "damaged.rbee")
	for offset := 0; offset < len(bundle); offset += max(1, len(bundle)/400) {
		data := bytes.Clone(bundle)
		data[offset] ^= 0x20
		if err := os.WriteFile(damaged, data, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := use(damaged)
		if err != nil {
			continue
		}
		if v := f.version("gpu-00"); v != "" && v != "1.0" {
			t.Errorf("byte %d changed: gpu-00 has engine %s, want 1.0 or none: %s", offset, v, results(r.Hives))
		}
		for _, m := range f.machines {
			m.Edit(func(s *wire.State) { s.Workers = nil })
		}
	}
	for _, n := range []int{0, 100, 512, 1000, len(bundle) / 2} {
		if err := os.WriteFile(damaged, bundle[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := use(damaged); err == nil || !strings.Contains(err.Error(), "damaged.rbee") {
			t.Errorf("bundle truncated to %d bytes: %v, want an error with its name", n, err)
		}
	}
	if _, err := artifact.OpenBundle(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenBundle() of a missing file = %v, want %v", err, os.ErrNotExist)
	}
	if r, err := use(path); err != nil || f.version("gpu-00") != "1.0" || f.version("gpu-01") != "1.0" {
		t.Errorf("sync from the bundle = %+v, %v, want engine 1.0 on both hives", r, err)
	}
}
