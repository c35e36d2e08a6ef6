package pkgmgr_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// planned returns a fleet that has been read, and its plan.
func (f *lockFleet) planned(o plan.Options) (*pkgmgr.Fleet, *plan.Plan) {
	f.t.Helper()
	fleet, _ := f.open(nil)
	fleet.Read(f.t.Context(), pkgmgr.ReadOptions{})
	o.Fetch = true
	return fleet, fleet.Plan(f.t.Context(), o)
}

// TestRefusedPlanKeepsTheLock applies an old plan after another run has upgraded: every
// hive refuses it, and the lock keeps the newer version.
func TestRefusedPlanKeepsTheLock(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.release("1.0")
	_, old := f.planned(plan.Options{})
	f.release("1.1")
	f.sync(plan.Options{Upgrade: true}, nil)
	fleet, _ := f.open(nil)
	fleet.Read(t.Context(), pkgmgr.ReadOptions{})
	reports := fleet.Apply(t.Context(), roundTrip(old), pkgmgr.ApplyOptions{})
	if got, want := results(reports), "gpu-00=failed gpu-01=failed"; got != want {
		t.Errorf("Apply() of an old plan = %s, want %s", got, want)
	}
	if err := fleet.Save(reports); err != nil {
		t.Fatal(err)
	}
	if got, want := f.locked(), "1.1"; got != want {
		t.Errorf("locked version = %s, want %s", got, want)
	}
}

// TestStepsAreRefusedWhereAnotherRunWasFaster applies a plan whose Fleet has read the
// hives before another run has changed them: the hives refuse the steps under their lock.
func TestStepsAreRefusedWhereAnotherRunWasFaster(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.release("1.0")
	f.sync(plan.Options{}, nil)
	slow, stale := f.planned(plan.Options{Force: true})
	f.release("1.1")
	f.sync(plan.Options{Upgrade: true}, nil)
	for _, r := range slow.Apply(t.Context(), stale, pkgmgr.ApplyOptions{}) {
		found := false
		for _, s := range r.Failed {
			found = found || s.Step.Worker == "engine" && s.Error.Reason == operations.ReasonStateChanged
		}
		if !found {
			t.Errorf("%s: the step of the engine is %+v, want it refused with %s", r.Alias, r.Failed, operations.ReasonStateChanged)
		}
	}
	if got, want := f.version("gpu-00"), "1.1"; got != want {
		t.Errorf("installed version = %s, want %s", got, want)
	}
}

// TestSamePlanTwiceAtOnce applies equal plans of two Fleets one after the other: what the
// first has installed is what the second wants.
func TestSamePlanTwiceAtOnce(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.release("1.0")
	a, pa := f.planned(plan.Options{})
	b, pb := f.planned(plan.Options{})
	for _, run := range []struct {
		fleet *pkgmgr.Fleet
		plan  *plan.Plan
	}{{a, pa}, {b, pb}} {
		if got, want := results(run.fleet.Apply(t.Context(), run.plan, pkgmgr.ApplyOptions{})), "gpu-00=installed gpu-01=installed"; got != want {
			t.Errorf("Apply() = %s, want %s", got, want)
		}
	}
}

// TestForcedPlan applies a forced plan with another Fleet: the workers are installed again.
func TestForcedPlan(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.release("1.0")
	f.sync(plan.Options{}, nil)
	before := f.machines["gpu-00"].State().Workers
	_, forced := f.planned(plan.Options{Force: true})
	other, _ := f.open(nil)
	other.Read(t.Context(), pkgmgr.ReadOptions{})
	other.Apply(t.Context(), roundTrip(forced), pkgmgr.ApplyOptions{})
	for i, w := range f.machines["gpu-00"].State().Workers {
		if !w.InstalledAt.After(before[i].InstalledAt) {
			t.Errorf("%s was installed at %s, want after %s", w.Type, w.InstalledAt, before[i].InstalledAt)
		}
	}
}

// TestPlanTwice makes two plans before anything is saved: both have the changes.
func TestPlanTwice(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.release("1.0")
	fleet, first := f.planned(plan.Options{})
	second := fleet.Plan(t.Context(), plan.Options{Fetch: true})
	if got, want := len(second.Lock.Workers), len(first.Lock.Workers); got != want || got == 0 {
		t.Errorf("the second plan has %d changed versions, want %d", got, want)
	}
}

// TestPlanForOtherHives applies a plan with a Fleet that has only a part of its hives.
func TestPlanForOtherHives(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(2)
	f := openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	p := f.Plan(t.Context(), plan.Options{Fetch: true})
	part := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Only = []string{"gpu-00"} })
	part.Read(t.Context(), pkgmgr.ReadOptions{})
	reports := part.Apply(t.Context(), p, pkgmgr.ApplyOptions{})
	if got, want := results(reports), "gpu-00=installed gpu-01=failed"; got != want {
		t.Errorf("Apply() = %s, want %s", got, want)
	}
	if got := reports[1].Error; got == nil || got.Reason != operations.ReasonUnknownHive {
		t.Errorf("the error of the other hive = %+v, want reason %s", got, operations.ReasonUnknownHive)
	}
	if got := part.Apply(t.Context(), nil, pkgmgr.ApplyOptions{}); len(got) != 1 {
		t.Errorf("Apply(nil) has %d reports, want 1", len(got))
	}
	p = part.Plan(t.Context(), plan.Options{Fetch: true, Force: true})
	p.Steps[0].Action = "fly"
	if r := part.Apply(t.Context(), p, pkgmgr.ApplyOptions{})[0]; len(r.Failed) == 0 || r.Failed[0].Error.Reason != operations.ReasonUnsupported {
		t.Errorf("an unknown action: %+v, want reason %s", r.Failed, operations.ReasonUnsupported)
	}
}

// TestSavedPlanHasNoSecrets checks that the JSON of a plan has no path of this machine and
// nothing that follows the path of an address.
func TestSavedPlanHasNoSecrets(t *testing.T) {
	t.Parallel()
	catalog, dir := recipes(t, map[string]string{
		"q.yaml": "type: q\nsources:\n- {version: \"1\", url: \"https://h.example/x?token=S3CRET\", sha256: " + strings.Repeat("a", 64) + "}\n",
		"r.yaml": "type: r\nsources:\n- {version: \"1\", file: ./missing}\n",
	})
	c, machines := echoFleet(2)
	c.Hives[0] = echoHive("gpu-00", "q", "r")
	machines["gpu-01"].Unreachable = &fakehost.ConnectError{Code: "config", Message: "key file: open " + filepath.Join(dir, "id")}
	f := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Catalog = catalog })
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	p := f.Plan(t.Context(), plan.Options{Fetch: true})
	if len(p.Installs) != 2 || len(p.Blocked) != 1 || len(p.Drift) == 0 {
		t.Errorf("installs %d, blocked %+v, drift %+v; want 2, 1 and some", len(p.Installs), p.Blocked, p.Drift)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"S3CRET", dir} {
		if strings.Contains(string(data), bad) {
			t.Errorf("the plan contains %q: %s", bad, data)
		}
	}
	var sent []string
	machines["gpu-00"].OnStep = func(s wire.Step) error {
		if s.Worker != nil && s.Worker.Type == "q" {
			sent = append(sent, s.Worker.Steps[0].Artifact.URL)
		}
		return nil
	}
	f.Apply(t.Context(), roundTrip(p), pkgmgr.ApplyOptions{})
	if len(sent) != 1 || sent[0] != "https://h.example/x?token=S3CRET" {
		t.Errorf("the hive gets the address %q, want that of the recipe", sent)
	}
}

// TestNewerHiveKeepsItsWorkers checks that the servers inside a newer rbee are not compared
// with those of this one.
func TestNewerHiveKeepsItsWorkers(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	newer := func(o *pkgmgr.Options) { o.Binaries, o.Version = fakehost.Rbee("1.1.0"), "1.1.0" }
	syncFleet(t.Context(), openFleet(t, c, machines, newer), plan.Options{}, pkgmgr.ApplyOptions{})
	r := syncFleet(t.Context(), openFleet(t, c, machines, nil), plan.Options{}, pkgmgr.ApplyOptions{})
	if len(r.Plan.Steps) != 0 || len(r.Plan.Drift) != 1 || r.Plan.Drift[0].Issue != operations.IssueNewerHive {
		t.Errorf("steps %+v, drift %+v; want newer_hive only", r.Plan.Steps, r.Plan.Drift)
	}
}

// TestUninstallOfNewerHive checks that a newer rbee that does not understand this one is
// only removed with downgrade, by an uninstall and as an extra hive.
func TestUninstallOfNewerHive(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	syncFleet(t.Context(), openFleet(t, c, machines, nil), plan.Options{}, pkgmgr.ApplyOptions{})
	machines["gpu-00"].Edit(func(s *wire.State) { s.Schema, s.MinReader = 9, 9 })
	f := openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	for downgrade, want := range map[bool]int{false: 0, true: 2} {
		p := f.UninstallPlan(downgrade)
		if len(p.Steps) != want || (len(p.Blocked) == 0) != downgrade {
			t.Errorf("UninstallPlan(%t): steps %+v, blocked %+v; want %d steps", downgrade, p.Steps, p.Blocked, want)
		}
	}
	extra := openFleet(t, &config.Config{}, machines, func(o *pkgmgr.Options) { o.Extra = c.Hives })
	extra.Read(t.Context(), pkgmgr.ReadOptions{})
	p := extra.Plan(t.Context(), plan.Options{Fetch: true, RemoveExtra: true})
	if len(p.Steps) != 0 || len(p.Blocked) != 1 || p.Blocked[0].Error.Reason != operations.ReasonNewerHive {
		t.Errorf("an extra hive: steps %+v, blocked %+v; want it blocked with newer_hive", p.Steps, p.Blocked)
	}
}
