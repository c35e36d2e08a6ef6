package pkgmgr_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// lockedVersion returns the version of the engine in the lockfile.
func (f *lockFleet) lockedVersion() (got string) {
	for _, w := range f.load().Workers() {
		if w.Type == "engine" && w.Requested == version.Latest {
			got = w.Version
		}
	}
	return got
}

// plan makes a plan with the lockfile, and returns both.
func (f *lockFleet) plan(po plan.Options) (*plan.Plan, *lockfile.Lock) {
	fleet, lock := f.open(nil)
	fleet.Read(f.t.Context(), pkgmgr.ReadOptions{})
	po.Fetch = true
	return fleet.Plan(f.t.Context(), po), lock
}

// pin pins the engine of a hive in the lockfile.
func (f *lockFleet) pin(hive, version string) {
	f.t.Helper()
	lock := f.load()
	lock.Pin(hive, engineWorker, version, time.Now())
	if err := lock.Save(); err != nil {
		f.t.Fatal(err)
	}
}

// TestSaveKeepsConcurrentChanges checks that Save keeps the changes that other runs saved
// after the lockfile was loaded.
func TestSaveKeepsConcurrentChanges(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	f.sync(plan.Options{}, nil)
	f.addRelease("1.1")
	f.pin("gpu-00", "1.0")
	slow := f.load()
	_, upgrade := f.plan(plan.Options{Upgrade: true})
	f.addRelease("1.2")
	f.pin("gpu-02", "1.0")
	if r := f.sync(plan.Options{Upgrade: true}, func(o *pkgmgr.Options) { o.Aliases = []string{"gpu-00"} }); f.version("gpu-00") != "1.2" {
		t.Fatalf("sync = %s, gpu-00 has engine %q, want 1.2", results(r.Hives), f.version("gpu-00"))
	}
	slow.Pin("gpu-01", engineWorker, "1.0", time.Now())
	// The lock of the upgrade contains 1.1, which is older than the saved version.
	for name, lock := range map[string]*lockfile.Lock{"pin": slow, "upgrade": upgrade} {
		if err := lock.Save(); err != nil {
			t.Fatal(err)
		}
		if v := f.lockedVersion(); v != "1.2" {
			t.Errorf("%s: locked version = %s after Save(), want 1.2", name, v)
		}
	}
	text, err := os.ReadFile(f.lock)
	if err != nil || strings.Count(string(text), `"hive"`) != 2 || strings.Contains(string(text), "gpu-00") || !strings.Contains(string(text), `"previous": "1.1"`) {
		t.Errorf("lockfile after Save(): %v, want pins of gpu-01 and gpu-02 and the previous version 1.1:\n%s", err, text)
	}
	// Save does not overwrite an invalid file.
	if err := os.WriteFile(f.lock, []byte("<<<<<<< ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	slow.Pin("gpu-00", engineWorker, "1.2", time.Now())
	if err := slow.Save(); err == nil || !strings.Contains(err.Error(), "invalid character") {
		t.Errorf("Save() to an invalid file = %v, want an error with invalid character", err)
	}
}

func TestConcurrentSaves(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "hives.lock")
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			lock, err := lockfile.Load(path)
			if err != nil {
				t.Errorf("Load() = %v, want nil", err)
				return
			}
			lock.Pin(fmt.Sprintf("gpu-%02d", i), engineWorker, "1.0", time.Now())
			if err := lock.Save(); err != nil {
				t.Errorf("Save() = %v, want nil", err)
			}
		})
	}
	wg.Wait()
	if text, err := os.ReadFile(path); err != nil || strings.Count(string(text), `"hive"`) != 24 {
		t.Errorf("lockfile after 24 calls of Save(): %v, want 24 pins:\n%s", err, text)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("the directory of the lockfile contains %v, %v, want only the lockfile", files, err)
	}
}

// TestFailedUpgradeKeepsPin checks that only a successful upgrade of the hive removes the
// pin of a rollback.
func TestFailedUpgradeKeepsPin(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	f.sync(plan.Options{}, nil)
	f.addRelease("1.1")
	f.sync(plan.Options{Upgrade: true, UpgradeTypes: []string{"engine"}}, func(o *pkgmgr.Options) { o.Aliases = []string{"gpu-01"} })
	f.pin("gpu-00", "1.0")

	installErr := errors.New("cannot install")
	for name, upgrade := range map[string]func(){
		"other hive": func() {
			f.sync(plan.Options{Upgrade: true}, func(o *pkgmgr.Options) { o.Aliases = []string{"gpu-01"} })
		},
		"failed lookup": func() {
			f.origin.LimitRate("token")
			f.sync(plan.Options{Upgrade: true}, nil)
			f.origin.ClearFaults()
		},
		"failed install": func() {
			f.machines["gpu-00"].OnStep = func(s wire.Step) error {
				if s.Action == wire.ActionInstallWorker {
					return installErr
				}
				return nil
			}
			f.sync(plan.Options{Upgrade: true}, nil)
			f.machines["gpu-00"].OnStep = nil
		},
		"dry run": func() {
			_, lock := f.plan(plan.Options{Upgrade: true})
			if err := lock.Save(); err != nil {
				t.Errorf("Save() = %v, want nil", err)
			}
		},
	} {
		upgrade()
		if plan, _ := f.plan(plan.Options{}); len(plan.Steps) != 0 || f.version("gpu-00") != "1.0" {
			t.Errorf("%s: gpu-00 has engine %s and steps %+v after the upgrade, want 1.0 and no steps", name, f.version("gpu-00"), plan.Steps)
		}
	}
	if f.sync(plan.Options{Upgrade: true}, nil); f.version("gpu-00") != "1.1" {
		t.Errorf("gpu-00 has engine %s after the upgrade, want 1.1", f.version("gpu-00"))
	}
	if text, _ := os.ReadFile(f.lock); strings.Contains(string(text), "holds") {
		t.Errorf("the lockfile has pins after the upgrade, want none:\n%s", text)
	}
}

// TestConfigChangeRemovesPin checks that another version constraint in the config removes
// the pin of a rollback permanently.
func TestConfigChangeRemovesPin(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	for _, v := range []string{"1.0", "1.1", "1.2"} {
		f.addRelease(v)
	}
	f.sync(plan.Options{}, nil)
	f.pin("gpu-00", "1.0")
	f.sync(plan.Options{}, nil)
	for _, tt := range []struct{ constraint, want string }{{version.Latest, "1.0"}, {"1.1", "1.1"}, {version.Latest, "1.2"}} {
		workers := f.config.Hives[0].Workers
		workers[len(workers)-1].Version = tt.constraint
		if r := f.sync(plan.Options{}, nil); f.version("gpu-00") != tt.want {
			t.Errorf("sync with version %q: gpu-00 has engine %s, want %s: %s", tt.constraint, f.version("gpu-00"), tt.want, results(r.Hives))
		}
	}
}

// TestBundleKeepsOtherLockEntries checks that the entries of a bundle replace those in the
// lockfile, even newer ones, and that the lockfile keeps its other entries.
func TestBundleKeepsOtherLockEntries(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	path := filepath.Join(t.TempDir(), "fleet.rbee")
	fleet, _ := f.open(nil)
	fleet.Read(t.Context(), pkgmgr.ReadOptions{})
	if _, err := fleet.WriteBundle(t.Context(), path, pkgmgr.BundleOptions{}); err != nil {
		t.Fatal(err)
	}
	f.addRelease("1.1")
	rest := f.config.Hives[1].Workers
	rest[len(rest)-1].Version = ">1.0"
	f.sync(plan.Options{}, nil)
	if f.lockedVersion() != "1.1" || f.version("gpu-01") != "1.1" {
		t.Fatalf("locked version = %s, gpu-01 has engine %s, want 1.1", f.lockedVersion(), f.version("gpu-01"))
	}
	b, err := artifact.OpenBundle(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	lock, err := b.Lock(f.load())
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Save(); err != nil {
		t.Fatal(err)
	}
	f.machines["gpu-01"].Edit(func(s *wire.State) { s.Workers = nil })
	f.addRelease("1.2")
	if f.sync(plan.Options{}, nil); f.lockedVersion() != "1.0" || f.version("gpu-00") != "1.0" || f.version("gpu-01") != "1.1" {
		t.Errorf("locked version = %s, gpu-00 has engine %s, gpu-01 %s; want 1.0, 1.0, 1.1", f.lockedVersion(), f.version("gpu-00"), f.version("gpu-01"))
	}
}

// lockText is the content of the lockfile, for tests that edit it.
type lockText struct {
	Schema  int         `json:"schema"`
	Workers []lockEntry `json:"workers,omitempty"`
	Sources []lockEntry `json:"sources,omitempty"`
	Holds   []lockEntry `json:"holds,omitempty"`
}

type lockEntry map[string]any

// editLock changes the lockfile.
func (f *lockFleet) editLock(edit func(*lockText)) {
	f.t.Helper()
	data, err := os.ReadFile(f.lock)
	if err != nil {
		f.t.Fatal(err)
	}
	var l lockText
	if err := json.Unmarshal(data, &l); err != nil {
		f.t.Fatal(err)
	}
	edit(&l)
	if data, err = json.Marshal(l); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(f.lock, data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// TestBundleErrorsContainRecipeLine checks that the error for an artifact that is missing in
// a bundle contains the position in the recipe.
func TestBundleErrorsContainRecipeLine(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	path := filepath.Join(t.TempDir(), "fleet.rbee")
	fleet, _ := f.open(nil)
	fleet.Read(t.Context(), pkgmgr.ReadOptions{})
	if _, err := fleet.WriteBundle(t.Context(), path, pkgmgr.BundleOptions{}); err != nil {
		t.Fatal(err)
	}
	b, err := artifact.OpenBundle(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	tests := []struct{ constraint, want string }{
		{">1.0", "engine.yaml:2: the bundle does not contain engine >1.0"},
		{version.Latest, "engine.yaml:4: the bundle does not contain engine 1.0 for linux/arm64"},
	}
	for _, tt := range tests {
		lock, err := b.Lock(new(lockfile.Lock))
		if err != nil {
			t.Fatal(err)
		}
		workers := f.config.Hives[0].Workers
		workers[len(workers)-1].Version = tt.constraint
		f.machines["gpu-00"].Edit(func(s *wire.State) { s.Arch = "arm64" })
		r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Bundle, o.Push, o.Lock, o.Aliases = b, true, lock, []string{"gpu-00"} })
		if blocked := r.Plan.Blocked; len(blocked) != 1 || !strings.Contains(blocked[0].Reason, tt.want) {
			t.Errorf("sync with version %q: blocked = %+v, want %q", tt.constraint, blocked, tt.want)
		}
	}
}
