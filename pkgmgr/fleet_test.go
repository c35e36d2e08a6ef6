package pkgmgr_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// echoHive returns a hive with the built-in worker echo and the workers in more.
func echoHive(alias string, more ...string) config.Hive {
	h := config.Hive{Alias: alias, Hostname: alias + ".example", HivePort: 8600, AutoStart: true}
	for _, w := range append([]string{"echo"}, more...) {
		h.Workers = append(h.Workers, config.Worker{Type: w, Version: version.Latest})
	}
	return h
}

// echoFleet returns a config of n hives and empty machines for them.
func echoFleet(n int) (*config.Config, fakehost.Machines) {
	c, machines := &config.Config{}, fakehost.Machines{}
	for i := range n {
		h := echoHive(fmt.Sprintf("gpu-%02d", i))
		c.Hives = append(c.Hives, h)
		machines[h.Alias] = &fakehost.Machine{}
	}
	return c, machines
}

// openFleet opens a fleet of machines. change edits the default options; it may be nil.
func openFleet(t *testing.T, c *config.Config, machines fakehost.Machines, change func(*pkgmgr.Options)) *pkgmgr.Fleet {
	t.Helper()
	o := pkgmgr.Options{Connect: machines.Connect, Binaries: fakehost.Rbee("1.0.0"), Version: "1.0.0", CacheDir: t.TempDir(), Owner: "me"}
	if change != nil {
		change(&o)
	}
	f, err := pkgmgr.Open(c, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// syncFleet reads the hives, plans, and applies the plan.
func syncFleet(ctx context.Context, f *pkgmgr.Fleet, po plan.Options, ao pkgmgr.ApplyOptions) *operations.SyncReport {
	f.Read(ctx, pkgmgr.ReadOptions{})
	po.Fetch = true
	p := f.Plan(ctx, po)
	return f.SyncReport(p, f.Apply(ctx, roundTrip(p), ao), time.Second)
}

// roundTrip encodes a plan as JSON and decodes it.
func roundTrip(p *plan.Plan) *plan.Plan {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	decoded := &plan.Plan{}
	if err := json.Unmarshal(data, decoded); err != nil {
		panic(err)
	}
	return decoded
}

// results formats the status of each hive as "alias=status".
func results(hives []operations.HiveReport) string {
	var all []string
	for _, h := range hives {
		all = append(all, fmt.Sprintf("%s=%s", h.Alias, h.Status))
	}
	return strings.Join(all, " ")
}

func TestSyncTwice(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(3)
	f := openFleet(t, c, machines, nil)
	r := syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})
	if got := results(r.Hives); got != "gpu-00=installed gpu-01=installed gpu-02=installed" {
		t.Fatalf("sync: %s, want all hives installed", got)
	}
	if want := (operations.SyncSummary{HivesInstalled: 3, WorkersInstalled: 3, DurationSeconds: 1}); r.Summary != want || r.Status != operations.StatusSuccess {
		t.Errorf("sync: status %s, summary %+v, want %s and %+v", r.Status, r.Summary, operations.StatusSuccess, want)
	}
	for alias, m := range machines {
		s := m.State()
		if s.Rbee == nil || s.Rbee.Version != "1.0.0" || !s.Daemon.Running || s.Settings.Alias != alias {
			t.Errorf("%s: state %+v, want rbee 1.0.0, a running daemon and the alias", alias, s)
		}
		if len(s.Workers) != 1 || s.Workers[0].Type != "echo" || s.Workers[0].Requested != version.Latest || s.Workers[0].SHA256 != s.Rbee.SHA256 {
			t.Errorf("%s: workers %+v, want the echo of this rbee", alias, s.Workers)
		}
		if got, want := m.Calls(), (fakehost.Calls{Connects: 1, Scripts: 1, Puts: 1, Runs: 1}); got != want {
			t.Errorf("%s: calls %+v, want %+v", alias, got, want)
		}
	}

	again := openFleet(t, c, machines, nil)
	r = syncFleet(t.Context(), again, plan.Options{}, pkgmgr.ApplyOptions{})
	if want := (operations.SyncSummary{HivesAlreadyInstalled: 3, WorkersAlreadyInstalled: 3, DurationSeconds: 1}); r.Summary != want || len(r.Plan.Steps) != 0 {
		t.Errorf("second sync: summary %+v, steps %+v, want %+v and no steps", r.Summary, r.Plan.Steps, want)
	}
	for alias, m := range machines {
		if got := m.Calls(); got.Puts != 1 || got.Runs != 1 {
			t.Errorf("%s: calls %+v after the second sync, want one Put and one Run", alias, got)
		}
	}
	status := again.StatusReport(again.Plan(t.Context(), plan.Options{}), true, 0)
	if status.Status != operations.StatusInSync || status.Summary.HivesOK != 3 || len(status.Hives) != 3 || status.Hives[0].Workers[0].Type != "echo" {
		t.Errorf("StatusReport() = %+v, want 3 hives in sync", status)
	}
}

func TestDryRun(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(2)
	machines["gpu-01"].Unreachable = &fakehost.ConnectError{Code: "timeout", Message: "no answer"}
	f := openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	r := f.SyncReport(f.Plan(t.Context(), plan.Options{Fetch: true}), nil, 0)
	if got := results(r.Hives); got != "gpu-00=pending gpu-01=unreachable" || r.Status != operations.StatusChangesPending {
		t.Errorf("dry run: status %s, hives %s, want one pending and one unreachable", r.Status, got)
	}
	if want := (operations.SyncSummary{HivesInstalled: 1, HivesUnreachable: 1, WorkersInstalled: 1}); r.Summary != want {
		t.Errorf("dry run: summary %+v, want %+v", r.Summary, want)
	}
	if s := machines["gpu-00"].State(); s.Rbee != nil {
		t.Errorf("the dry run installed rbee %+v, want none", s.Rbee)
	}
}

func TestFailureIsIsolated(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(5)
	machines["gpu-00"].Unreachable = &fakehost.ConnectError{Code: "host_key_changed", Message: "the host key has changed"}
	machines["gpu-01"].FailPut = errors.New("disk full")
	machines["gpu-02"].FailStep = map[string]error{"echo": errors.New("cannot install echo")}
	machines["gpu-03"].FailStep = map[string]error{"": errors.New("exec format error")}
	r := syncFleet(t.Context(), openFleet(t, c, machines, nil), plan.Options{}, pkgmgr.ApplyOptions{})
	if got := results(r.Hives); got != "gpu-00=unreachable gpu-01=failed gpu-02=failed gpu-03=failed gpu-04=installed" {
		t.Fatalf("sync: %s, want four failures and one hive installed", got)
	}
	want := operations.SyncSummary{
		HivesInstalled: 1, HivesFailed: 3, HivesUnreachable: 1, WorkersInstalled: 1, WorkersFailed: 3, DurationSeconds: 1,
	}
	if r.Summary != want || r.Status != operations.StatusPartial || r.Outcome() != operations.OutcomeFailed {
		t.Errorf("sync: status %s, outcome %s, summary %+v, want %s, %s and %+v", r.Status, r.Outcome(), r.Summary, operations.StatusPartial, operations.OutcomeFailed, want)
	}
	for i, message := range []string{"the host key has changed", "cannot send rbee: disk full", "cannot install echo", "exec format error"} {
		if e := r.Hives[i].Error; e == nil || !strings.Contains(e.Message, message) || e.Hive != r.Hives[i].Alias {
			t.Errorf("%s: error %v, want %q in it", r.Hives[i].Alias, e, message)
		}
	}
	if e := r.Hives[0].Error; e.Code != operations.CodeUnreachable || e.Reason != "host_key_changed" {
		t.Errorf("gpu-00: error %+v, want code %s and reason host_key_changed", e, operations.CodeUnreachable)
	}
	// A failed worker does not prevent the installation of rbee and the start of the daemon.
	if s := machines["gpu-02"].State(); s.Rbee == nil || !s.Daemon.Running || len(s.Workers) != 0 || len(r.Hives[2].Steps) != 2 {
		t.Errorf("gpu-02: state %+v, report %+v, want rbee and a running daemon without workers", s, r.Hives[2])
	}
	if s := machines["gpu-03"].State(); s.Rbee != nil || len(r.Hives[3].FailedSteps) != 3 {
		t.Errorf("gpu-03: state %+v, report %+v, want no rbee and 3 failed steps", s, r.Hives[3])
	}
}

// TestStatusUsesOneConnection checks that status opens one connection and runs one command per
// hive.
func TestStatusUsesOneConnection(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(6)
	f := openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	r := f.StatusReport(f.Plan(t.Context(), plan.Options{}), false, 0)
	want := operations.StatusSummary{TotalHives: 6, HivesMissing: 6, WorkersMissing: 6}
	if r.Status != operations.StatusDriftDetected || r.Summary != want || r.Hives != nil {
		t.Errorf("StatusReport() = %+v, want drift with summary %+v", r, want)
	}
	for alias, m := range machines {
		if got, want := m.Calls(), (fakehost.Calls{Connects: 1, Scripts: 1}); got != want {
			t.Errorf("%s: calls %+v, want %+v", alias, got, want)
		}
	}
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	if got, want := machines["gpu-00"].Calls(), (fakehost.Calls{Connects: 1, Scripts: 2}); got != want {
		t.Errorf("gpu-00: calls %+v after a second Read, want %+v", got, want)
	}
}

// TestParallelLimit checks that exactly Options.Parallel hives connect at once: each of two
// connections waits for the other one, and no third connection is open at the same time.
func TestParallelLimit(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(12)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	meet := make(chan struct{})
	var current, peak atomic.Int64
	f := openFleet(t, c, machines, func(o *pkgmgr.Options) {
		o.Parallel = 2
		o.Connect = func(ctx context.Context, h config.Hive) (pkgmgr.Host, error) {
			n := current.Add(1)
			defer current.Add(-1)
			for m := peak.Load(); n > m && !peak.CompareAndSwap(m, n); m = peak.Load() {
			}
			select {
			case meet <- struct{}{}:
			case <-meet:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			return machines.Connect(ctx, h)
		}
	})
	f.Read(ctx, pkgmgr.ReadOptions{})
	for _, s := range f.States() {
		if s.Err != nil {
			t.Fatalf("Read() of %s = %v, want no error", s.Hive.Alias, s.Err)
		}
	}
	if peak.Load() != 2 {
		t.Errorf("%d connections at once, want 2", peak.Load())
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(20)
	machines["gpu-19"].Unreachable = errors.New("no route")
	var handling, done atomic.Bool
	phases, steps := map[string][]operations.Phase{}, map[string][]string{}
	f := openFleet(t, c, machines, func(o *pkgmgr.Options) {
		o.Events = func(e operations.Event) {
			if handling.Swap(true) || done.Load() || e.Time.IsZero() {
				t.Errorf("event %+v overlaps with another one, comes after Apply, or has no time", e)
			}
			switch e.Type {
			case operations.EventPhase:
				phases[e.Hive] = append(phases[e.Hive], e.Phase)
			case operations.EventStep:
				steps[e.Hive] = append(steps[e.Hive], fmt.Sprintf("%s %s", e.Step.Action, e.StepStatus))
			}
			handling.Store(false)
		}
	})
	syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})
	done.Store(true)
	wantPhases := []operations.Phase{operations.PhaseConnecting, operations.PhaseReading, operations.PhaseApplying, operations.PhaseDone}
	wantSteps := []string{
		"install_hive started", "install_hive done", "install_worker started", "install_worker done", "start_hive started", "start_hive done",
	}
	for i := range 19 {
		alias := fmt.Sprintf("gpu-%02d", i)
		if !slices.Equal(phases[alias], wantPhases) || !slices.Equal(steps[alias], wantSteps) {
			t.Errorf("%s: phases %v and steps %v, want %v and %v", alias, phases[alias], steps[alias], wantPhases, wantSteps)
		}
	}
	if got := phases["gpu-19"]; !slices.Equal(got, []operations.Phase{operations.PhaseConnecting, operations.PhaseUnreachable}) {
		t.Errorf("gpu-19: phases %v, want connecting and unreachable", got)
	}
}

func TestExtraHivesAndWorkers(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(3)
	syncFleet(t.Context(), openFleet(t, c, machines, nil), plan.Options{}, pkgmgr.ApplyOptions{})
	machines["gpu-00"].Edit(func(s *wire.State) { s.Workers = append(s.Workers, wire.Worker{Type: "old", Unmanaged: true}) })
	machines["gpu-02"].Edit(func(s *wire.State) { s.Broken = "segmentation fault" })
	smaller := &config.Config{Hives: c.Hives[:1]}
	extras := func(o *pkgmgr.Options) { o.Extra = c.Hives[1:] }

	f := openFleet(t, smaller, machines, extras)
	r := syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})
	status := f.StatusReport(&plan.Plan{Plan: r.Plan}, false, 0)
	if want := (operations.StatusSummary{TotalHives: 1, HivesExtra: 2, WorkersExtra: 1}); status.Summary != want || len(r.Plan.Steps) != 0 {
		t.Errorf("StatusReport() has summary %+v, steps %+v, want %+v and no steps", status.Summary, r.Plan.Steps, want)
	}
	f = openFleet(t, smaller, machines, extras)
	r = syncFleet(t.Context(), f, plan.Options{RemoveExtra: true}, pkgmgr.ApplyOptions{})
	if got := results(r.Hives); got != "gpu-00=updated gpu-01=uninstalled gpu-02=uninstalled" {
		t.Errorf("sync with RemoveExtra: %s, want one update and two uninstalls: %+v", got, r.Hives)
	}
	if r.Summary.HivesRemoved != 2 || r.Summary.WorkersRemoved != 1 || r.Status != operations.StatusSuccess {
		t.Errorf("sync with RemoveExtra: status %s, summary %+v, want 2 hives and 1 worker removed", r.Status, r.Summary)
	}
	if s := machines["gpu-01"].State(); s.Rbee != nil || len(s.Workers) != 0 || s.Settings != nil {
		t.Errorf("gpu-01: state %+v after the uninstall, want no rbee, workers or settings", s)
	}
}

func TestUninstall(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(4)
	machines["gpu-01"].Initial = wire.State{Workers: []wire.Worker{{Type: "old", Unmanaged: true}}} // workers, no rbee
	machines["gpu-02"].Unreachable = errors.New("no route")
	f := openFleet(t, &config.Config{Hives: c.Hives[:1]}, machines, nil)
	syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})

	f = openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	if got := results(f.Apply(t.Context(), f.UninstallPlan(false), pkgmgr.ApplyOptions{})); got !=
		"gpu-00=uninstalled gpu-01=uninstalled gpu-02=unreachable gpu-03=not_installed" {
		t.Errorf("Apply(UninstallPlan()) = %s, want two uninstalls, one unreachable and one not installed", got)
	}
	noBinaries := openFleet(t, &config.Config{Hives: c.Hives[1:2]}, fakehost.Machines{
		"gpu-01": {Initial: wire.State{Workers: []wire.Worker{{Type: "old"}}}},
	}, func(o *pkgmgr.Options) { o.Binaries = nil })
	noBinaries.Read(t.Context(), pkgmgr.ReadOptions{})
	got := noBinaries.Apply(t.Context(), noBinaries.UninstallPlan(false), pkgmgr.ApplyOptions{})
	if got[0].Status != operations.HiveFailed || !strings.Contains(got[0].Error.Message, "Options.Binaries is nil") {
		t.Errorf("Apply(UninstallPlan()) without Binaries = %+v, want it failed", got[0])
	}
}

func TestDaemon(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(2)
	f := openFleet(t, &config.Config{Hives: c.Hives[:1]}, machines, nil)
	syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})
	f = openFleet(t, c, machines, nil)
	for _, running := range []bool{false, true} {
		action := operations.ActionStopHive
		if running {
			action = operations.ActionStartHive
		}
		f.Read(t.Context(), pkgmgr.ReadOptions{})
		if got := results(f.Daemon(t.Context(), action, pkgmgr.ApplyOptions{})); got != "gpu-00=updated gpu-01=not_installed" {
			t.Errorf("Daemon(%s) = %s, want gpu-00 updated and gpu-01 not installed", action, got)
		}
		if s := machines["gpu-00"].State(); s.Daemon.Running != running {
			t.Errorf("gpu-00: daemon %+v after %s, want Running %t", s.Daemon, action, running)
		}
	}
}

func TestRepairAndForce(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	m := machines["gpu-00"]
	f := openFleet(t, c, machines, nil)
	syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})
	m.Corrupt("echo", "bin/echo is missing")
	r := syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})
	if got := results(r.Hives); got != "gpu-00=updated" || m.State().Workers[0].Corrupt != "" {
		t.Errorf("sync: %s, workers %+v, want the damaged worker repaired", got, m.State().Workers)
	}
	before := m.State().Workers[0].InstalledAt
	r = syncFleet(t.Context(), f, plan.Options{Force: true}, pkgmgr.ApplyOptions{})
	if after := m.State().Workers[0].InstalledAt; !after.After(before) || len(r.Hives[0].Steps) != 3 {
		t.Errorf("sync with Force: report %+v, worker installed at %s, want 3 steps and a new installation", r.Hives[0], after)
	}
}

func TestOpenSelectsHives(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(3)
	c.Hives[1].Labels = []string{"big"}
	extra := echoHive("extra")
	aliases := func(o pkgmgr.Options) (string, error) {
		o.Connect, o.Extra = machines.Connect, []config.Hive{extra}
		f, err := pkgmgr.Open(c, o)
		if err != nil {
			return "", err
		}
		var all []string
		for _, s := range f.States() {
			all = append(all, s.Hive.Alias)
			if s.Extra != (s.Hive.Alias == "extra") {
				t.Errorf("%s: Extra = %t, want %t", s.Hive.Alias, s.Extra, !s.Extra)
			}
		}
		return strings.Join(all, " "), nil
	}
	for _, tt := range []struct {
		o    pkgmgr.Options
		want string
	}{
		{pkgmgr.Options{}, "extra gpu-00 gpu-01 gpu-02"},
		{pkgmgr.Options{Aliases: []string{"gpu-02", "gpu-00"}}, "gpu-00 gpu-02"},
		{pkgmgr.Options{Aliases: []string{"extra"}}, "extra"},
		{pkgmgr.Options{Labels: []string{"big"}}, "gpu-01"},
		{pkgmgr.Options{Labels: []string{"none"}}, ""},
	} {
		if got, err := aliases(tt.o); err != nil || got != tt.want {
			t.Errorf("Open() of aliases %v and labels %v has hives %q, %v, want %q", tt.o.Aliases, tt.o.Labels, got, err, tt.want)
		}
	}
	if _, err := aliases(pkgmgr.Options{Aliases: []string{"gpu-0"}}); operations.CodeOf(err) != operations.CodeNotFound {
		t.Errorf("Open() of an unknown alias = %v, want code %s", err, operations.CodeNotFound)
	}
	if _, err := pkgmgr.Open(c, pkgmgr.Options{}); err == nil {
		t.Error("Open() without Connect = nil, want an error")
	}
}

// TestOnlyConnectIsRequired checks that all options except Connect have defaults.
func TestOnlyConnectIsRequired(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	f := openFleet(t, c, machines, func(o *pkgmgr.Options) { *o = pkgmgr.Options{Connect: machines.Connect} })
	r := syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})
	if got := results(r.Hives); got != "gpu-00=not_installed" || len(r.Plan.Blocked) != 1 || r.Outcome() != operations.OutcomeFailed {
		t.Errorf("sync: %s, plan %+v, want gpu-00 blocked", got, r.Plan)
	}
}
