package ui

import (
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares text with testdata/<name>.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("output differs from %s\n got:\n%s\nwant:\n%s", path, got, want)
	}
}

func step(hive string, action operations.Action, worker string) operations.Step {
	return operations.Step{Hive: hive, Action: action, Worker: worker, Version: "1.0", Reason: "not installed", Bytes: 3_210_000}
}

func installedHive(alias string) operations.HiveReport {
	return operations.HiveReport{Alias: alias, Status: operations.HiveInstalled, Workers: []string{"echo", "vllm"}, Steps: []operations.Step{
		step(alias, operations.ActionInstallHive, ""), step(alias, operations.ActionInstallWorker, "echo"),
		step(alias, operations.ActionInstallWorker, "vllm"), step(alias, operations.ActionStartHive, ""),
	}}
}

var installedAt = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func reports() map[string]operations.Report {
	unknownKey := &operations.Error{Code: operations.CodeUnreachable, Reason: "host_key_unknown", Hive: "gpu-2", Message: "cannot connect to root@gpu-2:22: host key of gpu-2 is unknown: ssh-ed25519 SHA256:abc"}
	changed := func(status operations.HiveResult, steps ...operations.Step) *operations.SyncReport {
		return &operations.SyncReport{Hives: []operations.HiveReport{{Alias: "gpu-server-1", Status: status, Steps: steps}}}
	}
	return map[string]operations.Report{
		"install_three": &operations.SyncReport{
			Hives:   []operations.HiveReport{installedHive("a"), installedHive("b"), installedHive("c")},
			Summary: operations.SyncSummary{HivesInstalled: 3, WorkersInstalled: 6, DurationSeconds: 30.2},
		},
		"sync_one_new": &operations.SyncReport{
			Hives:   []operations.HiveReport{{Alias: "a", Status: operations.HiveAlreadyInstalled}, installedHive("gpu-server-4")},
			Summary: operations.SyncSummary{DurationSeconds: 3.14},
		},
		"sync_nothing": &operations.SyncReport{Summary: operations.SyncSummary{HivesAlreadyInstalled: 3, WorkersAlreadyInstalled: 6, DurationSeconds: 0.42}},
		"sync_removed": changed(operations.HiveUpdated, operations.Step{Action: operations.ActionRemoveWorker, Worker: "comfyui"}),
		"sync_changed": changed(operations.HiveUpdated,
			operations.Step{Action: operations.ActionUpdateHive, Version: "2.0"}, operations.Step{Action: operations.ActionRemoveWorker, Worker: "x"},
			operations.Step{Action: operations.ActionInstallWorker, Worker: "b"}, operations.Step{Action: operations.ActionInstallWorker, Worker: "a"},
			operations.Step{Action: operations.ActionUpdateWorker, Worker: "c"}, operations.Step{Action: operations.ActionStartHive}),
		"sync_failures": &operations.SyncReport{
			Hives: []operations.HiveReport{
				{Alias: "gpu-1", Status: operations.HiveFailed, FailedSteps: []operations.FailedStep{{
					Step: step("gpu-1", operations.ActionInstallWorker, "vllm"), Error: &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDiskFull, Message: "write: no space left on device"},
				}, {
					Step: step("gpu-1", operations.ActionStartHive, ""), Error: &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDiskFull, Message: "write: no space left on device"},
				}}, Error: &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonDiskFull, Message: "write: no space left on device"}},
				{Alias: "gpu-2", Status: operations.HiveUnreachable, Error: unknownKey},
				{Alias: "gpu-3", Status: operations.HiveLocked, Error: &operations.Error{Code: operations.CodeLocked, Message: "locked by PID 7 since 12:00:00"}},
				{Alias: "gpu-4", Status: operations.HiveCanceled},
			},
			Plan: operations.Plan{Blocked: []operations.Blocked{{Hive: "gpu-5", Worker: "comfyui", Reason: "no source for linux/arm64"}}},
		},
		"dry_run": &operations.SyncReport{DryRun: true, Plan: operations.Plan{Steps: []operations.Step{
			step("gpu-1", operations.ActionInstallHive, ""),
			{Hive: "gpu-1", Action: operations.ActionUpdateWorker, Worker: "vllm", From: "0.9", Version: "1.0", Reason: "other version", Bytes: 14_500_000_000, DownloadBytes: 14_400_000_000},
			{Hive: "long-alias-2", Action: operations.ActionStartHive, Reason: "auto_start"},
		}}},
		"status_in_sync": &operations.StatusReport{Summary: operations.StatusSummary{TotalHives: 3, DurationSeconds: 0.31}},
		"status_extra":   &operations.StatusReport{Drift: []operations.Drift{{Hive: "gpu-server-1", Issue: operations.IssueExtraWorker, Worker: "comfyui"}}},
		"status_newer":   &operations.StatusReport{Drift: []operations.Drift{{Hive: "gpu-1", Issue: operations.IssueNewerHive, Details: "rbee 2.0 is newer than this one, 1.0"}}},
		"status_all": &operations.StatusReport{Drift: []operations.Drift{
			{Hive: "a", Issue: operations.IssueMissingHive},
			{Hive: "b", Issue: operations.IssueExtraHive},
			{Hive: "c", Issue: operations.IssueOutdatedHive, Details: "rbee 1.0, want 1.1"},
			{Hive: "d", Issue: operations.IssueHiveNotRunning, Details: "connection refused"},
			{Hive: "e", Issue: operations.IssueMissingWorker, Worker: "vllm", Details: "Worker 'vllm' not installed"},
			{Hive: "f", Issue: operations.IssueOutdatedWorker, Worker: "vllm", Details: "1.0, want 1.1"},
			{Hive: "g", Issue: operations.IssueCorruptWorker, Worker: "vllm", Details: "bin/x has changed"},
			{Hive: "gpu-2", Issue: operations.IssueUnreachable, Error: unknownKey},
		}},
		"status_verbose": &operations.StatusReport{Hives: []operations.HiveDetail{
			{Alias: "a", Installed: true, Version: "1.0", OS: "linux", Arch: "amd64", Libc: "glibc 2.36", DiskFree: 81_000_000_000,
				Daemon:  &operations.DaemonDetail{Running: true, Port: 8600, Supervisor: "systemd"},
				Workers: []operations.WorkerDetail{{Type: "echo", Version: "1.0"}, {Type: "vllm", Problem: "file missing"}}},
			{Alias: "gpu-server-2"},
			{Alias: "c", Error: unknownKey},
		}},
		"validate_ok": &operations.ValidateReport{Hives: 2, Workers: 4, Warnings: []operations.ValidateWarning{{Hive: "a", Warning: "SSH key not found, will prompt for password"}}},
		"validate_bad": &operations.ValidateReport{Errors: []operations.ValidateError{
			{Error: "unknown key \"alais\"", File: "hives.conf", Line: 3, Column: 2, Hint: "did you mean \"alias\"?"},
			{Hive: "gpu-2", Error: "no response", Unreachable: "timeout"},
		}},
		"migrate": &operations.MigrateReport{OutputPath: "/home/me/.config/rbee/hives.conf", Summary: operations.MigrateSummary{Hives: 2, Workers: 3},
			Warnings: []operations.ValidateWarning{{Hive: "gpu-9", Warning: "skipped: unreachable"}}},
		"uninstall": &operations.UninstallReport{Hives: []operations.HiveReport{
			{Alias: "a", Status: operations.HiveUninstalled}, {Alias: "b", Status: operations.HiveUninstalled},
		}, Summary: operations.UninstallSummary{WorkersRemoved: 3, DurationSeconds: 1.5}, PurgedPaths: []string{"/home/me/.config/rbee/hives.conf"}},
		"uninstall_nothing": &operations.UninstallReport{Summary: operations.UninstallSummary{HivesNotInstalled: 2}},
		"hives": &operations.HiveListReport{Hives: []operations.HiveSummary{
			{Alias: "a", Hostname: "10.0.0.1", SSHUser: "root", SSHPort: 2222, HivePort: 8600, InConfig: true, Labels: []string{"a100", "lab"}, InstalledAt: installedAt,
				Workers: []operations.WorkerSummary{{Type: "echo", Version: "latest"}, {Type: "vllm", Version: "0.9"}}},
			{Alias: "longer", Hostname: "fd00::1", SSHPort: 2222},
		}},
		"status_warning": &operations.StatusReport{Summary: operations.StatusSummary{TotalHives: 2, DurationSeconds: 0.3}, Warnings: onCPU},
		"sync_warning":   &operations.SyncReport{Summary: operations.SyncSummary{HivesAlreadyInstalled: 2, WorkersAlreadyInstalled: 3, DurationSeconds: 0.4}, Warnings: onCPU},
		"hives_warning":  &operations.HiveListReport{Hives: []operations.HiveSummary{{Alias: "gpu-1", Hostname: "10.0.0.1", InConfig: true}}, Warnings: onCPU},
		"hives_none":     &operations.HiveListReport{},
		"hive": &operations.HiveGetReport{Hive: operations.HiveSummary{Alias: "a", Hostname: "gpu", InConfig: true},
			Detail: operations.HiveDetail{Alias: "a", Installed: true, Version: "1.0", Home: "/home/u/.local/share/rbee", Daemon: &operations.DaemonDetail{Problem: "exited"}}},
		"daemon_started":       &operations.HiveDaemonReport{Alias: "a", Status: operations.DaemonStarted, Daemon: operations.DaemonDetail{Running: true, Port: 8600, PID: 4711}},
		"daemon_not_running":   &operations.HiveDaemonReport{Alias: "a", Status: operations.DaemonNotRunning, Daemon: operations.DaemonDetail{Problem: "connection refused"}},
		"daemon_not_installed": &operations.HiveDaemonReport{Alias: "a", Status: operations.DaemonNotInstalled},
	}
}

var onCPU = []operations.ValidateWarning{{Hive: "gpu-1", Warning: "llama-cpp runs on the CPU: driver 535.54 is older than 580"}}

func TestReports(t *testing.T) {
	t.Parallel()
	for name, report := range reports() {
		var b strings.Builder
		if err := Report(&b, Style{}, report); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
	}
}

func TestStyles(t *testing.T) {
	t.Parallel()
	r := reports()["status_extra"]
	for _, c := range []struct {
		style Style
		want  string
	}{
		{Style{}, "⚠️  gpu-server-1: Extra worker 'comfyui'\n   hint: "},
		{Style{ASCII: true}, "warning: gpu-server-1: Extra worker 'comfyui'\n   hint: "},
		{Style{ASCII: true, Color: true}, "\x1b[33mwarning: \x1b[0mgpu-server-1: "},
	} {
		var b strings.Builder
		if err := Report(&b, c.style, r); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(b.String(), c.want) {
			t.Errorf("Report() with style %+v = %q, want prefix %q", c.style, b.String(), c.want)
		}
	}
}

// TestReportRemovesControlCharacters checks every text that a machine can choose.
func TestReportRemovesControlCharacters(t *testing.T) {
	t.Parallel()
	const evil = "x\x1b[2J\x07\u009b31m\ry"
	e := &operations.Error{Code: operations.CodeFailed, Message: evil}
	for name, r := range map[string]operations.Report{
		"status": &operations.StatusReport{Drift: []operations.Drift{{Hive: "a", Issue: operations.IssueOutdatedHive, Details: evil}, {Hive: "b", Issue: operations.IssueUnreachable, Error: e}},
			Hives: []operations.HiveDetail{{Alias: "a", OS: evil, Workers: []operations.WorkerDetail{{Type: evil}}}}},
		"sync":     &operations.SyncReport{Hives: []operations.HiveReport{{Alias: "a", Status: operations.HiveFailed, Error: e, Steps: []operations.Step{step("a", operations.ActionRemoveWorker, evil)}}}},
		"validate": &operations.ValidateReport{Warnings: []operations.ValidateWarning{{Warning: evil}}},
	} {
		var b strings.Builder
		if err := Report(&b, Style{}, r); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(b.String(), "\x1b\x07\u009b\r") {
			t.Errorf("Report() of %s = %q, want no control characters", name, b.String())
		}
	}
}

func TestFailureAndJSONError(t *testing.T) {
	t.Parallel()
	e := &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonConfigMissing, Message: "no config", Err: fs.ErrNotExist, Problems: []operations.Problem{{File: "f", Line: 1, Message: "bad"}}}
	var b strings.Builder
	if err := Failure(&b, Style{}, e, ""); err != nil {
		t.Fatal(err)
	}
	want := "❌ no config\n   f:1: bad\n   hint: run `rbee init` to create one, or pass --config FILE\n"
	if b.String() != want {
		t.Errorf("Failure() wrote %q, want %q", b.String(), want)
	}
	b.Reset()
	if err := JSONError(&b, e, "do this"); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Status string
		Error  struct {
			Code, Message, Hint string
			Problems            []operations.Problem
		}
	}
	if err := json.Unmarshal([]byte(b.String()), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Status != "error" || doc.Error.Code != "not_found" || doc.Error.Hint != "do this" || len(doc.Error.Problems) != 1 {
		t.Errorf("JSONError() wrote %s, want the error, its problem and the given hint", b.String())
	}
}

func TestConnectionReasonsHaveDifferentHints(t *testing.T) {
	t.Parallel()
	seen := map[string]operations.Reason{}
	for _, reason := range []operations.Reason{"resolve", "refused", "timeout", "auth", "host_key_unknown", "host_key_changed", "protocol", "lost", "config", "daemon"} {
		hint := Hint(&operations.Error{Code: operations.CodeUnreachable, Reason: reason})
		if hint == "" || seen[hint] != "" {
			t.Errorf("Hint of reason %s = %q, want a hint that no other reason has (reason %q has it)", reason, hint, seen[hint])
		}
		seen[hint] = reason
	}
	if got := Hint(nil); got != "" {
		t.Errorf("Hint(nil) = %q, want none", got)
	}
	if got := Hint(&operations.Error{Code: operations.CodeFailed, Err: errors.New("x"), Message: "odd"}); got != "" {
		t.Errorf("Hint of an unknown failure = %q, want none", got)
	}
}

func TestSeconds(t *testing.T) {
	t.Parallel()
	for s, want := range map[float64]string{-1: "0.0s", 0.04: "0.0s", 0.42: "0.4s", 9.96: "10s", 30.2: "30s", 125: "2m5s"} {
		if got := format.Seconds(s); got != want {
			t.Errorf("Seconds(%g) = %q, want %q", s, got, want)
		}
	}
}
