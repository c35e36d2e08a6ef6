package operations_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ops "github.com/rbee-keeper/rbee/operations"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden has every operation with all of its fields, by the name of its file in
// testdata, and where they differ the least that it can be (_min).
var golden = map[string]ops.Operation{
	"package_sync": ops.PackageSync{
		Scope: scope(), Change: ops.Change{Push: true, LockWaitSeconds: 2.5}, DryRun: true, RemoveExtra: true, Force: true,
	},
	"package_sync_min":    ops.PackageSync{},
	"package_install":     ops.PackageInstall{Scope: scope(), Change: ops.Change{Push: true, LockWaitSeconds: -1}, Force: true},
	"package_install_min": ops.PackageInstall{},
	"package_install_one": ops.PackageInstall{Scope: ops.Scope{Hives: ops.Aliases{"gpu-1"}}},
	"package_status":      ops.PackageStatus{Scope: scope(), Verbose: true, Deep: true},
	"package_status_min":  ops.PackageStatus{},
	"package_uninstall":   ops.PackageUninstall{Scope: scope(), LockWaitSeconds: 7},
	"package_uninstall_purge": ops.PackageUninstall{
		Scope: ops.Scope{ConfigPath: "/etc/rbee/hives.conf"}, Purge: true,
	},
	"package_uninstall_min": ops.PackageUninstall{},
	"package_validate":      ops.PackageValidate{Scope: scope()},
	"package_validate_min":  ops.PackageValidate{},
	"package_migrate": ops.PackageMigrate{
		OutputPath: "out/", ConfigPath: "hives.conf", SSHConfig: "gpu-*", Hosts: []string{"bee@box:2222", "other"}, Parallel: 4, Force: true,
	},
	"package_migrate_min":  ops.PackageMigrate{OutputPath: "hives.conf"},
	"package_sync_upgrade": ops.PackageSync{Upgrade: true, UpgradeWorkers: []string{"vllm"}},
	"package_sync_bundle":  ops.PackageSync{Change: ops.Change{BundlePath: "fleet.rbee"}},
	"package_rollback":     ops.PackageRollback{ConfigPath: "hives.conf", Hive: "gpu-1", Worker: "vllm", LockWaitSeconds: 2},
	"package_rollback_min": ops.PackageRollback{Hive: "gpu-1", Worker: "vllm"},
	"package_bundle":       ops.PackageBundle{Scope: scope(), OutputPath: "fleet.rbee", Platforms: []string{"linux/amd64"}, Force: true},
	"package_bundle_min":   ops.PackageBundle{OutputPath: "fleet.rbee"},
	"hive_start":           ops.HiveStart{Alias: "gpu-1", ConfigPath: "hives.conf"},
	"hive_start_min":       ops.HiveStart{Alias: "gpu-1"},
	"hive_stop":            ops.HiveStop{Alias: "gpu-1", ConfigPath: "hives.conf"},
	"hive_list":            ops.HiveList{ConfigPath: "hives.conf"},
	"hive_list_min":        ops.HiveList{},
	"hive_get":             ops.HiveGet{Alias: "gpu-1", ConfigPath: "hives.conf"},
	"hive_status":          ops.HiveStatus{Alias: "gpu-1", ConfigPath: "hives.conf"},
	"hive_capabilities":    ops.HiveCapabilities{Alias: "gpu-1", ConfigPath: "hives.conf"},
	"worker_spawn":         ops.WorkerSpawn{Target: ops.Target{HiveID: "gpu-1"}, Model: "org/repo", Worker: "vllm", Device: "0,1"},
	"worker_spawn_min":     ops.WorkerSpawn{Target: ops.Target{HiveID: "gpu-1"}, Model: "org/repo", Worker: "vllm"},
	"worker_process_list":  ops.WorkerProcessList{Target: ops.Target{HiveID: "gpu-1"}},
	"worker_spawn_all": ops.WorkerSpawn{
		Target: ops.Target{HiveID: "gpu-1", ConfigPath: "hives.conf"}, Model: "org/repo", Worker: "vllm", Device: "0,1", Port: 8700,
		ContextLength: 4096, Parallel: 4, Env: map[string]string{"A": "b=c"}, Args: []string{"--flag", "two words"}, Detach: true,
	},
	"worker_process_list_min":  ops.WorkerProcessList{},
	"worker_process_list_all":  ops.WorkerProcessList{Target: ops.Target{HiveID: "gpu-1"}, All: true},
	"worker_process_get_id":    ops.WorkerProcessGet{Target: ops.Target{HiveID: "gpu-1"}, WorkerRef: ops.WorkerRef{ID: "echo-1a2b"}},
	"worker_process_delete_id": ops.WorkerProcessDelete{Target: ops.Target{HiveID: "gpu-1"}, WorkerRef: ops.WorkerRef{ID: "e"}, GraceSeconds: 1.5, Force: true},
	"worker_process_logs":      ops.WorkerProcessLogs{Target: ops.Target{HiveID: "gpu-1"}, WorkerRef: ops.WorkerRef{ID: "e"}, Lines: -1, Follow: true},
	"model_download_all":       ops.ModelDownload{Target: ops.Target{HiveID: "gpu-1"}, Model: "org/repo", Token: "hf_x", Endpoint: "http://hub"},
	"model_list_min":           ops.ModelList{},
	"worker_process_get":       ops.WorkerProcessGet{Target: ops.Target{HiveID: "gpu-1"}, WorkerRef: ops.WorkerRef{PID: 4242}},
	"worker_process_delete":    ops.WorkerProcessDelete{Target: ops.Target{HiveID: "gpu-1"}, WorkerRef: ops.WorkerRef{PID: 4242}},
	"model_download":           ops.ModelDownload{Target: ops.Target{HiveID: "gpu-1"}, Model: "org/repo:Q4"},
	"model_list":               ops.ModelList{Target: ops.Target{HiveID: "gpu-1"}},
	"model_get":                ops.ModelGet{Target: ops.Target{HiveID: "gpu-1"}, ID: "org/repo"},
	"model_delete":             ops.ModelDelete{Target: ops.Target{HiveID: "gpu-1"}, ID: "org/repo"},
	"infer": ops.Infer{Target: ops.Target{HiveID: "gpu-1"}, Model: "m", Prompt: "two\n\"lines\" <é>", MaxTokens: 20, Temperature: 0.7,
		TopP: ptr(0.9), TopK: ptr(40), Device: "cuda:0", WorkerID: "w-1", Stream: true,
	},
	"infer_workflow": ops.Infer{
		Target: ops.Target{HiveID: "gpu-1"}, Prompt: "a bee", Seed: ptr(int64(7)),
		Workflow: []byte(`{"1":{"class_type":"SaveImage","inputs":{"text":"{prompt}"}}}`),
	},
	"infer_min": ops.Infer{Model: "m", Prompt: "hi", MaxTokens: 1},
}

func scope() ops.Scope {
	return ops.Scope{ConfigPath: "/etc/rbee/hives.conf", Hives: ops.Aliases{"gpu-1", "gpu-2"}, Labels: []string{"gpu"}, Parallel: 8}
}

func ptr[T any](v T) *T { return &v }

func TestGolden(t *testing.T) {
	t.Parallel()
	seen := map[ops.Kind]bool{}
	for name, op := range golden {
		seen[op.Kind()] = true
		t.Run(name, func(t *testing.T) {
			if !strings.HasPrefix(name, string(op.Kind())) {
				t.Errorf("kind is %s", op.Kind())
			}
			got, err := json.Marshal(op)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".json")
			if *update {
				if err := os.WriteFile(file, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, bytes.TrimSpace(want)) {
				t.Errorf("wire form\n got %s\nwant %s", got, want)
			}
			back, err := ops.Parse(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(op, back); diff != "" {
				t.Errorf("Parse(%s) differs from the encoded operation (-want +got):\n%s", want, diff)
			}
		})
	}
	for _, k := range ops.Kinds() {
		if !seen[k] {
			t.Errorf("%s is not in the table", k)
		}
	}
}

func TestEveryKindIsKnownOnce(t *testing.T) {
	t.Parallel()
	kinds := ops.Kinds()
	if len(kinds) != 24 || len(slices.Compact(slices.Sorted(slices.Values(kinds)))) != 24 {
		t.Errorf("kinds: %v", kinds)
	}
}

// TestNullAndAbsent holds that an optional field may be left out or null.
func TestNullAndAbsent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   string
		want ops.Operation
	}{
		{`{"operation":"package_sync"}`, ops.PackageSync{}},
		{`{"operation":"package_sync","config_path":null,"hive_alias":null,"labels":null,"parallel":null,` +
			`"push":null,"lock_wait_seconds":null,"dry_run":null,"remove_extra":null,"force":null}`, ops.PackageSync{}},
		{`{"operation":"package_install","config_path":null,"force":false,"hive_alias":"gpu-1"}`,
			ops.PackageInstall{Scope: ops.Scope{Hives: ops.Aliases{"gpu-1"}}}},
		{`{"operation":"package_uninstall","hive_alias":null,"purge":false}`, ops.PackageUninstall{}},
		{` { "hive_alias" : ["a","b"] , "operation" : "package_status" } `,
			ops.PackageStatus{Scope: ops.Scope{Hives: ops.Aliases{"a", "b"}}}},
		{`{"operation":"infer","model":"m","prompt":"p","max_tokens":1,"top_p":null,"top_k":null,"hive_id":null}`,
			ops.Infer{Model: "m", Prompt: "p", MaxTokens: 1}},
	} {
		got, err := ops.Parse([]byte(c.in))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s\n got %#v, %v\nwant %#v", c.in, got, err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"nothing", ``, `not a JSON object`},
		{"no object", `["package_sync"]`, `not a JSON object`},
		{"no JSON", `{"operation":`, `not a JSON object`},
		{"no tag", `{}`, `the key "operation" is missing`},
		{"null tag", `{"operation":null}`, `the key "operation" is missing`},
		{"tag of another type", `{"operation":7}`, `not a JSON object with a key "operation"`},
		{"unknown", `{"operation":"fly"}`, `unknown operation "fly"`},
		{"unknown, near", `{"operation":"package_snyc"}`, `unknown operation "package_snyc", did you mean "package_sync"?`},
		{"unknown field", `{"operation":"package_sync","colour":1}`, `package_sync: unknown field "colour"`},
		{"unknown field, near", `{"operation":"package_sync","dryrun":true}`, `package_sync: unknown field "dryrun", did you mean "dry_run"?`},
		{"field of another", `{"operation":"package_status","force":true}`, `package_status: unknown field "force"`},
		{"wrong case", `{"operation":"package_sync","Dry_Run":true}`, `unknown field "Dry_Run", did you mean "dry_run"?`},
		{"tag in wrong case", `{"Operation":"package_sync"}`, `unknown field "Operation"`},
		{"a second tag in wrong case", `{"operation":"package_sync","OPERATION":"package_status"}`, `unknown field "OPERATION"`},
		{"twice", `{"operation":"package_sync","force":true,"force":false}`, `package_sync: field "force" is given twice`},
		{"tag twice", `{"operation":"hive_list","operation":"package_sync"}`, `field "operation" is given twice`},
		{"wrong type", `{"operation":"package_sync","dry_run":"yes"}`, `package_sync: field "dry_run": a JSON string does not fit, want bool`},
		{"wrong type, embedded", `{"operation":"package_sync","config_path":3}`, `package_sync: field "config_path": a JSON number does not fit`},
		{"wrong type in a list", `{"operation":"package_sync","labels":["a",1]}`, `field "labels": a JSON number does not fit`},
		{"wrong alias", `{"operation":"package_sync","hive_alias":3}`, `field "hive_alias": want one alias or a list of aliases`},
		{"a fraction", `{"operation":"worker_process_get","hive_id":"a","pid":1.5}`, `field "pid"`},
		{"trailing", `{"operation":"hive_list"} {}`, `not a JSON object`},
		{"trailing words", `{"operation":"hive_list"}x`, `not a JSON object`},

		{"empty alias", `{"operation":"package_sync","hive_alias":["a",""]}`, `holds an empty alias`},
		{"parallel", `{"operation":"package_sync","parallel":-1}`, `"parallel" is -1`},
		{"parallel of migrate", `{"operation":"package_migrate","output_path":"x","parallel":-1}`, `"parallel" is -1`},
		{"purge of some", `{"operation":"package_uninstall","purge":true,"hive_alias":"a"}`, `purge removes the config`},
		{"purge of labels", `{"operation":"package_uninstall","purge":true,"labels":["a"]}`, `purge removes the config`},
		{"migrate without output", `{"operation":"package_migrate","output_path":" "}`, `"output_path" is required`},
		{"start of none", `{"operation":"hive_start"}`, `"alias" is required`},
		{"stop of none", `{"operation":"hive_stop","alias":""}`, `"alias" is required`},
		{"get of none", `{"operation":"hive_get","alias":null}`, `"alias" is required`},
		{"status of none", `{"operation":"hive_status"}`, `"alias" is required`},
		{"capabilities of none", `{"operation":"hive_capabilities"}`, `"alias" is required`},
		{"spawn without model", `{"operation":"worker_spawn","hive_id":"a","worker":"w"}`, `"model" is required`},
		{"spawn without worker", `{"operation":"worker_spawn","hive_id":"a","model":"m"}`, `"worker" is required`},
		{"spawn on no device", `{"operation":"worker_spawn","hive_id":"a","model":"m","worker":"w","device":"0,x"}`, `"x" is no device`},
		{"spawn twice on a device", `{"operation":"worker_spawn","hive_id":"a","model":"m","worker":"w","device":"1,1"}`, `named twice`},
		{"spawn on a bad port", `{"operation":"worker_spawn","hive_id":"a","model":"m","worker":"w","port":65536}`, `"port" is 65536`},
		{"spawn with a bad context", `{"operation":"worker_spawn","hive_id":"a","model":"m","worker":"w","context_length":-1}`, `"context_length" is -1`},
		{"spawn with a bad variable", `{"operation":"worker_spawn","hive_id":"a","model":"m","worker":"w","env":{"A=B":""}}`, `not the name of a variable`},
		{"pid and id", `{"operation":"worker_process_get","hive_id":"a","pid":1,"id":"w"}`, `both given`},
		{"logs of none", `{"operation":"worker_process_logs","hive_id":"a"}`, `"pid" is 0`},
		{"a bad grace", `{"operation":"worker_process_delete","hive_id":"a","pid":1,"grace_seconds":-1}`, `"grace_seconds" is -1`},
		{"no process", `{"operation":"worker_process_get","hive_id":"a"}`, `"pid" is 0`},
		{"a bad process", `{"operation":"worker_process_delete","hive_id":"a","pid":-1}`, `"pid" is -1`},
		{"download of nothing", `{"operation":"model_download","hive_id":"a"}`, `"model" is required`},
		{"no model", `{"operation":"model_get","hive_id":"a"}`, `"id" is required`},
		{"delete no model", `{"operation":"model_delete","hive_id":"a"}`, `"id" is required`},
		{"no prompt", `{"operation":"infer","model":"m","max_tokens":1}`, `"prompt" is required`},
		{"no tokens", `{"operation":"infer","model":"m","prompt":"p"}`, `"max_tokens" is 0`},
		{"no graph", `{"operation":"infer","workflow":[],"max_tokens":1}`, `"workflow" is no JSON object`},
		{"too hot", `{"operation":"infer","model":"m","prompt":"p","max_tokens":1,"temperature":2.1}`, `"temperature" is 2.1`},
		{"no share", `{"operation":"infer","model":"m","prompt":"p","max_tokens":1,"top_p":0}`, `"top_p" is 0`},
		{"no choice", `{"operation":"infer","model":"m","prompt":"p","max_tokens":1,"top_k":0}`, `"top_k" is 0`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			op, err := ops.Parse([]byte(c.in))
			if err == nil {
				t.Fatalf("parsed %#v", op)
			}
			if ops.CodeOf(err) != ops.CodeBadOperation {
				t.Errorf("code %s", ops.CodeOf(err))
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q in it", err, c.want)
			}
		})
	}
}

// TestRemoved holds the list of removed operations and what replaces each.
func TestRemoved(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]ops.Kind{
		"hive_install":         ops.KindPackageSync,
		"hive_uninstall":       ops.KindPackageUninstall,
		"worker_download":      ops.KindPackageSync,
		"worker_build":         ops.KindPackageSync,
		"worker_binary_list":   ops.KindPackageStatus,
		"worker_binary_get":    ops.KindPackageStatus,
		"worker_binary_delete": ops.KindPackageSync,
	} {
		_, err := ops.Parse([]byte(`{"operation":"` + name + `","alias":"x"}`))
		var e *ops.Error
		if !errors.As(err, &e) || e.Code != ops.CodeRemovedOperation || !strings.Contains(e.Message, `use "`+string(by)+`"`) {
			t.Errorf("%s: %v", name, err)
		}
		if got, ok := ops.Replacement(name); !ok || got != by {
			t.Errorf("%s: replacement %q, %t", name, got, ok)
		}
	}
	for _, k := range append(ops.Kinds(), "fly") {
		if by, ok := ops.Replacement(string(k)); ok {
			t.Errorf("%s is said to be replaced by %s", k, by)
		}
	}
}

// TestShouldForwardToHive is the routing rule, kind by kind.
func TestShouldForwardToHive(t *testing.T) {
	t.Parallel()
	forwarded := []ops.Kind{
		ops.KindWorkerSpawn, ops.KindWorkerProcessList, ops.KindWorkerProcessGet, ops.KindWorkerProcessDelete,
		ops.KindWorkerProcessLogs, ops.KindModelDownload, ops.KindModelList, ops.KindModelGet, ops.KindModelDelete,
	}
	byKind := map[ops.Kind]ops.Operation{}
	for _, op := range golden {
		byKind[op.Kind()] = op
	}
	for _, k := range ops.Kinds() {
		if got, want := ops.ShouldForwardToHive(byKind[k]), slices.Contains(forwarded, k); got != want {
			t.Errorf("%s: forwarded is %t, want %t", k, got, want)
		}
	}
}

func TestInstallIsASyncThatRemovesNothing(t *testing.T) {
	t.Parallel()
	install := ops.PackageInstall{Scope: scope(), Change: ops.Change{Push: true}, Force: true}
	want := ops.PackageSync{Scope: scope(), Change: ops.Change{Push: true}, Force: true}
	if got := install.Sync(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v", got)
	}
}

func TestAliases(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		json string
		want ops.Aliases
	}{{`null`, nil}, {`"a"`, ops.Aliases{"a"}}, {`["a","b"]`, ops.Aliases{"a", "b"}}} {
		var got ops.Aliases
		if err := json.Unmarshal([]byte(c.json), &got); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %#v, %v", c.json, got, err)
		}
		if out, err := json.Marshal(c.want); err != nil || string(out) != c.json {
			t.Errorf("%v: wrote %s, %v", c.want, out, err)
		}
		if c.want.IsZero() != (c.want == nil) {
			t.Errorf("%v: IsZero is %t", c.want, c.want.IsZero())
		}
	}
	var one ops.Aliases
	if err := json.Unmarshal([]byte(`["a"]`), &one); err != nil || !reflect.DeepEqual(one, ops.Aliases{"a"}) {
		t.Errorf("a list of one: %#v, %v", one, err)
	}
	for _, bad := range []string{`1`, `true`, `{}`, `["a",1]`, `[["a"]]`} {
		if err := json.Unmarshal([]byte(bad), &ops.Aliases{}); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, op := range golden {
		data, err := json.Marshal(op)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, s := range []string{`{}`, `null`, `{"operation":"hive_install"}`, `{"operation":"package_sync","hive_alias":[]}`, "\x00", `{"operation":"infer","temperature":-0}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		op, err := ops.Parse(data)
		if err != nil {
			if ops.CodeOf(err) != ops.CodeBadOperation && ops.CodeOf(err) != ops.CodeRemovedOperation {
				t.Fatalf("code %q of %v", ops.CodeOf(err), err)
			}
			return
		}
		first, err := json.Marshal(op)
		if err != nil {
			t.Fatalf("parsed and cannot be written: %v", err)
		}
		again, err := ops.Parse(first)
		if err != nil {
			t.Fatalf("%s cannot be parsed: %v", first, err)
		}
		second, err := json.Marshal(again)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%s became %s (%v)", first, second, err)
		}
	})
}
