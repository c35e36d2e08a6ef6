package pkgmgr

import (
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// SyncReport summarizes the reports of [Fleet.Apply]. If reports is nil, SyncReport returns
// the report of a dry run, which summarizes the pending changes of p.
func (f *Fleet) SyncReport(p *plan.Plan, reports []operations.HiveReport, duration time.Duration) *operations.SyncReport {
	r := &operations.SyncReport{Plan: p.Plan, Hives: reports, DryRun: reports == nil}
	if r.DryRun {
		r.Hives = f.pendingReports(p)
	}
	r.Warnings = f.warnings(p, false)
	r.Summary.DurationSeconds = seconds(duration)
	successes := 0
	for _, h := range r.Hives {
		switch h.Status {
		case operations.HiveInstalled:
			r.Summary.HivesInstalled++
		case operations.HiveUpdated:
			r.Summary.HivesUpdated++
		case operations.HiveAlreadyInstalled:
			r.Summary.HivesAlreadyInstalled++
		case operations.HiveUninstalled:
			r.Summary.HivesRemoved++
		case operations.HiveUnreachable:
			r.Summary.HivesUnreachable++
		case operations.HiveFailed, operations.HiveLocked, operations.HiveCanceled:
			r.Summary.HivesFailed++
		case operations.HivePending:
			countPending(&r.Summary, p.StepsOf(h.Alias))
		}
		if isSuccess(h.Status) {
			successes++
		}
		for _, s := range h.Steps {
			countWorker(&r.Summary, s)
		}
		for _, s := range h.FailedSteps {
			if s.Step.Worker != "" {
				r.Summary.WorkersFailed++
			}
		}
	}
	if r.DryRun {
		for _, s := range p.Steps {
			countWorker(&r.Summary, s)
		}
	}
	r.Summary.WorkersAlreadyInstalled = f.countUnchanged(p)
	r.Status = syncStatus(r, successes)
	return r
}

// syncStatus returns the status of a report. successes is the number of hives that succeeded.
func syncStatus(r *operations.SyncReport, successes int) string {
	switch {
	case r.DryRun && len(r.Plan.Steps) > 0:
		return operations.StatusChangesPending
	case successes == len(r.Hives) && len(r.Plan.Blocked) == 0:
		return operations.StatusSuccess
	case successes == 0:
		return operations.StatusFailed
	default:
		return operations.StatusPartial
	}
}

// isSuccess reports whether a hive was read and all its steps succeeded.
func isSuccess(s operations.HiveResult) bool {
	switch s {
	case operations.HiveFailed, operations.HiveUnreachable, operations.HiveLocked, operations.HiveCanceled:
		return false
	}
	return true
}

// pendingReports returns the hive reports of a dry run.
func (f *Fleet) pendingReports(p *plan.Plan) []operations.HiveReport {
	reports := make([]operations.HiveReport, len(f.members))
	for i, m := range f.members {
		r := operations.HiveReport{
			Alias: m.hive.Alias, Status: operations.HiveAlreadyInstalled, Workers: installedTypes(m.state),
			DurationSeconds: seconds(m.duration),
		}
		switch {
		case m.err != nil:
			r.Status, r.Error = operations.HiveUnreachable, m.err
		case len(p.StepsOf(m.hive.Alias)) > 0:
			r.Status = operations.HivePending
		case m.state != nil && m.state.Rbee == nil:
			r.Status = operations.HiveNotInstalled
		}
		reports[i] = r
	}
	return reports
}

// countPending adds a hive with steps to the summary of a dry run.
func countPending(sum *operations.SyncSummary, steps []operations.Step) {
	switch {
	case len(steps) == 0:
	case steps[0].Action == operations.ActionInstallHive:
		sum.HivesInstalled++
	case steps[0].Action == operations.ActionRemoveHive:
		sum.HivesRemoved++
	default:
		sum.HivesUpdated++
	}
}

// countWorker adds a worker step to the summary.
func countWorker(sum *operations.SyncSummary, s operations.Step) {
	switch s.Action {
	case operations.ActionInstallWorker, operations.ActionUpdateWorker:
		sum.WorkersInstalled++
	case operations.ActionRemoveWorker:
		sum.WorkersRemoved++
	}
}

// countUnchanged returns the number of workers in the config that have no drift and no
// steps.
func (f *Fleet) countUnchanged(p *plan.Plan) int {
	hasChange := map[[2]string]bool{}
	for _, d := range p.Drift {
		hasChange[[2]string{d.Hive, d.Worker}] = true
	}
	for _, s := range p.Steps {
		hasChange[[2]string{s.Hive, s.Worker}] = true
	}
	n := 0
	for _, m := range f.members {
		if m.extra || m.err != nil {
			continue
		}
		for _, w := range m.hive.Workers {
			if !hasChange[[2]string{m.hive.Alias, w.Type}] {
				n++
			}
		}
	}
	return n
}

// StatusReport summarizes the drift of a plan. If verbose is set, it includes the state of
// each hive.
func (f *Fleet) StatusReport(changes *plan.Plan, verbose bool, duration time.Duration) *operations.StatusReport {
	r := &operations.StatusReport{Drift: changes.Drift, Warnings: f.warnings(changes, true)}
	r.Summary.DurationSeconds = seconds(duration)
	hasDrift := map[string]bool{}
	for _, d := range changes.Drift {
		hasDrift[d.Hive] = true
		countIssue(&r.Summary, d.Issue)
	}
	for _, m := range f.members {
		if m.extra {
			continue
		}
		r.Summary.TotalHives++
		if !hasDrift[m.hive.Alias] {
			r.Summary.HivesOK++
		}
	}
	if verbose {
		for _, m := range f.members {
			r.Hives = append(r.Hives, plan.HiveState{Hive: m.hive, State: m.state, Err: m.err}.Detail())
		}
	}
	switch r.Outcome() {
	case operations.OutcomeDrift:
		r.Status = operations.StatusDriftDetected
	case operations.OutcomeUnreachable:
		r.Status = operations.StatusUnreachable
	default:
		r.Status = operations.StatusInSync
	}
	return r
}

// countIssue adds a difference to the summary.
func countIssue(sum *operations.StatusSummary, issue operations.Issue) {
	switch issue {
	case operations.IssueMissingHive:
		sum.HivesMissing++
	case operations.IssueExtraHive:
		sum.HivesExtra++
	case operations.IssueNewerHive:
		sum.HivesNewer++
	case operations.IssueOutdatedHive:
		sum.HivesOutdated++
	case operations.IssueHiveNotRunning:
		sum.HivesNotRunning++
	case operations.IssueUnreachable:
		sum.HivesUnreachable++
	case operations.IssueMissingWorker:
		sum.WorkersMissing++
	case operations.IssueExtraWorker:
		sum.WorkersExtra++
	case operations.IssueOutdatedWorker:
		sum.WorkersOutdated++
	case operations.IssueCorruptWorker:
		sum.WorkersCorrupt++
	}
}
