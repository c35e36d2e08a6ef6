package client_test

import (
	"errors"
	"reflect"
	"testing"

	ops "github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
)

func TestWithPaths(t *testing.T) {
	t.Parallel()
	rooted := func(path string) (string, error) { return "/base/" + path, nil }
	target := ops.Target{HiveID: "gpu-1", ConfigPath: "c"}
	there := ops.Target{HiveID: "gpu-1", ConfigPath: "/base/c"}
	for _, test := range []struct{ op, want ops.Operation }{
		{ops.HiveList{}, ops.HiveList{}},
		{ops.HiveList{ConfigPath: "c"}, ops.HiveList{ConfigPath: "/base/c"}},
		{
			ops.PackageSync{Scope: ops.Scope{ConfigPath: "c", Parallel: 3}, Change: ops.Change{BundlePath: "b"}, Force: true},
			ops.PackageSync{Scope: ops.Scope{ConfigPath: "/base/c", Parallel: 3}, Change: ops.Change{BundlePath: "/base/b"}, Force: true},
		},
		{ops.PackageMigrate{OutputPath: "o/", SSHConfig: "gpu-*"}, ops.PackageMigrate{OutputPath: "/base/o/", SSHConfig: "gpu-*"}},
		{ops.PackageBundle{OutputPath: "o"}, ops.PackageBundle{OutputPath: "/base/o"}},
		{ops.WorkerSpawn{Target: target, Model: "m", Worker: "w", Env: map[string]string{"A": "b"}}, ops.WorkerSpawn{Target: there, Model: "m", Worker: "w", Env: map[string]string{"A": "b"}}},
		{ops.Infer{Target: target, Model: "m", Prompt: "<config_path>", MaxTokens: 1}, ops.Infer{Target: there, Model: "m", Prompt: "<config_path>", MaxTokens: 1}},
	} {
		got, err := client.WithPaths(test.op, rooted)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%+v: got %+v, %v", test.op, got, err)
		}
	}
	wrong := errors.New("it leads elsewhere")
	_, err := client.WithPaths(ops.HiveList{ConfigPath: "c"}, func(string) (string, error) { return "", wrong })
	if ops.CodeOf(err) != ops.CodeBadOperation || !errors.Is(err, wrong) || err.Error() != `hive_list: field "config_path": it leads elsewhere` {
		t.Errorf("got %v", err)
	}
}
