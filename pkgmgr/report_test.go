package pkgmgr_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestStatusCountsEveryIssue checks that the summary counts all kinds of drift.
func TestStatusCountsEveryIssue(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(3)
	f := openFleet(t, c, machines, nil)
	changes := &plan.Plan{}
	for _, issue := range []operations.Issue{
		operations.IssueMissingHive, operations.IssueExtraHive, operations.IssueOutdatedHive, operations.IssueHiveNotRunning,
		operations.IssueMissingWorker, operations.IssueExtraWorker, operations.IssueOutdatedWorker, operations.IssueCorruptWorker,
		operations.IssueUnreachable,
	} {
		changes.Drift = append(changes.Drift, operations.Drift{Hive: "gpu-00", Issue: issue})
	}
	want := operations.StatusSummary{
		TotalHives: 3, HivesOK: 2, HivesMissing: 1, HivesExtra: 1, HivesOutdated: 1, HivesNotRunning: 1, HivesUnreachable: 1,
		WorkersMissing: 1, WorkersExtra: 1, WorkersOutdated: 1, WorkersCorrupt: 1,
	}
	if got := f.StatusReport(changes, false, 0); got.Summary != want || got.Status != operations.StatusDriftDetected {
		t.Errorf("StatusReport() has status %s, summary %+v, want %s and %+v", got.Status, got.Summary, operations.StatusDriftDetected, want)
	}
	changes.Drift = changes.Drift[len(changes.Drift)-1:]
	if got := f.StatusReport(changes, false, 0); got.Status != operations.StatusUnreachable {
		t.Errorf("StatusReport() of an unreachable hive has status %s, want %s", got.Status, operations.StatusUnreachable)
	}
}

// TestDryRunSummary checks that a dry run has the same summary as the run.
func TestDryRunSummary(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(4)
	syncFleet(t.Context(), openFleet(t, c, machines, nil), plan.Options{}, pkgmgr.ApplyOptions{})
	machines["gpu-00"].Edit(func(s *wire.State) { s.Workers = append(s.Workers, wire.Worker{Type: "old"}) })
	machines["gpu-01"].Edit(func(s *wire.State) { s.Schema, s.Rbee, s.Workers = 0, nil, nil })
	f := openFleet(t, &config.Config{Hives: c.Hives[:3]}, machines, func(o *pkgmgr.Options) { o.Extra = c.Hives[3:] })
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	plan := f.Plan(t.Context(), plan.Options{Fetch: true, RemoveExtra: true})
	dry := f.SyncReport(plan, nil, 0)
	want := operations.SyncSummary{
		HivesInstalled: 1, HivesUpdated: 1, HivesAlreadyInstalled: 1, HivesRemoved: 1,
		WorkersInstalled: 1, WorkersAlreadyInstalled: 2, WorkersRemoved: 1,
	}
	if dry.Summary != want || !dry.DryRun {
		t.Errorf("SyncReport() of a dry run has summary %+v, DryRun %t, want %+v", dry.Summary, dry.DryRun, want)
	}
	run := f.SyncReport(plan, f.Apply(t.Context(), plan, pkgmgr.ApplyOptions{}), 0)
	if run.Summary != want || run.DryRun {
		t.Errorf("SyncReport() of the run has summary %+v, DryRun %t, want %+v", run.Summary, run.DryRun, want)
	}
}

// failingSource is a source without binaries. It counts the calls by the value of fetch.
type failingSource struct{ calls map[bool]int }

func (s failingSource) Binary(_ context.Context, _ wire.Platform, fetch bool) (*artifact.Binary, error) {
	s.calls[fetch]++
	if fetch {
		return nil, errors.New("the release does not exist")
	}
	return nil, nil // no local binary
}

// TestBinaryIsFetchedOnlyIfNeeded checks that no binary is fetched for machines with the
// desired version, and that a missing binary is reported once per hive.
func TestBinaryIsFetchedOnlyIfNeeded(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(2)
	for _, alias := range []string{"gpu-00", "gpu-01"} {
		machines[alias].Initial = wire.State{Rbee: &wire.BinaryRecord{Version: "1.0.0", SHA256: "aa"}}
	}
	source := failingSource{map[bool]int{}}
	makePlan := func() *plan.Plan {
		f := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Binaries = source })
		f.Read(t.Context(), pkgmgr.ReadOptions{})
		return f.Plan(t.Context(), plan.Options{Fetch: true})
	}
	if p := makePlan(); source.calls[true] != 0 || len(p.Blocked) != 0 {
		t.Errorf("Plan() called Binary() %v times, blocked %+v, want no fetch and none blocked", source.calls, p.Blocked)
	}
	machines["gpu-00"].Edit(func(s *wire.State) { s.Schema, s.Rbee = 0, nil })
	p := makePlan()
	if source.calls[true] == 0 || len(p.Blocked) != 1 || p.Blocked[0].Hive != "gpu-00" || !strings.Contains(p.Blocked[0].Reason, "the release does not exist") {
		t.Errorf("Plan() called Binary() %v times, blocked %+v, want gpu-00 blocked by a failed fetch", source.calls, p.Blocked)
	}
}
