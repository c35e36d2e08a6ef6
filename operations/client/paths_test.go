package client_test

import (
	"errors"
	"reflect"
	"testing"

	ops "github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
)

func TestMapPaths(t *testing.T) {
	t.Parallel()
	addBase := func(path string) (string, error) { return "/base/" + path, nil }
	target := ops.Target{HiveID: "gpu-1", ConfigPath: "c"}
	wantTarget := ops.Target{HiveID: "gpu-1", ConfigPath: "/base/c"}
	for _, test := range []struct{ op, want ops.Operation }{
		{ops.HiveList{}, ops.HiveList{}},
		{ops.HiveList{ConfigPath: "c"}, ops.HiveList{ConfigPath: "/base/c"}},
		{
			ops.PackageSync{Scope: ops.Scope{ConfigPath: "c", Parallel: 3}, Change: ops.Change{BundlePath: "b"}, Force: true},
			ops.PackageSync{Scope: ops.Scope{ConfigPath: "/base/c", Parallel: 3}, Change: ops.Change{BundlePath: "/base/b"}, Force: true},
		},
		{ops.PackageMigrate{OutputPath: "o/", SSHConfig: "gpu-*"}, ops.PackageMigrate{OutputPath: "/base/o/", SSHConfig: "gpu-*"}},
		{ops.PackageBundle{OutputPath: "o"}, ops.PackageBundle{OutputPath: "/base/o"}},
		{ops.WorkerSpawn{Target: target, Model: "m", Worker: "w", Env: map[string]string{"A": "b"}}, ops.WorkerSpawn{Target: wantTarget, Model: "m", Worker: "w", Env: map[string]string{"A": "b"}}},
		{ops.Infer{Target: target, Model: "m", Prompt: "<config_path>", MaxTokens: 1}, ops.Infer{Target: wantTarget, Model: "m", Prompt: "<config_path>", MaxTokens: 1}},
	} {
		got, err := client.MapPaths(test.op, addBase)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("MapPaths(%+v) = %+v, %v, want %+v", test.op, got, err, test.want)
		}
	}
	errOutside := errors.New("path outside the directory")
	_, err := client.MapPaths(ops.HiveList{ConfigPath: "c"}, func(string) (string, error) { return "", errOutside })
	want := `hive_list: field "config_path": path outside the directory`
	if ops.CodeOf(err) != ops.CodeBadOperation || !errors.Is(err, errOutside) || err.Error() != want {
		t.Errorf("MapPaths() with a failing mapping returned %v, want %s", err, want)
	}
}
