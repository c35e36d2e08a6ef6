package pkgmgr

import (
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// SyncReport sums up what [Fleet.Apply] did, or, with reports nil, what plan
// would do.
func (f *Fleet) SyncReport(p *plan.Plan, reports []operations.HiveReport, took time.Duration) *operations.SyncReport {
	r := &operations.SyncReport{Plan: p.Plan, Hives: reports, DryRun: reports == nil}
	if r.DryRun {
		r.Hives = f.pending(p)
	}
	r.Warnings = f.warnings(p, false)
	r.Summary.DurationSeconds = seconds(took)
	good := 0
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
		if ok(h.Status) {
			good++
		}
		for _, s := range h.Steps {
			countWorker(&r.Summary, s)
		}
		for _, s := range h.Failed {
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
	r.Summary.WorkersAlreadyInstalled = f.untouched(p)
	r.Status = syncStatus(r, good)
	return r
}

func syncStatus(r *operations.SyncReport, good int) string {
	switch {
	case r.DryRun && len(r.Plan.Steps) > 0:
		return operations.StatusChangesPending
	case good == len(r.Hives) && len(r.Plan.Blocked) == 0:
		return operations.StatusSuccess
	case good == 0:
		return operations.StatusFailed
	default:
		return operations.StatusPartial
	}
}

func ok(s operations.HiveResult) bool {
	switch s {
	case operations.HiveFailed, operations.HiveUnreachable, operations.HiveLocked, operations.HiveCanceled:
		return false
	}
	return true
}

// pending is a dry run's list of hives.
func (f *Fleet) pending(p *plan.Plan) []operations.HiveReport {
	reports := make([]operations.HiveReport, len(f.members))
	for i, m := range f.members {
		r := operations.HiveReport{
			Alias: m.hive.Alias, Status: operations.HiveAlreadyInstalled, Workers: installedTypes(m.state),
			DurationSeconds: seconds(m.took),
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

func countWorker(sum *operations.SyncSummary, s operations.Step) {
	switch s.Action {
	case operations.ActionInstallWorker, operations.ActionUpdateWorker:
		sum.WorkersInstalled++
	case operations.ActionRemoveWorker:
		sum.WorkersRemoved++
	}
}

// untouched counts the wanted workers that were there and that no step is about.
func (f *Fleet) untouched(p *plan.Plan) int {
	touched := map[[2]string]bool{}
	for _, d := range p.Drift {
		touched[[2]string{d.Hive, d.Worker}] = true
	}
	for _, s := range p.Steps {
		touched[[2]string{s.Hive, s.Worker}] = true
	}
	n := 0
	for _, m := range f.members {
		if m.extra || m.err != nil {
			continue
		}
		for _, w := range m.hive.Workers {
			if !touched[[2]string{m.hive.Alias, w.Type}] {
				n++
			}
		}
	}
	return n
}

// StatusReport sums up the drift of a plan. With verbose it tells what each
// hive has.
func (f *Fleet) StatusReport(changes *plan.Plan, verbose bool, took time.Duration) *operations.StatusReport {
	r := &operations.StatusReport{Drift: changes.Drift, Warnings: f.warnings(changes, true)}
	r.Summary.DurationSeconds = seconds(took)
	differs := map[string]bool{}
	for _, d := range changes.Drift {
		differs[d.Hive] = true
		countIssue(&r.Summary, d.Issue)
	}
	for _, m := range f.members {
		if m.extra {
			continue
		}
		r.Summary.TotalHives++
		if !differs[m.hive.Alias] {
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
