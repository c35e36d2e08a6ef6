package controller

import (
	"path/filepath"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
)

// TestEveryOperationIsKnown holds that the controller has a way for every kind of
// operation, and takes to hives what the routing rule says.
func TestEveryOperationIsKnown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	q, err := New(Options{Version: "1", Paths: pkgmgr.Paths{Home: dir, ConfigDir: filepath.Join(dir, "config"), StateDir: dir, CacheDir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
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
		// There is no config, so that each has nothing to do or ends where it looks for one.
		if _, err := q.Run(t.Context(), op, nil); err != nil && operations.CodeOf(err) != operations.CodeNotFound {
			t.Errorf("%s: %v", op.Kind(), err)
		}
	}
	for _, kind := range operations.Kinds() {
		if !seen[kind] {
			t.Errorf("%s is not asked for here", kind)
		}
	}
}
