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

var update = flag.Bool("update", false, "update the golden files")

// golden maps file names in testdata to operations. Every kind has at least one entry.
// The suffix _min marks an operation with only its required fields.
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
				t.Errorf("Kind() = %s, want a prefix of the file name %s", op.Kind(), name)
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
				t.Errorf("json.Marshal(%T) = %s\nwant %s", op, got, want)
			}
			parsed, err := ops.Parse(want)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(op, parsed); diff != "" {
				t.Errorf("Parse(%s) differs from the encoded operation (-want +got):\n%s", want, diff)
			}
		})
	}
	for _, k := range ops.Kinds() {
		if !seen[k] {
			t.Errorf("golden has no operation of kind %s, want an operation of each kind", k)
		}
	}
}

func TestKindsAreUnique(t *testing.T) {
	t.Parallel()
	kinds := ops.Kinds()
	if len(kinds) != 24 || len(slices.Compact(slices.Sorted(slices.Values(kinds)))) != 24 {
		t.Errorf("Kinds() = %v, want 24 different kinds", kinds)
	}
}

func TestParseAcceptsNullAndAbsentFields(t *testing.T) {
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
			t.Errorf("Parse(%s) = %#v, %v, want %#v", c.in, got, err, c.want)
		}
	}
}

func TestParseRejectsInvalidOperations(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, in, want string }{
		{"empty input", ``, `want a JSON object`},
		{"array", `["package_sync"]`, `want a JSON object`},
		{"malformed JSON", `{"operation":`, `want a JSON object`},
		{"missing operation", `{}`, `missing key "operation"`},
		{"null operation", `{"operation":null}`, `missing key "operation"`},
		{"operation of wrong type", `{"operation":7}`, `want a JSON object with a key "operation"`},
		{"unknown operation", `{"operation":"fly"}`, `unknown operation "fly"`},
		{"misspelled operation", `{"operation":"package_snyc"}`, `unknown operation "package_snyc", did you mean "package_sync"?`},
		{"unknown field", `{"operation":"package_sync","shape":1}`, `package_sync: unknown field "shape"`},
		{"misspelled field", `{"operation":"package_sync","dryrun":true}`, `package_sync: unknown field "dryrun", did you mean "dry_run"?`},
		{"field of another operation", `{"operation":"package_status","force":true}`, `package_status: unknown field "force"`},
		{"field in wrong case", `{"operation":"package_sync","Dry_Run":true}`, `unknown field "Dry_Run", did you mean "dry_run"?`},
		{"operation in wrong case", `{"Operation":"package_sync"}`, `unknown field "Operation"`},
		{"second operation in wrong case", `{"operation":"package_sync","OPERATION":"package_status"}`, `unknown field "OPERATION"`},
		{"duplicate field", `{"operation":"package_sync","force":true,"force":false}`, `package_sync: duplicate field "force"`},
		{"duplicate operation", `{"operation":"hive_list","operation":"package_sync"}`, `duplicate field "operation"`},
		{"wrong type", `{"operation":"package_sync","dry_run":"yes"}`, `package_sync: invalid field "dry_run": got JSON string, want bool`},
		{"wrong type of embedded field", `{"operation":"package_sync","config_path":3}`, `package_sync: invalid field "config_path": got JSON number`},
		{"wrong type in array", `{"operation":"package_sync","labels":["a",1]}`, `invalid field "labels": got JSON number`},
		{"wrong type of alias", `{"operation":"package_sync","hive_alias":3}`, `invalid field "hive_alias": want an alias or a list of aliases`},
		{"fractional PID", `{"operation":"worker_process_get","hive_id":"a","pid":1.5}`, `field "pid"`},
		{"trailing object", `{"operation":"hive_list"} {}`, `want a JSON object`},
		{"trailing text", `{"operation":"hive_list"}x`, `want a JSON object`},

		{"empty alias", `{"operation":"package_sync","hive_alias":["a",""]}`, `contains an empty alias`},
		{"negative parallel", `{"operation":"package_sync","parallel":-1}`, `"parallel": got -1`},
		{"migrate with negative parallel", `{"operation":"package_migrate","output_path":"x","parallel":-1}`, `"parallel": got -1`},
		{"purge with hives", `{"operation":"package_uninstall","purge":true,"hive_alias":"a"}`, `cannot combine "purge"`},
		{"purge with labels", `{"operation":"package_uninstall","purge":true,"labels":["a"]}`, `cannot combine "purge"`},
		{"migrate without output_path", `{"operation":"package_migrate","output_path":" "}`, `"output_path" is required`},
		{"start without alias", `{"operation":"hive_start"}`, `"alias" is required`},
		{"stop without alias", `{"operation":"hive_stop","alias":""}`, `"alias" is required`},
		{"get without alias", `{"operation":"hive_get","alias":null}`, `"alias" is required`},
		{"status without alias", `{"operation":"hive_status"}`, `"alias" is required`},
		{"capabilities without alias", `{"operation":"hive_capabilities"}`, `"alias" is required`},
		{"spawn without model", `{"operation":"worker_spawn","hive_id":"a","worker":"w"}`, `"model" is required`},
		{"spawn without worker", `{"operation":"worker_spawn","hive_id":"a","model":"m"}`, `"worker" is required`},
		{"spawn with invalid device", `{"operation":"worker_spawn","hive_id":"a","model":"m","worker":"w","device":"0,x"}`, `invalid device "x"`},
		{"spawn with duplicate device", `{"operation":"worker_spawn","hive_id":"a","model":"m","worker":"w","device":"1,1"}`, `duplicate device 1`},
		{"spawn with invalid port", `{"operation":"worker_spawn","hive_id":"a","model":"m","worker":"w","port":65536}`, `"port": got 65536`},
		{"spawn with negative context", `{"operation":"worker_spawn","hive_id":"a","model":"m","worker":"w","context_length":-1}`, `"context_length": got -1`},
		{"spawn with invalid variable", `{"operation":"worker_spawn","hive_id":"a","model":"m","worker":"w","env":{"A=B":""}}`, `invalid variable name "A=B"`},
		{"PID and ID", `{"operation":"worker_process_get","hive_id":"a","pid":1,"id":"w"}`, `cannot combine fields "pid" and "id"`},
		{"logs without PID or ID", `{"operation":"worker_process_logs","hive_id":"a"}`, `"pid": got 0`},
		{"negative grace period", `{"operation":"worker_process_delete","hive_id":"a","pid":1,"grace_seconds":-1}`, `"grace_seconds": got -1`},
		{"get without PID or ID", `{"operation":"worker_process_get","hive_id":"a"}`, `"pid": got 0`},
		{"negative PID", `{"operation":"worker_process_delete","hive_id":"a","pid":-1}`, `"pid": got -1`},
		{"download without model", `{"operation":"model_download","hive_id":"a"}`, `"model" is required`},
		{"model_get without ID", `{"operation":"model_get","hive_id":"a"}`, `"id" is required`},
		{"model_delete without ID", `{"operation":"model_delete","hive_id":"a"}`, `"id" is required`},
		{"infer without prompt", `{"operation":"infer","model":"m","max_tokens":1}`, `"prompt" is required`},
		{"infer without max_tokens", `{"operation":"infer","model":"m","prompt":"p"}`, `"max_tokens": got 0`},
		{"workflow is not an object", `{"operation":"infer","workflow":[],"max_tokens":1}`, `invalid field "workflow"`},
		{"temperature above range", `{"operation":"infer","model":"m","prompt":"p","max_tokens":1,"temperature":2.1}`, `"temperature": got 2.1`},
		{"top_p is zero", `{"operation":"infer","model":"m","prompt":"p","max_tokens":1,"top_p":0}`, `"top_p": got 0`},
		{"top_k is zero", `{"operation":"infer","model":"m","prompt":"p","max_tokens":1,"top_k":0}`, `"top_k": got 0`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			op, err := ops.Parse([]byte(c.in))
			if err == nil {
				t.Fatalf("Parse(%s) = %#v, want an error", c.in, op)
			}
			if ops.CodeOf(err) != ops.CodeBadOperation {
				t.Errorf("Parse(%s) returned code %s, want %s", c.in, ops.CodeOf(err), ops.CodeBadOperation)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse(%s) returned error %q, want an error containing %q", c.in, err, c.want)
			}
		})
	}
}

func TestParseNamesReplacementOfRemovedOperation(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]ops.Kind{
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
		if !errors.As(err, &e) || e.Code != ops.CodeRemovedOperation || !strings.Contains(e.Message, `use "`+string(want)+`"`) {
			t.Errorf("Parse(%s) returned error %v, want code %s and the replacement %s", name, err, ops.CodeRemovedOperation, want)
		}
		if got, ok := ops.Replacement(name); !ok || got != want {
			t.Errorf("Replacement(%q) = %q, %t, want %q, true", name, got, ok, want)
		}
	}
	for _, k := range append(ops.Kinds(), "fly") {
		if got, ok := ops.Replacement(string(k)); ok {
			t.Errorf("Replacement(%q) = %q, true, want false", k, got)
		}
	}
}

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
			t.Errorf("ShouldForwardToHive(%s) = %t, want %t", k, got, want)
		}
	}
}

func TestInstallSync(t *testing.T) {
	t.Parallel()
	install := ops.PackageInstall{Scope: scope(), Change: ops.Change{Push: true}, Force: true}
	want := ops.PackageSync{Scope: scope(), Change: ops.Change{Push: true}, Force: true}
	if got := install.Sync(); !reflect.DeepEqual(got, want) {
		t.Errorf("Sync() = %#v, want %#v", got, want)
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
			t.Errorf("json.Unmarshal(%s) = %#v, %v, want %#v", c.json, got, err, c.want)
		}
		if out, err := json.Marshal(c.want); err != nil || string(out) != c.json {
			t.Errorf("json.Marshal(%v) = %s, %v, want %s", c.want, out, err, c.json)
		}
		if c.want.IsZero() != (c.want == nil) {
			t.Errorf("%#v.IsZero() = %t, want %t", c.want, c.want.IsZero(), c.want == nil)
		}
	}
	var one ops.Aliases
	if err := json.Unmarshal([]byte(`["a"]`), &one); err != nil || !reflect.DeepEqual(one, ops.Aliases{"a"}) {
		t.Errorf(`json.Unmarshal(["a"]) = %#v, %v, want [a]`, one, err)
	}
	for _, invalid := range []string{`1`, `true`, `{}`, `["a",1]`, `[["a"]]`} {
		if err := json.Unmarshal([]byte(invalid), &ops.Aliases{}); err == nil {
			t.Errorf("json.Unmarshal(%s) returned no error, want one", invalid)
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
				t.Fatalf("Parse(%s) returned code %q (%v), want %q or %q", data, ops.CodeOf(err), err, ops.CodeBadOperation, ops.CodeRemovedOperation)
			}
			return
		}
		first, err := json.Marshal(op)
		if err != nil {
			t.Fatalf("json.Marshal(%#v) = %v, want nil", op, err)
		}
		parsed, err := ops.Parse(first)
		if err != nil {
			t.Fatalf("Parse(%s) = %v, want nil", first, err)
		}
		second, err := json.Marshal(parsed)
		if err != nil || !bytes.Equal(first, second) {
			t.Fatalf("json.Marshal after Parse(%s) = %s, %v, want the same JSON", first, second, err)
		}
	})
}
