package loader

import (
	"context"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
)

// UnknownModelError is the error of a model that no hive has.
type UnknownModelError struct {
	Model string
	Err   error // contains a reason for each hive
}

// Error implements error.
func (e *UnknownModelError) Error() string { return e.Err.Error() }

// Unwrap returns the reasons.
func (e *UnknownModelError) Unwrap() error { return e.Err }

// LoadIfKnown loads a model that a hive has. API clients may send any name, so for an unknown
// one it only refreshes the snapshots and checks again.
func (l *Loader) LoadIfKnown(ctx context.Context, model string) error {
	if !l.isKnown(model) {
		if err := l.pool.RefreshAll(ctx); err != nil {
			return err
		}
		if !l.isKnown(model) {
			return &UnknownModelError{model, l.noCandidateReason(model)}
		}
	}
	return l.load(ctx, loadKey{model: l.modelID(model, "")}, nil)
}

// isKnown reports whether a hive has reported a model, or a worker that serves it.
func (l *Loader) isKnown(name string) bool {
	for _, conn := range l.pool.Connections() {
		report := conn.View(time.Now()).Snapshot
		if report != nil && (len(scheduler.FindModels(report.Models, name)) > 0 || anyServes(report, name)) {
			return true
		}
	}
	return false
}

func anyServes(report *operations.HiveSnapshot, name string) bool {
	serves := scheduler.Serves(report.Models, name)
	for i := range report.Workers {
		if serves(&report.Workers[i]) {
			return true
		}
	}
	return false
}

// modelID returns the ID of the model that name identifies on all hives, or on the given
// one. See [scheduler.CommonModelID].
func (l *Loader) modelID(name, hive string) string {
	var schedHives []scheduler.Hive
	for _, conn := range l.pool.Connections() {
		if view := conn.View(time.Now()); hive == "" || view.Alias == hive {
			schedHives = append(schedHives, schedulerHive(conn.Hive(), view.Link, view.Snapshot))
		}
	}
	return scheduler.CommonModelID(schedHives, name)
}

// noCandidateReason returns an error that explains for each hive why no worker serves a model,
// according to the last snapshots.
func (l *Loader) noCandidateReason(name string) error {
	op := operations.Infer{Model: name}
	var list []registry.Snapshot
	for _, conn := range l.pool.Connections() {
		snap := registry.Snapshot{Hive: conn.Hive(), Report: conn.View(time.Now()).Snapshot}
		if e := conn.OfflineError(); e != nil {
			snap.Err = e
		}
		list = append(list, snap)
	}
	l.candidates(list, op)
	_, reasons := scheduler.LoadTargets(hives(list), name)
	addReasons(list, reasons)
	err := noCandidateError(op, list)
	for _, snap := range list {
		if snap.Report == nil { // an unreachable hive may have the model
			return &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonOf(snap.Err), Subject: operations.SubjectModel.WithName(name), Message: err.Error(), Err: err}
		}
	}
	return err
}
