package operations_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	ops "github.com/rbee-keeper/rbee/operations"
)

// TestReportsMatchSpecification checks that every field and value of the examples in the
// specification is decoded and encoded.
func TestReportsMatchSpecification(t *testing.T) {
	t.Parallel()
	for file, report := range map[string]ops.Report{
		"report_sync.json": &ops.SyncReport{}, "report_status.json": &ops.StatusReport{}, "report_validate.json": &ops.ValidateReport{},
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			dec := json.NewDecoder(bytes.NewReader(data))
			dec.DisallowUnknownFields()
			if err := dec.Decode(report); err != nil {
				t.Fatal(err)
			}
			encoded, err := json.Marshal(report)
			if err != nil {
				t.Fatal(err)
			}
			var want, got any
			if err := errors.Join(json.Unmarshal(data, &want), json.Unmarshal(encoded, &got)); err != nil {
				t.Fatal(err)
			}
			checkContains(t, "", got, want)
		})
	}
}

// checkContains checks that the JSON value got, at this path, contains everything in want.
func checkContains(t *testing.T, path string, got, want any) {
	t.Helper()
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			t.Errorf("encoded report: %s = %v, want an object", path, got)
			return
		}
		for k, v := range w {
			checkContains(t, path+"."+k, g[k], v)
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			t.Errorf("encoded report: %s = %v, want %v", path, got, want)
			return
		}
		for i, v := range w {
			checkContains(t, fmt.Sprintf("%s[%d]", path, i), g[i], v)
		}
	default:
		if got != want {
			t.Errorf("encoded report: %s = %v, want %v", path, got, want)
		}
	}
}

// TestConstantsMatchSpecification checks the values that appear in the specification.
func TestConstantsMatchSpecification(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		ops.StatusSuccess: "success", ops.StatusDriftDetected: "drift_detected", ops.StatusValid: "valid",
		string(ops.HiveInstalled): "installed", string(ops.HiveAlreadyInstalled): "already_installed",
		string(ops.IssueMissingWorker): "missing_worker", string(ops.IssueExtraHive): "extra_hive",
	} {
		if got != want {
			t.Errorf("constant = %q, want %q", got, want)
		}
	}
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	hives := func(results ...ops.HiveResult) []ops.HiveReport {
		var out []ops.HiveReport
		for _, r := range results {
			out = append(out, ops.HiveReport{Status: r})
		}
		return out
	}
	drift := func(issues ...ops.Issue) []ops.Drift {
		var out []ops.Drift
		for _, i := range issues {
			out = append(out, ops.Drift{Issue: i})
		}
		return out
	}
	steps := ops.Plan{Steps: []ops.Step{{}}}
	blocked := ops.Plan{Blocked: []ops.Blocked{{}}}
	both := ops.Plan{Steps: []ops.Step{{}}, Blocked: []ops.Blocked{{}}}
	for name, c := range map[string]struct {
		report ops.Report
		want   ops.Outcome
	}{
		"sync without hives":        {&ops.SyncReport{}, ops.OutcomeOK},
		"sync done":                 {&ops.SyncReport{Hives: hives(ops.HiveInstalled, ops.HiveUpdated, ops.HiveAlreadyInstalled), Plan: steps}, ops.OutcomeOK},
		"sync failed":               {&ops.SyncReport{Hives: hives(ops.HiveUnreachable, ops.HiveLocked, ops.HiveFailed)}, ops.OutcomeFailed},
		"sync canceled":             {&ops.SyncReport{Hives: hives(ops.HiveCanceled)}, ops.OutcomeFailed},
		"sync locked":               {&ops.SyncReport{Hives: hives(ops.HiveUnreachable, ops.HiveLocked, ops.HiveUnreachable)}, ops.OutcomeLocked},
		"sync unreachable":          {&ops.SyncReport{Hives: hives(ops.HiveInstalled, ops.HiveUnreachable)}, ops.OutcomeUnreachable},
		"sync blocked":              {&ops.SyncReport{Plan: blocked}, ops.OutcomeFailed},
		"dry run, changes":          {&ops.SyncReport{DryRun: true, Plan: steps}, ops.OutcomeDrift},
		"dry run, changes, blocked": {&ops.SyncReport{DryRun: true, Plan: both}, ops.OutcomeDrift},
		"dry run, no changes":       {&ops.SyncReport{DryRun: true}, ops.OutcomeOK},
		"dry run, unreachable":      {&ops.SyncReport{DryRun: true, Hives: hives(ops.HiveUnreachable)}, ops.OutcomeUnreachable},
		"uninstalled":               {&ops.UninstallReport{Hives: hives(ops.HiveUninstalled, ops.HiveNotInstalled)}, ops.OutcomeOK},
		"uninstall unreachable":     {&ops.UninstallReport{Hives: hives(ops.HiveUnreachable)}, ops.OutcomeUnreachable},
		"status in sync":            {&ops.StatusReport{}, ops.OutcomeOK},
		"status drift":              {&ops.StatusReport{Drift: drift(ops.IssueUnreachable, ops.IssueMissingWorker)}, ops.OutcomeDrift},
		"status unreachable":        {&ops.StatusReport{Drift: drift(ops.IssueUnreachable)}, ops.OutcomeUnreachable},
		"valid":                     {&ops.ValidateReport{Warnings: []ops.ValidateWarning{{}}}, ops.OutcomeOK},
		"invalid":                   {&ops.ValidateReport{Errors: []ops.ValidateError{{Unreachable: "timeout"}, {}}}, ops.OutcomeInvalid},
		"validate unreachable":      {&ops.ValidateReport{Errors: []ops.ValidateError{{Unreachable: "timeout"}}}, ops.OutcomeUnreachable},
		"migrate":                   {&ops.MigrateReport{}, ops.OutcomeOK},
		"migrate unreachable":       {&ops.MigrateReport{Summary: ops.MigrateSummary{HivesUnreachable: 1}}, ops.OutcomeUnreachable},
		"list":                      {&ops.HiveListReport{}, ops.OutcomeOK},
		"get":                       {&ops.HiveGetReport{}, ops.OutcomeOK},
		"get unreachable":           {&ops.HiveGetReport{Detail: ops.HiveDetail{Error: &ops.Error{}}}, ops.OutcomeUnreachable},
		"daemon running":            {&ops.HiveDaemonReport{Status: ops.DaemonRunning}, ops.OutcomeOK},
		"daemon stopped":            {&ops.HiveDaemonReport{Status: ops.DaemonStopped}, ops.OutcomeOK},
		"daemon not running":        {&ops.HiveDaemonReport{Status: ops.DaemonNotRunning}, ops.OutcomeDrift},
		"daemon not installed":      {&ops.HiveDaemonReport{Status: ops.DaemonNotInstalled}, ops.OutcomeDrift},
	} {
		if got := c.report.Outcome(); got != c.want {
			t.Errorf("%s: Outcome() = %s, want %s", name, got, c.want)
		}
	}
}

func TestError(t *testing.T) {
	t.Parallel()
	e := &ops.Error{Code: ops.CodeConfigInvalid, Hive: "gpu-1", Message: "invalid config", Problems: []ops.Problem{
		{File: "hives.conf", Line: 3, Column: 7, Message: "unknown key", Hint: "did you mean alias?"},
		{File: "hives.conf", Line: 3, Message: "without column"},
		{File: "hives.conf", Column: 7, Message: "without line"},
		{Line: 3, Message: "without file"},
	}, Err: context.Canceled}
	want := "hive gpu-1: invalid config\n" +
		"  hives.conf:3:7: unknown key (did you mean alias?)\n  hives.conf:3: without column\n  hives.conf: without line\n  without file"
	if e.Error() != want {
		t.Errorf("Error() =\n%s\nwant\n%s", e, want)
	}
	if !errors.Is(e, context.Canceled) {
		t.Errorf("errors.Is(%#v, context.Canceled) = false, want true", e)
	}
	if got := (&ops.Error{Message: "plain"}).Error(); got != "plain" {
		t.Errorf("Error() = %q, want %q", got, "plain")
	}
	wrapped := fmt.Errorf("outer: %w", e)
	for _, c := range []struct {
		err  error
		want ops.Code
	}{{nil, ""}, {errors.New("any"), ops.CodeFailed}, {wrapped, ops.CodeConfigInvalid}} {
		if got := ops.CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %q, want %q", c.err, got, c.want)
		}
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("canceled")) || !bytes.Contains(data, []byte(`"code":"config_invalid"`)) {
		t.Errorf("json.Marshal(%#v) = %s, want the code and no cause", e, data)
	}
}

func TestEventJSONOmitsEmptyFields(t *testing.T) {
	t.Parallel()
	at := time.Date(2025, 10, 23, 12, 0, 0, 0, time.UTC)
	got, err := json.Marshal(ops.Event{Time: at, Type: ops.EventPhase, Hive: "gpu-1", Phase: ops.PhaseReading})
	want := `{"time":"2025-10-23T12:00:00Z","type":"phase","hive":"gpu-1","phase":"reading"}`
	if err != nil || string(got) != want {
		t.Errorf("json.Marshal(event) = %s, %v, want %s", got, err, want)
	}
}
