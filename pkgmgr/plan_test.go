package pkgmgr_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestApplyPlanOfOtherFleet makes a plan with one Fleet, saves it as JSON, and
// applies it with another Fleet, whose lockfile is empty.
func TestApplyPlanOfOtherFleet(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	fleet, _ := f.open(nil)
	fleet.Read(t.Context(), pkgmgr.ReadOptions{})
	original := fleet.Plan(t.Context(), plan.Options{Fetch: true})
	if len(original.Installs) != 2 || len(original.Builds) != 1 || len(original.Lock.Workers) != 1 || len(original.Lock.Sources) != 1 {
		t.Errorf("Plan() has %d installs, %d builds, changes of the lockfile %+v; want 2, 1, and one version and one source", len(original.Installs), len(original.Builds), original.Lock)
	}

	lock := &lockfile.Lock{}
	other, _ := f.open(func(o *pkgmgr.Options) { o.Lock = lock })
	other.Read(t.Context(), pkgmgr.ReadOptions{})
	reports := other.Apply(t.Context(), roundTrip(original), pkgmgr.ApplyOptions{})
	if got, want := results(reports), "gpu-00=installed gpu-01=installed"; got != want {
		t.Fatalf("Apply() = %s, want %s: %+v", got, want, reports)
	}
	if got, want := f.version("gpu-01"), "1.0"; got != want {
		t.Errorf("version(gpu-01) = %q, want %q", got, want)
	}
	if w, ok := lock.Worker("engine", "latest"); !ok || w.Version != "1.0" {
		t.Errorf("the lockfile of the other fleet has %+v, want engine 1.0", w)
	}

	reports = other.Apply(t.Context(), roundTrip(original), pkgmgr.ApplyOptions{})
	for _, r := range reports {
		if r.Status != operations.HiveFailed || r.Error == nil || r.Error.Reason != operations.ReasonStateChanged {
			t.Errorf("%s: the second Apply() = %s, %+v; want reason %s", r.Alias, r.Status, r.Error, operations.ReasonStateChanged)
		}
	}
}

// TestPlanOfLocalFile makes a plan for a worker that is a file on this machine, and
// applies it after a round trip. The plan contains no path of this machine.
func TestPlanOfLocalFile(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	catalog, dir := recipes(t, map[string]string{
		"engine.bin": "#!/bin/sh\n", "engine.yaml": "type: engine\nsources:\n- {version: \"1.0\", file: ./engine.bin}\n",
	})
	fleet, _ := f.open(func(o *pkgmgr.Options) { o.Catalog = catalog })
	fleet.Read(t.Context(), pkgmgr.ReadOptions{})
	original := fleet.Plan(t.Context(), plan.Options{Fetch: true})
	data, err := json.Marshal(original)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), dir) {
		t.Errorf("the plan is %s, want no local path %q in it", data, dir)
	}
	other, _ := f.open(func(o *pkgmgr.Options) { o.Catalog = catalog })
	other.Read(t.Context(), pkgmgr.ReadOptions{})
	reports := other.Apply(t.Context(), roundTrip(original), pkgmgr.ApplyOptions{})
	if got, want := results(reports), "gpu-00=installed gpu-01=installed"; got != want {
		t.Errorf("Apply() = %s, want %s: %+v", got, want, reports)
	}
}

// TestApplyRejectsOtherPlans applies plans that were not made for the hive.
func TestApplyRejectsOtherPlans(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	f := openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	original := f.Plan(t.Context(), plan.Options{Fetch: true})
	for name, change := range map[string]func(*plan.Plan){
		"other state":     func(p *plan.Plan) { p.Hives[0].State = "00" },
		"no hive":         func(p *plan.Plan) { p.Hives = nil },
		"other build":     func(p *plan.Plan) { p.Steps[0].Digest = strings.Repeat("0", 64) },
		"no installation": func(p *plan.Plan) { p.Installs = nil },
	} {
		p := roundTrip(original)
		change(p)
		r := f.Apply(t.Context(), p, pkgmgr.ApplyOptions{})[0]
		if r.Status != operations.HiveFailed || r.Error == nil {
			t.Errorf("%s: Apply() = %s, %v; want failed", name, r.Status, r.Error)
		}
		f.Read(t.Context(), pkgmgr.ReadOptions{})
		if name != "no installation" { // which fails after rbee is installed
			continue
		}
		if got := machines["gpu-00"].State(); len(got.Workers) != 0 {
			t.Errorf("%s: the hive has workers %+v, want none", name, got.Workers)
		}
	}
}

// TestPlanOfNewerRbee checks that a plan from a newer rbee is applied only if it does not
// require a newer reader.
func TestPlanOfNewerRbee(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	f := openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	original := f.Plan(t.Context(), plan.Options{Fetch: true})
	if original.Schema != plan.Schema || original.MinReader > plan.Schema {
		t.Errorf("Plan() has schema %d and min_reader %d, want %d", original.Schema, original.MinReader, plan.Schema)
	}
	p := roundTrip(original)
	p.Schema, p.MinReader = plan.Schema+1, plan.Schema+1
	r := f.Apply(t.Context(), p, pkgmgr.ApplyOptions{})[0]
	if r.Status != operations.HiveFailed || r.Error == nil || r.Error.Reason != operations.ReasonNewerFile {
		t.Errorf("Apply() = %s, %+v, want failed with reason %s", r.Status, r.Error, operations.ReasonNewerFile)
	}
	if machines["gpu-00"].State().Rbee != nil {
		t.Error("the failed Apply() installed rbee, want no change")
	}
	p.MinReader = plan.Schema
	if r := f.Apply(t.Context(), p, pkgmgr.ApplyOptions{})[0]; r.Status != operations.HiveInstalled {
		t.Errorf("Apply() of a readable plan = %s, %v, want installed", r.Status, r.Error)
	}
}

// TestStateDigest checks which parts of a state the digest covers.
func TestStateDigest(t *testing.T) {
	t.Parallel()
	base := func() *wire.State {
		return &wire.State{
			Rbee: &wire.BinaryRecord{Version: "1", SHA256: "aa"}, Settings: &wire.Settings{Alias: "a", HivePort: 8600},
			Workers: []wire.Worker{{Type: "vllm", Version: "2", Variant: "cuda-13", SHA256: "bb"}},
		}
	}
	for name, tt := range map[string]struct {
		change func(*wire.State)
		same   bool
	}{
		"nothing":      {func(*wire.State) {}, true},
		"free disk":    {func(s *wire.State) { s.DiskFree = 7 }, true},
		"daemon":       {func(s *wire.State) { s.Daemon = wire.Daemon{Running: true, PID: 9} }, true},
		"wheel cache":  {func(s *wire.State) { s.Wheels = []string{"x"} }, true},
		"size":         {func(s *wire.State) { s.Workers[0].Bytes = 9 }, true},
		"build":        {func(s *wire.State) { s.Rbee.SHA256 = "cc" }, false},
		"no rbee":      {func(s *wire.State) { s.Rbee = nil }, false},
		"settings":     {func(s *wire.State) { s.Settings.HivePort = 1 }, false},
		"digest":       {func(s *wire.State) { s.Workers[0].SHA256 = "dd" }, false},
		"variant":      {func(s *wire.State) { s.Workers[0].Variant = "cpu" }, false},
		"worker added": {func(s *wire.State) { s.Workers = append(s.Workers, wire.Worker{Type: "x"}) }, false},
	} {
		s := base()
		tt.change(s)
		if got := plan.StateDigest(s) == plan.StateDigest(base()); got != tt.same {
			t.Errorf("%s: StateDigest() is unchanged: %t, want %t", name, got, tt.same)
		}
	}
	if got := plan.StateDigest(nil); got != "" {
		t.Errorf("StateDigest(nil) = %q, want empty", got)
	}
}

// TestConfigureHive checks that changed settings result in a configure_hive step only.
func TestConfigureHive(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	syncFleet(t.Context(), openFleet(t, c, machines, nil), plan.Options{}, pkgmgr.ApplyOptions{})
	c.Hives[0].Labels = []string{"new"}
	r := syncFleet(t.Context(), openFleet(t, c, machines, nil), plan.Options{}, pkgmgr.ApplyOptions{})
	var got []operations.Action
	for _, s := range r.Plan.Steps {
		got = append(got, s.Action)
	}
	if want := []operations.Action{operations.ActionConfigureHive}; !slices.Equal(got, want) {
		t.Errorf("sync has actions %v, want %v", got, want)
	}
	if got, want := machines["gpu-00"].State().Settings.Labels, []string{"new"}; !reflect.DeepEqual(got, want) {
		t.Errorf("the hive has labels %v, want %v", got, want)
	}
}

// TestBlockedContainsError checks that a blocked worker contains a typed error.
func TestBlockedContainsError(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	c.Hives[0].Workers[0].Type = "nosuch"
	f := openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	p := f.Plan(t.Context(), plan.Options{Fetch: true})
	if len(p.Blocked) != 1 || p.Blocked[0].Error == nil {
		t.Fatalf("Plan() has blocked %+v, want one with an error", p.Blocked)
	}
	e := p.Blocked[0].Error
	var opErr *operations.Error
	if !errors.As(e, &opErr) || e.Hive != "gpu-00" || e.Message != p.Blocked[0].Reason || e.Reason != operations.ReasonUnknownRecipe || e.Subject.Name != "nosuch" {
		t.Errorf("Plan() has blocked error %+v, want the hive, the worker, reason unknown_recipe and the message %q", e, p.Blocked[0].Reason)
	}
}
