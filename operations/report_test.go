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

// TestDocumentedReports holds the reports against the examples of their
// document: every field and value there is read, and written again.
func TestDocumentedReports(t *testing.T) {
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
			written, err := json.Marshal(report)
			if err != nil {
				t.Fatal(err)
			}
			var documented, got any
			if err := errors.Join(json.Unmarshal(data, &documented), json.Unmarshal(written, &got)); err != nil {
				t.Fatal(err)
			}
			contains(t, "", got, documented)
		})
	}
}

// contains holds that got has all of want, and maybe more.
func contains(t *testing.T, at string, got, want any) {
	t.Helper()
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s is %v, want an object", at, got)
			return
		}
		for k, v := range w {
			contains(t, at+"."+k, g[k], v)
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			t.Errorf("%s is %v, want %v", at, got, want)
			return
		}
		for i, v := range w {
			contains(t, fmt.Sprintf("%s[%d]", at, i), g[i], v)
		}
	default:
		if got != want {
			t.Errorf("%s is %v, want %v", at, got, want)
		}
	}
}

// TestDocumentedWords holds the words of the document's examples.
func TestDocumentedWords(t *testing.T) {
	t.Parallel()
	for got, want := range map[string]string{
		ops.StatusSuccess: "success", ops.StatusDriftDetected: "drift_detected", ops.StatusValid: "valid",
		string(ops.HiveInstalled): "installed", string(ops.HiveAlreadyInstalled): "already_installed",
		string(ops.IssueMissingWorker): "missing_worker", string(ops.IssueExtraHive): "extra_hive",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
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
		"sync of none":               {&ops.SyncReport{}, ops.OutcomeOK},
		"sync done":                  {&ops.SyncReport{Hives: hives(ops.HiveInstalled, ops.HiveUpdated, ops.HiveAlreadyInstalled), Plan: steps}, ops.OutcomeOK},
		"sync failed":                {&ops.SyncReport{Hives: hives(ops.HiveUnreachable, ops.HiveLocked, ops.HiveFailed)}, ops.OutcomeFailed},
		"sync canceled":              {&ops.SyncReport{Hives: hives(ops.HiveCanceled)}, ops.OutcomeFailed},
		"sync locked":                {&ops.SyncReport{Hives: hives(ops.HiveUnreachable, ops.HiveLocked, ops.HiveUnreachable)}, ops.OutcomeLocked},
		"sync unreachable":           {&ops.SyncReport{Hives: hives(ops.HiveInstalled, ops.HiveUnreachable)}, ops.OutcomeUnreachable},
		"sync blocked":               {&ops.SyncReport{Plan: blocked}, ops.OutcomeFailed},
		"dry run, changes":           {&ops.SyncReport{DryRun: true, Plan: steps}, ops.OutcomeDrift},
		"dry run, changes and block": {&ops.SyncReport{DryRun: true, Plan: both}, ops.OutcomeDrift},
		"dry run, nothing":           {&ops.SyncReport{DryRun: true}, ops.OutcomeOK},
		"dry run, unreachable":       {&ops.SyncReport{DryRun: true, Hives: hives(ops.HiveUnreachable)}, ops.OutcomeUnreachable},
		"uninstalled":                {&ops.UninstallReport{Hives: hives(ops.HiveUninstalled, ops.HiveNotInstalled)}, ops.OutcomeOK},
		"uninstall unreachable":      {&ops.UninstallReport{Hives: hives(ops.HiveUnreachable)}, ops.OutcomeUnreachable},
		"status in sync":             {&ops.StatusReport{}, ops.OutcomeOK},
		"status drift":               {&ops.StatusReport{Drift: drift(ops.IssueUnreachable, ops.IssueMissingWorker)}, ops.OutcomeDrift},
		"status unreachable":         {&ops.StatusReport{Drift: drift(ops.IssueUnreachable)}, ops.OutcomeUnreachable},
		"valid":                      {&ops.ValidateReport{Warnings: []ops.ValidateWarning{{}}}, ops.OutcomeOK},
		"invalid":                    {&ops.ValidateReport{Errors: []ops.ValidateError{{Unreachable: "timeout"}, {}}}, ops.OutcomeInvalid},
		"validate unreachable":       {&ops.ValidateReport{Errors: []ops.ValidateError{{Unreachable: "timeout"}}}, ops.OutcomeUnreachable},
		"migrated":                   {&ops.MigrateReport{}, ops.OutcomeOK},
		"migrated some":              {&ops.MigrateReport{Summary: ops.MigrateSummary{HivesUnreachable: 1}}, ops.OutcomeUnreachable},
		"list":                       {&ops.HiveListReport{}, ops.OutcomeOK},
		"get":                        {&ops.HiveGetReport{}, ops.OutcomeOK},
		"get unreachable":            {&ops.HiveGetReport{Detail: ops.HiveDetail{Error: &ops.Error{}}}, ops.OutcomeUnreachable},
		"daemon runs":                {&ops.HiveDaemonReport{Status: ops.DaemonRunning}, ops.OutcomeOK},
		"daemon stopped":             {&ops.HiveDaemonReport{Status: ops.DaemonStopped}, ops.OutcomeOK},
		"daemon does not run":        {&ops.HiveDaemonReport{Status: ops.DaemonNotRunning}, ops.OutcomeDrift},
		"daemon not there":           {&ops.HiveDaemonReport{Status: ops.DaemonNotInstalled}, ops.OutcomeDrift},
	} {
		if got := c.report.Outcome(); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestErrorText(t *testing.T) {
	t.Parallel()
	e := &ops.Error{Code: ops.CodeConfigInvalid, Hive: "gpu-1", Message: "no good", Problems: []ops.Problem{
		{File: "hives.conf", Line: 3, Column: 7, Message: "unknown key", Hint: "did you mean alias?"},
		{File: "hives.conf", Line: 3, Message: "a line"},
		{File: "hives.conf", Column: 7, Message: "a file"},
		{Line: 3, Message: "nowhere"},
	}, Err: context.Canceled}
	want := "hive gpu-1: no good\n" +
		"  hives.conf:3:7: unknown key (did you mean alias?)\n  hives.conf:3: a line\n  hives.conf: a file\n  nowhere"
	if e.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", e, want)
	}
	if !errors.Is(e, context.Canceled) {
		t.Error("the cause is lost")
	}
	if got := (&ops.Error{Message: "plain"}).Error(); got != "plain" {
		t.Errorf("got %q", got)
	}
	wrapped := fmt.Errorf("outer: %w", e)
	for _, c := range []struct {
		err  error
		want ops.Code
	}{{nil, ""}, {errors.New("any"), ops.CodeFailed}, {wrapped, ops.CodeConfigInvalid}} {
		if got := ops.CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) is %q, want %q", c.err, got, c.want)
		}
	}
	data, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("canceled")) || !bytes.Contains(data, []byte(`"code":"config_invalid"`)) {
		t.Errorf("wire form %s", data)
	}
}

// TestEventsAreSmall holds that an event says only what it is about.
func TestEventsAreSmall(t *testing.T) {
	t.Parallel()
	at := time.Date(2025, 10, 23, 12, 0, 0, 0, time.UTC)
	got, err := json.Marshal(ops.Event{Time: at, Type: ops.EventPhase, Hive: "gpu-1", Phase: ops.PhaseReading})
	want := `{"time":"2025-10-23T12:00:00Z","type":"phase","hive":"gpu-1","phase":"reading"}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v", got, err)
	}
}
