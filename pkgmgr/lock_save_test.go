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

// locked is what the lock on disk says that the wish for an engine stands for.
func (f *lockFleet) locked() (got string) {
	for _, w := range f.load().Workers() {
		if w.Type == "engine" && w.Requested == version.Latest {
			got = w.Version
		}
	}
	return got
}

// plan looks up what is wanted, with the lock as it is on disk now.
func (f *lockFleet) plan(po plan.Options) (*plan.Plan, *lockfile.Lock) {
	fleet, lock := f.open(nil)
	fleet.Read(f.t.Context(), pkgmgr.ReadOptions{})
	po.Fetch = true
	return fleet.Plan(f.t.Context(), po), lock
}

func (f *lockFleet) hold(hive, version string) {
	f.t.Helper()
	lock := f.load()
	lock.Pin(hive, engineWish, version, time.Now())
	if err := lock.Save(); err != nil {
		f.t.Fatal(err)
	}
}

// TestSaveKeepsWhatOthersWrote holds that a run which read the lock long ago undoes
// nothing of what was written since, in whichever order runs end.
func TestSaveKeepsWhatOthersWrote(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.release("1.0")
	f.sync(plan.Options{}, nil)
	f.release("1.1")
	f.hold("gpu-00", "1.0")
	slow := f.load()
	_, upgrade := f.plan(plan.Options{Upgrade: true})
	f.release("1.2")
	f.hold("gpu-02", "1.0")
	if r := f.sync(plan.Options{Upgrade: true}, func(o *pkgmgr.Options) { o.Only = []string{"gpu-00"} }); f.version("gpu-00") != "1.2" {
		t.Fatal(results(r.Hives))
	}
	slow.Pin("gpu-01", engineWish, "1.0", time.Now())
	for _, lock := range []*lockfile.Lock{slow, upgrade} { // the upgrade found an older version
		if err := lock.Save(); err != nil {
			t.Fatal(err)
		}
		if v := f.locked(); v != "1.2" {
			t.Errorf("the lock says %s", v)
		}
	}
	text, err := os.ReadFile(f.lock)
	if err != nil || strings.Count(string(text), `"hive"`) != 2 || strings.Contains(string(text), "gpu-00") || !strings.Contains(string(text), `"previous": "1.1"`) {
		t.Errorf("%v:\n%s", err, text)
	}
	// A file that cannot be read again is not written over.
	if err := os.WriteFile(f.lock, []byte("<<<<<<< ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	slow.Pin("gpu-00", engineWish, "1.2", time.Now())
	if err := slow.Save(); err == nil || !strings.Contains(err.Error(), "invalid character") {
		t.Error(err)
	}
}

func TestSaveAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "hives.lock")
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			lock, err := lockfile.Load(path)
			if err != nil {
				t.Error(err)
				return
			}
			lock.Pin(fmt.Sprintf("gpu-%02d", i), engineWish, "1.0", time.Now())
			if err := lock.Save(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if text, err := os.ReadFile(path); err != nil || strings.Count(string(text), `"hive"`) != 24 {
		t.Errorf("%v:\n%s", err, text)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("left beside it: %v, %v", files, err)
	}
}

// TestHoldOutlivesAFailedUpgrade holds that a hive which was rolled back is moved by
// an upgrade that works there, and by nothing else.
func TestHoldOutlivesAFailedUpgrade(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.release("1.0")
	f.sync(plan.Options{}, nil)
	f.release("1.1")
	f.sync(plan.Options{Upgrade: true, UpgradeTypes: []string{"engine"}}, func(o *pkgmgr.Options) { o.Only = []string{"gpu-01"} })
	f.hold("gpu-00", "1.0")

	broken := errors.New("no way")
	for name, upgrade := range map[string]func(){
		"another hive's": func() {
			f.sync(plan.Options{Upgrade: true}, func(o *pkgmgr.Options) { o.Only = []string{"gpu-01"} })
		},
		"one without an answer": func() {
			f.origin.LimitRate("token")
			f.sync(plan.Options{Upgrade: true}, nil)
			f.origin.Mend()
		},
		"one that fails there": func() {
			f.machines["gpu-00"].OnStep = func(s wire.Step) error {
				if s.Action == wire.ActionInstallWorker {
					return broken
				}
				return nil
			}
			f.sync(plan.Options{Upgrade: true}, nil)
			f.machines["gpu-00"].OnStep = nil
		},
		"a dry run": func() {
			_, lock := f.plan(plan.Options{Upgrade: true})
			if err := lock.Save(); err != nil {
				t.Error(err)
			}
		},
	} {
		upgrade()
		if plan, _ := f.plan(plan.Options{}); len(plan.Steps) != 0 || f.version("gpu-00") != "1.0" {
			t.Errorf("after %s upgrade gpu-00 has %s: %+v", name, f.version("gpu-00"), plan.Steps)
		}
	}
	if f.sync(plan.Options{Upgrade: true}, nil); f.version("gpu-00") != "1.1" {
		t.Errorf("gpu-00 has %s", f.version("gpu-00"))
	}
	if text, _ := os.ReadFile(f.lock); strings.Contains(string(text), "holds") {
		t.Errorf("%s", text)
	}
}

// TestHoldIsForAWish holds that another wish in the config ends a rollback for good.
func TestHoldIsForAWish(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	for _, v := range []string{"1.0", "1.1", "1.2"} {
		f.release(v)
	}
	f.sync(plan.Options{}, nil)
	f.hold("gpu-00", "1.0")
	f.sync(plan.Options{}, nil)
	wishes := []struct{ wish, want string }{{version.Latest, "1.0"}, {"1.1", "1.1"}, {version.Latest, "1.2"}}
	for _, w := range wishes {
		workers := f.config.Hives[0].Workers
		workers[len(workers)-1].Version = w.wish
		if r := f.sync(plan.Options{}, nil); f.version("gpu-00") != w.want {
			t.Errorf("%s is %s: %s", w.wish, f.version("gpu-00"), results(r.Hives))
		}
	}
}

// TestBundleLeavesTheRest holds that a bundle of fewer types takes nothing else out
// of the lock, and that what it holds counts, be it older.
func TestBundleLeavesTheRest(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.release("1.0")
	path := filepath.Join(t.TempDir(), "fleet.rbee")
	fleet, _ := f.open(nil)
	fleet.Read(t.Context(), pkgmgr.ReadOptions{})
	if _, err := fleet.WriteBundle(t.Context(), path, pkgmgr.BundleOptions{}); err != nil {
		t.Fatal(err)
	}
	f.release("1.1")
	rest := f.config.Hives[1].Workers
	rest[len(rest)-1].Version = ">1.0"
	f.sync(plan.Options{}, nil)
	if f.locked() != "1.1" || f.version("gpu-01") != "1.1" {
		t.Fatalf("%s, %s", f.locked(), f.version("gpu-01"))
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
	f.release("1.2")
	if f.sync(plan.Options{}, nil); f.locked() != "1.0" || f.version("gpu-00") != "1.0" || f.version("gpu-01") != "1.1" {
		t.Errorf("%s, %s, %s", f.locked(), f.version("gpu-00"), f.version("gpu-01"))
	}
}

// lockText is the lock's file, for tests that write it as others did.
type lockText struct {
	Schema  int         `json:"schema"`
	Workers []lockEntry `json:"workers,omitempty"`
	Sources []lockEntry `json:"sources,omitempty"`
	Holds   []lockEntry `json:"holds,omitempty"`
}

type lockEntry map[string]any

// editLock changes the lock's file.
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

// TestBundleNamesTheRecipesLine holds that what a bundle lacks is said with the place
// in the recipe that asks for it.
func TestBundleNamesTheRecipesLine(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.release("1.0")
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
	wishes := []struct{ wish, want string }{
		{">1.0", "engine.yaml:2: the bundle does not contain engine >1.0"},
		{version.Latest, "engine.yaml:4: the bundle does not contain engine 1.0 for linux/arm64"},
	}
	for _, w := range wishes {
		lock, err := b.Lock(new(lockfile.Lock))
		if err != nil {
			t.Fatal(err)
		}
		workers := f.config.Hives[0].Workers
		workers[len(workers)-1].Version = w.wish
		f.machines["gpu-00"].Edit(func(s *wire.State) { s.Arch = "arm64" })
		r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Bundle, o.Push, o.Lock, o.Only = b, true, lock, []string{"gpu-00"} })
		if blocked := r.Plan.Blocked; len(blocked) != 1 || !strings.Contains(blocked[0].Reason, w.want) {
			t.Errorf("%s: %+v, want %q", w.wish, blocked, w.want)
		}
	}
}
