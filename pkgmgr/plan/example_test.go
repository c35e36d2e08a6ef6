package plan_test

import (
	"errors"
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Diff needs no hive and no network: the states are its input.
func ExampleDiff() {
	hive := config.Hive{
		Alias: "gpu-1", Hostname: "gpu-1.example", HivePort: config.DefaultHivePort,
		Workers: []config.Worker{{Type: "llama-cpp", Version: "b4000"}},
	}
	platform := wire.Platform{OS: "linux", Arch: "arm64"}
	want := plan.Desired{
		Version:  "1.0.0",
		Binaries: map[string]plan.DesiredBinary{platform.Key(): {Version: "1.0.0", Size: 9 << 20}},
		Workers: map[plan.WorkerKey]plan.DesiredWorker{
			{Hive: "gpu-1", Type: "llama-cpp"}: {Err: errors.New("unknown worker type")},
		},
	}
	p := plan.Diff([]plan.HiveState{
		{Hive: hive, State: &wire.State{Platform: platform}},
		{Hive: config.Hive{Alias: "gpu-2"}, Err: &operations.Error{Message: "no route to host"}},
	}, want, plan.Options{})
	for _, d := range p.Drift {
		fmt.Printf("drift: %s %s %q\n", d.Hive, d.Issue, d.Worker)
	}
	for _, s := range p.Steps {
		fmt.Println("step:", s.Hive, s.Action, s.Version, s.Bytes)
	}
	for _, b := range p.Blocked {
		fmt.Println("blocked:", b.Hive, b.Worker, b.Reason)
	}
	// Output:
	// drift: gpu-1 missing_hive ""
	// drift: gpu-1 missing_worker "llama-cpp"
	// drift: gpu-2 unreachable ""
	// step: gpu-1 install_hive 1.0.0 9437184
	// blocked: gpu-1 llama-cpp unknown worker type
}
