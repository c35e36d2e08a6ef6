package operations_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
)

func ExampleParse() {
	op, err := operations.Parse([]byte(`{"operation": "package_sync", "hive_alias": "gpu-1", "dry_run": true}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	sync := op.(operations.PackageSync)
	fmt.Println(sync.Kind(), sync.Hives, sync.DryRun)
	// Output: package_sync [gpu-1] true
}

func ExampleParse_invalid() {
	for _, in := range []string{
		`{"operation": "package_sync", "dryrun": true}`,
		`{"operation": "hive_install", "alias": "gpu-1"}`,
	} {
		_, err := operations.Parse([]byte(in))
		fmt.Printf("%s: %v\n", operations.CodeOf(err), err)
	}
	// Output:
	// bad_operation: package_sync: unknown field "dryrun", did you mean "dry_run"?
	// removed_operation: operation "hive_install" was removed: use "package_sync"
}

// Use encoding/json to get the wire form of an operation.
func ExampleOperation() {
	op := operations.PackageInstall{Scope: operations.Scope{Hives: operations.Aliases{"gpu-1", "gpu-2"}}}
	data, err := json.Marshal(op)
	fmt.Println(string(data), err)
	// Output: {"operation":"package_install","hive_alias":["gpu-1","gpu-2"],"force":false} <nil>
}

// fakeRunner is a Runner for PackageStatus with two hives.
type fakeRunner struct{}

func (fakeRunner) Run(_ context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	if _, ok := op.(operations.PackageStatus); !ok {
		return nil, &operations.Error{Code: operations.CodeUnsupported, Message: "unsupported operation " + string(op.Kind())}
	}
	for _, hive := range []string{"gpu-1", "gpu-2"} {
		events(operations.Event{Type: operations.EventPhase, Hive: hive, Phase: operations.PhaseReading})
	}
	return &operations.StatusReport{
		Status: operations.StatusInSync, Summary: operations.StatusSummary{TotalHives: 2, HivesOK: 2},
	}, nil
}

// A program that uses a Runner does not depend on where the operation runs.
func ExampleRunner() {
	var runner operations.Runner = fakeRunner{}
	report, err := runner.Run(context.Background(), operations.PackageStatus{}, func(e operations.Event) {
		fmt.Println(e.Hive, e.Phase)
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if status, ok := report.(*operations.StatusReport); ok {
		fmt.Printf("%s: %d of %d hives ok\n", status.Status, status.Summary.HivesOK, status.Summary.TotalHives)
	}
	// Output:
	// gpu-1 reading
	// gpu-2 reading
	// in_sync: 2 of 2 hives ok
}

func ExampleShouldForwardToHive() {
	fmt.Println(operations.ShouldForwardToHive(operations.PackageSync{}))
	fmt.Println(operations.ShouldForwardToHive(operations.ModelList{Target: operations.Target{HiveID: "gpu-1"}}))
	// Output:
	// false
	// true
}
