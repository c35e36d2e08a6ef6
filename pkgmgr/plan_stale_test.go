package pkgmgr_test

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// readAndPlan returns a fleet after Read, and its plan.
func (f *lockFleet) readAndPlan(o plan.Options) (*pkgmgr.Fleet, *plan.Plan) {
	f.t.Helper()
	fleet, _ := f.open(nil)
	fleet.Read(f.t.Context(), pkgmgr.ReadOptions{})
	o.Fetch = true
	return fleet, fleet.Plan(f.t.Context(), o)
}

// TestRejectedPlanKeepsLock checks that a plan that was made before an upgrade fails on all
// hives, and that the lock keeps the newer version.
func TestRejectedPlanKeepsLock(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	_, old := f.readAndPlan(plan.Options{})
	f.addRelease("1.1")
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
	if got, want := f.lockedVersion(), "1.1"; got != want {
		t.Errorf("locked version = %s, want %s", got, want)
	}
}

// TestStaleStepsFail checks that the steps of a plan fail on the hive, under its lock, if
// another run changed the hive after this Fleet read it.
func TestStaleStepsFail(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	f.sync(plan.Options{}, nil)
	slow, stale := f.readAndPlan(plan.Options{Force: true})
	f.addRelease("1.1")
	f.sync(plan.Options{Upgrade: true}, nil)
	for _, r := range slow.Apply(t.Context(), stale, pkgmgr.ApplyOptions{}) {
		ok := slices.ContainsFunc(r.FailedSteps, func(s operations.FailedStep) bool {
			return s.Step.Worker == "engine" && s.Error.Reason == operations.ReasonStateChanged
		})
		if !ok {
			t.Errorf("%s: Apply() has failed steps %+v, want the engine with reason %s", r.Alias, r.FailedSteps, operations.ReasonStateChanged)
		}
	}
	if got, want := f.version("gpu-00"), "1.1"; got != want {
		t.Errorf("installed version = %s, want %s", got, want)
	}
}

// TestApplySamePlanTwice checks that equal plans of two Fleets can be applied one after the
// other: the second one succeeds because the hives already have the expected workers.
func TestApplySamePlanTwice(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	first, firstPlan := f.readAndPlan(plan.Options{})
	second, secondPlan := f.readAndPlan(plan.Options{})
	for _, run := range []struct {
		name  string
		fleet *pkgmgr.Fleet
		plan  *plan.Plan
	}{{"first", first, firstPlan}, {"second", second, secondPlan}} {
		if got, want := results(run.fleet.Apply(t.Context(), run.plan, pkgmgr.ApplyOptions{})), "gpu-00=installed gpu-01=installed"; got != want {
			t.Errorf("%s Apply() = %s, want %s", run.name, got, want)
		}
	}
}

// TestForcedPlan checks that a plan with Force reinstalls the workers even if another Fleet
// applies the plan.
func TestForcedPlan(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	f.sync(plan.Options{}, nil)
	before := f.machines["gpu-00"].State().Workers
	_, forced := f.readAndPlan(plan.Options{Force: true})
	other, _ := f.open(nil)
	other.Read(t.Context(), pkgmgr.ReadOptions{})
	other.Apply(t.Context(), roundTrip(forced), pkgmgr.ApplyOptions{})
	for i, w := range f.machines["gpu-00"].State().Workers {
		if !w.InstalledAt.After(before[i].InstalledAt) {
			t.Errorf("%s was installed at %s, want after %s", w.Type, w.InstalledAt, before[i].InstalledAt)
		}
	}
}

// TestPlanTwice checks that two plans contain the same changes of the lock if the lock is
// not saved between them.
func TestPlanTwice(t *testing.T) {
	t.Parallel()
	f := newLockFleet(t)
	f.addRelease("1.0")
	fleet, first := f.readAndPlan(plan.Options{})
	second := fleet.Plan(t.Context(), plan.Options{Fetch: true})
	if got, want := len(second.Lock.Workers), len(first.Lock.Workers); got != want || got == 0 {
		t.Errorf("the second Plan() has %d changed versions, want %d", got, want)
	}
}

// TestPlanForOtherHives applies a plan with a Fleet that has only some of its hives.
func TestPlanForOtherHives(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(2)
	f := openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	p := f.Plan(t.Context(), plan.Options{Fetch: true})
	part := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Aliases = []string{"gpu-00"} })
	part.Read(t.Context(), pkgmgr.ReadOptions{})
	reports := part.Apply(t.Context(), p, pkgmgr.ApplyOptions{})
	if got, want := results(reports), "gpu-00=installed gpu-01=failed"; got != want {
		t.Errorf("Apply() = %s, want %s", got, want)
	}
	if got := reports[1].Error; got == nil || got.Reason != operations.ReasonUnknownHive {
		t.Errorf("Apply() has error %+v for the other hive, want reason %s", got, operations.ReasonUnknownHive)
	}
	if got := part.Apply(t.Context(), nil, pkgmgr.ApplyOptions{}); len(got) != 1 {
		t.Errorf("Apply(nil) has %d reports, want 1", len(got))
	}
	p = part.Plan(t.Context(), plan.Options{Fetch: true, Force: true})
	p.Steps[0].Action = "fly"
	if r := part.Apply(t.Context(), p, pkgmgr.ApplyOptions{})[0]; len(r.FailedSteps) == 0 || r.FailedSteps[0].Error.Reason != operations.ReasonUnsupported {
		t.Errorf("Apply() of an unknown action has failed steps %+v, want reason %s", r.FailedSteps, operations.ReasonUnsupported)
	}
}

// TestSavedPlanHasNoSecrets checks that the JSON of a plan contains no local path and no
// query of a URL.
func TestSavedPlanHasNoSecrets(t *testing.T) {
	t.Parallel()
	catalog, dir := recipes(t, map[string]string{
		"q.yaml": "type: q\nsources:\n- {version: \"1\", url: \"https://h.example/x?token=S3CRET\", sha256: " + strings.Repeat("a", 64) + "}\n",
		"r.yaml": "type: r\nsources:\n- {version: \"1\", file: ./missing}\n",
	})
	c, machines := echoFleet(2)
	c.Hives[0] = echoHive("gpu-00", "q", "r")
	machines["gpu-01"].Unreachable = &fakehost.ConnectError{Code: "config", Message: "cannot use key file: open " + filepath.Join(dir, "id")}
	f := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Catalog = catalog })
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	p := f.Plan(t.Context(), plan.Options{Fetch: true})
	if len(p.Installs) != 2 || len(p.Blocked) != 1 || len(p.Drift) == 0 {
		t.Errorf("Plan() has %d installs, blocked %+v, drift %+v; want 2 installs, 1 blocked and drift", len(p.Installs), p.Blocked, p.Drift)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"S3CRET", dir} {
		if strings.Contains(string(data), secret) {
			t.Errorf("the plan is %s, want no %q in it", data, secret)
		}
	}
	var urls []string
	machines["gpu-00"].OnStep = func(s wire.Step) error {
		if s.Worker != nil && s.Worker.Type == "q" {
			urls = append(urls, s.Worker.Steps[0].Artifact.URL)
		}
		return nil
	}
	f.Apply(t.Context(), roundTrip(p), pkgmgr.ApplyOptions{})
	if len(urls) != 1 || urls[0] != "https://h.example/x?token=S3CRET" {
		t.Errorf("the hive got URLs %q, want the URL in the recipe", urls)
	}
}

// TestNewerHiveKeepsItsWorkers checks that the built-in workers of a hive with a newer rbee are
// not replaced.
func TestNewerHiveKeepsItsWorkers(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	newer := func(o *pkgmgr.Options) { o.Binaries, o.Version = fakehost.Rbee("1.1.0"), "1.1.0" }
	syncFleet(t.Context(), openFleet(t, c, machines, newer), plan.Options{}, pkgmgr.ApplyOptions{})
	r := syncFleet(t.Context(), openFleet(t, c, machines, nil), plan.Options{}, pkgmgr.ApplyOptions{})
	if len(r.Plan.Steps) != 0 || len(r.Plan.Drift) != 1 || r.Plan.Drift[0].Issue != operations.IssueNewerHive {
		t.Errorf("Plan() has steps %+v, drift %+v; want no steps and only newer_hive", r.Plan.Steps, r.Plan.Drift)
	}
}

// TestUninstallOfNewerHive checks that a newer, incompatible rbee is removed only with
// downgrade, both by an uninstall and as an extra hive.
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
			t.Errorf("UninstallPlan(%t) has steps %+v, blocked %+v; want %d steps", downgrade, p.Steps, p.Blocked, want)
		}
	}
	extra := openFleet(t, &config.Config{}, machines, func(o *pkgmgr.Options) { o.Extra = c.Hives })
	extra.Read(t.Context(), pkgmgr.ReadOptions{})
	p := extra.Plan(t.Context(), plan.Options{Fetch: true, RemoveExtra: true})
	if len(p.Steps) != 0 || len(p.Blocked) != 1 || p.Blocked[0].Error.Reason != operations.ReasonNewerHive {
		t.Errorf("Plan() of an extra hive has steps %+v, blocked %+v; want it blocked with newer_hive", p.Steps, p.Blocked)
	}
}
