package controller

import (
	"path/filepath"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
)

// TestRunSupportsAllOperations checks that Run supports every kind of operation.
func TestRunSupportsAllOperations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, err := New(Options{Version: "1", Paths: pkgmgr.Paths{Home: dir, ConfigDir: filepath.Join(dir, "config"), StateDir: dir, CacheDir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	out := filepath.Join(t.TempDir(), "out")
	hive, worker := operations.Target{HiveID: "a"}, operations.WorkerRef{PID: 1}
	ops := []operations.Operation{
		operations.PackageSync{}, operations.PackageStatus{}, operations.PackageInstall{}, operations.PackageUninstall{},
		operations.PackageValidate{}, operations.PackageMigrate{OutputPath: out}, operations.PackageRollback{Hive: "a", Worker: "w"},
		operations.PackageBundle{OutputPath: out}, operations.HiveStart{Alias: "a"}, operations.HiveStop{Alias: "a"}, operations.HiveList{},
		operations.HiveGet{Alias: "a"}, operations.HiveStatus{Alias: "a"}, operations.HiveCapabilities{Alias: "a"},
		operations.WorkerSpawn{Target: hive, Model: "m", Worker: "w"}, operations.WorkerProcessList{},
		operations.WorkerProcessGet{Target: hive, WorkerRef: worker}, operations.WorkerProcessDelete{Target: hive, WorkerRef: worker},
		operations.WorkerProcessLogs{Target: hive, WorkerRef: worker}, operations.ModelDownload{Target: hive, Model: "o/m"},
		operations.ModelList{}, operations.ModelGet{Target: hive, ID: "o/m"}, operations.ModelDelete{Target: hive, ID: "o/m"},
		operations.Infer{Model: "m", Prompt: "p", MaxTokens: 1},
	}
	seen := map[operations.Kind]bool{}
	for _, op := range ops {
		seen[op.Kind()] = true
		// Without a config an operation has nothing to do or returns a not-found error.
		if _, err := c.Run(t.Context(), op, nil); err != nil && operations.CodeOf(err) != operations.CodeNotFound {
			t.Errorf("Run(%s) = %v, want nil or code not_found", op.Kind(), err)
		}
	}
	for _, kind := range operations.Kinds() {
		if !seen[kind] {
			t.Errorf("operation %s has no test case, want one for each kind", kind)
		}
	}
}
