package pkgmgr_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// engineCatalog returns a catalog with an engine that has two variants: one for NVIDIA GPUs
// with driver 580 or newer, and one for the CPU. verify is the verify section of the recipe.
func engineCatalog(t *testing.T, verify string) *catalog.Catalog {
	t.Helper()
	dir := t.TempDir()
	recipe := "type: engine\nsources:\n" +
		"  - { name: cuda-13, version: \"1\", gpu: nvidia, driver: \"580\", file: gpu }\n" +
		"  - { name: cpu, version: \"1\", file: cpu }\n" +
		"start: { args: [\"{port}\"] }\n" + verify
	for name, text := range map[string]string{"engine.yaml": recipe, "gpu": "#!/bin/sh\n", "cpu": "#!/bin/sh\n# cpu\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := catalog.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestVerifyCommandIsUpdated checks that a changed verify command of a recipe is stored on
// the hive without reinstalling the worker.
func TestVerifyCommandIsUpdated(t *testing.T) {
	t.Parallel()
	m := &fakehost.Machine{}
	c, machines := &config.Config{Hives: []config.Hive{echoHive("gpu-1", "engine")}}, fakehost.Machines{"gpu-1": m}
	sync := func(verify string) (*operations.SyncReport, wire.Worker) {
		t.Helper()
		f := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Catalog = engineCatalog(t, verify) })
		f.Read(t.Context(), pkgmgr.ReadOptions{Devices: f.NeedsDevices()})
		plan := f.Plan(t.Context(), plan.Options{Fetch: true})
		r := f.SyncReport(plan, f.Apply(t.Context(), plan, pkgmgr.ApplyOptions{}), time.Second)
		if r.Status != operations.StatusSuccess {
			t.Fatalf("sync with %q has status %s, want %s: %+v", verify, r.Status, operations.StatusSuccess, r)
		}
		workers := m.State().Workers
		return r, workers[slices.IndexFunc(workers, func(w wire.Worker) bool { return w.Type == "engine" })]
	}
	_, first := sync("verify: { command: [\"{entry}\"], matches: one, limit: 5s }\n")
	if want := (&wire.Verify{Command: []string{"{entry}"}, Matches: "one", LimitSeconds: 5}); !first.Verify.Equal(want) {
		t.Errorf("sync installed verify command %+v, want %+v", first.Verify, want)
	}
	for verify, want := range map[string]*wire.Verify{
		"verify: { command: [\"{entry}\"], matches: two }\n": {Command: []string{"{entry}"}, Matches: "two"},
		"": nil,
	} {
		r, updatedWorker := sync(verify)
		if !updatedWorker.Verify.Equal(want) || !updatedWorker.InstalledAt.Equal(first.InstalledAt) || updatedWorker.SHA256 != first.SHA256 {
			t.Errorf("sync with %q: worker %+v, want only the verify command of %+v changed", verify, updatedWorker, first)
		}
		if len(r.Plan.Drift) != 1 || r.Plan.Drift[0].Issue != operations.IssueOutdatedWorker || !strings.Contains(r.Plan.Drift[0].Details, "has a different verify command than the recipe") {
			t.Errorf("sync with %q has drift %+v, want a different verify command", verify, r.Plan.Drift)
		}
		if r, _ := sync(verify); len(r.Plan.Steps) != 0 {
			t.Errorf("second sync with %q has steps %+v, want none", verify, r.Plan.Steps)
		}
	}
}

// TestCPUFallbackWarning checks that sync, status and the record contain a warning about an
// engine that runs on the CPU of a machine with a GPU.
func TestCPUFallbackWarning(t *testing.T) {
	t.Parallel()
	const want = "engine runs on the CPU: driver 535.54 is older than 580"
	device := func(driver string) wire.State {
		return wire.State{Devices: []gpu.Device{{Vendor: "nvidia", Name: "RTX 4090", Driver: driver}}}
	}
	c := &config.Config{Hives: []config.Hive{echoHive("cpu-1", "engine"), echoHive("gpu-1", "engine"), echoHive("gpu-2", "engine")}}
	machines := fakehost.Machines{"cpu-1": {}, "gpu-1": {Initial: device("535.54")}, "gpu-2": {Initial: device("580.1")}}
	catalog, record := engineCatalog(t, ""), newRecord(t)
	open := func() *pkgmgr.Fleet {
		f := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Catalog = catalog })
		f.Read(t.Context(), pkgmgr.ReadOptions{Devices: f.NeedsDevices()})
		return f
	}
	check := func(name string, got []operations.ValidateWarning, hives ...string) {
		t.Helper()
		var warnings []operations.ValidateWarning
		for _, h := range hives {
			warnings = append(warnings, operations.ValidateWarning{Hive: h, Warning: want})
		}
		if !slices.Equal(got, warnings) {
			t.Errorf("%s: warnings %+v, want %+v", name, got, warnings)
		}
	}
	f := open()
	changes := f.Plan(t.Context(), plan.Options{Fetch: true})
	check("dry run", f.SyncReport(changes, nil, 0).Warnings, "gpu-1")
	check("status before", f.StatusReport(changes, false, 0).Warnings)
	r := f.SyncReport(changes, f.Apply(t.Context(), changes, pkgmgr.ApplyOptions{}), 0)
	check("sync", r.Warnings, "gpu-1")
	if r.Outcome() != operations.OutcomeOK || r.Status != operations.StatusSuccess {
		t.Errorf("sync has status %s and outcome %s, want success", r.Status, r.Outcome())
	}
	all := []string{"cpu-1", "gpu-1", "gpu-2"}
	if err := record.SetWarnings(all, "/one", f.Warnings(changes)); err != nil {
		t.Fatal(err)
	}
	f = open()
	s := f.StatusReport(f.Plan(t.Context(), plan.Options{}), false, 0)
	check("status", s.Warnings, "gpu-1")
	if s.Outcome() != operations.OutcomeOK {
		t.Errorf("status has outcome %s, want ok", s.Outcome())
	}

	// The record keeps the warnings until the hives are read again.
	checkRecord := func(name, config string, hives ...string) {
		t.Helper()
		list, err := record.Warnings(config)
		if err != nil {
			t.Fatal(err)
		}
		check(name, list, hives...)
	}
	checkRecord("record", "/one", "gpu-1")
	checkRecord("record of another config", "/two")
	if err := record.Update([]config.Hive{echoHive("gpu-1")}, nil, "/one", time.Now()); err != nil {
		t.Fatal(err)
	}
	checkRecord("record after an install", "/one", "gpu-1")
	if err := record.SetWarnings([]string{"cpu-1"}, "/one", nil); err != nil {
		t.Fatal(err)
	}
	checkRecord("record after another hive", "/one", "gpu-1")
	if err := record.Update(nil, []config.Hive{echoHive("gpu-1")}, "/one", time.Now()); err != nil {
		t.Fatal(err)
	}
	checkRecord("record after an uninstall", "/one")
}

func TestRecordWithoutWarningsIsNotWritten(t *testing.T) {
	t.Parallel()
	r := newRecord(t)
	if err := r.SetWarnings([]string{"a"}, "/one", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Path); err == nil {
		t.Errorf("SetWarnings() without warnings wrote %s, want no file", r.Path)
	}
	if err := (pkgmgr.Record{}).SetWarnings([]string{"a"}, "/one", []operations.ValidateWarning{{Hive: "a", Warning: "w"}}); err != nil {
		t.Errorf("SetWarnings() of a record without a file = %v, want nil", err)
	}
}
