package pkgmgr_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// setRecipe replaces the recipe of the engine.
func (f *lockFleet) setRecipe(recipe string) {
	f.t.Helper()
	dir := filepath.Dir(f.lock)
	if err := os.WriteFile(filepath.Join(dir, "engine.yaml"), []byte(recipe), 0o600); err != nil {
		f.t.Fatal(err)
	}
	catalog, err := catalog.Load(dir)
	if err != nil {
		f.t.Fatal(err)
	}
	f.catalog = catalog
}

// status returns a plan without network lookups.
func (f *lockFleet) status() *plan.Plan {
	fleet, _ := f.open(nil)
	fleet.Read(f.t.Context(), pkgmgr.ReadOptions{})
	return fleet.Plan(f.t.Context(), plan.Options{})
}

// newSyncedPythonFleet returns a fleet whose engine is installed. Since the installation, a
// newer version of a dependency was published.
func newSyncedPythonFleet(t *testing.T) *lockFleet {
	f := newRecipeFleet(t, pythonRecipe)
	f.addTools("0.9.9", "20251120")
	f.addWheel("1.0")
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.0"})
	if r := f.sync(plan.Options{}, nil); f.version("gpu-01") != "1.0" {
		t.Fatalf("sync: gpu-01 has engine %q, blocked %+v, want 1.0", f.version("gpu-01"), r.Plan.Blocked)
	}
	f.origin.AddWheel(origintest.Wheel{Name: "wax", Version: "1.1"})
	return f
}

// recipeEdits are replacements in pythonRecipe that do not change its install steps.
var recipeEdits = map[string][2]string{
	"version range":  {"- os: linux", "- os: linux\n    version: \">=0.5\""},
	"conditions":     {"- os: linux", "- libc: glibc\n    arch: amd64"},
	"default glibc":  {"- os: linux", "- os: linux\n    libc: glibc\n    glibc: \"2.28\""},
	"source name":    {"- os: linux", "- name: any\n    os: linux"},
	"another source": {"- os: linux", "- os: linux\n    arch: arm64\n    steps: [python: { version: \"3.12\", packages: [\"engine=={version}\", wax] }]\n    entry: venv/bin/engine\n  - os: linux"},
	"description":    {"type: engine", "type: engine\ndescription: An engine"},
}

// TestRecipeEditKeepsLock checks that a changed description or condition in a recipe does
// not resolve the version again.
func TestRecipeEditKeepsLock(t *testing.T) {
	t.Parallel()
	f := newSyncedPythonFleet(t)
	for name, edit := range recipeEdits {
		f.setRecipe(strings.Replace(pythonRecipe, edit[0], edit[1], 1))
		if plan := f.status(); len(plan.Drift) != 0 {
			t.Errorf("%s: status has drift %+v, want none", name, plan.Drift)
		}
		if plan, _ := f.plan(plan.Options{}); len(plan.Steps)+len(plan.Upgrades)+len(plan.Blocked) != 0 {
			t.Errorf("%s: Plan() = %+v, want no changes", name, plan)
		}
	}
}

// TestRecipeEditIsDrift checks that changed install steps of a locked version are drift, and
// that the plan contains the changed packages.
func TestRecipeEditIsDrift(t *testing.T) {
	t.Parallel()
	for packages, want := range map[string]string{
		`"engine=={version}", "wax>=1.1"`: "1.0 (wax 1.0) -> 1.0 (wax 1.1)",
		`"engine=={version}", honey`:      "1.0 (wax 1.0) -> 1.0 (honey 2.0, wax 1.1)",
		`"engine=={version}", "wax<1.1"`:  "", // the same wheels
	} {
		f := newSyncedPythonFleet(t)
		f.origin.AddWheel(origintest.Wheel{Name: "honey", Version: "2.0"})
		f.setRecipe(strings.Replace(pythonRecipe, `"engine=={version}"`, packages, 1))
		changes := f.status()
		if len(changes.Drift) != 2 || changes.Drift[0].Issue != operations.IssueOutdatedWorker || changes.Drift[0].Details != "Worker 'engine' 1.0 was locked before the recipe changed" {
			t.Errorf("%s: status has drift %+v, want outdated_worker on both hives", packages, changes.Drift)
		}
		r := f.sync(plan.Options{}, nil)
		got := ""
		for _, u := range r.Plan.Upgrades {
			got += u.From + " -> " + u.To
		}
		if steps := len(r.Plan.Steps); got != want || (steps == 2) != (want != "") || (steps == 0) != (want == "") {
			t.Errorf("%s: sync has upgrades %q, want %q: %+v", packages, got, want, r.Plan.Steps)
		}
		if plan := f.status(); len(plan.Drift) != 0 {
			t.Errorf("%s: status after sync has drift %+v, want none", packages, plan.Drift)
		}
	}
}
