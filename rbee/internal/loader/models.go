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
	Err   error // has a reason for each hive
}

// Error implements error.
func (e *UnknownModelError) Error() string { return e.Err.Error() }

// Unwrap returns the reasons.
func (e *UnknownModelError) Unwrap() error { return e.Err }

// LoadIfKnown loads a model that a hive has. For an unknown name, which may come from any API
// client, it only refreshes the snapshots once to check again.
func (f *Loader) LoadIfKnown(ctx context.Context, model string) error {
	if !f.isKnown(model) {
		if err := f.pool.RefreshAll(ctx); err != nil {
			return err
		}
		if !f.isKnown(model) {
			return &UnknownModelError{model, f.noCandidateReason(model)}
		}
	}
	return f.load(ctx, loadKey{model: f.modelID(model, "")}, nil)
}

// isKnown reports whether a hive has reported a model, or a worker that serves it.
func (f *Loader) isKnown(name string) bool {
	for _, l := range f.pool.Connections() {
		s := l.View(time.Now()).Snapshot
		if s != nil && (len(scheduler.FindModels(s.Models, name)) > 0 || anyServes(s, name)) {
			return true
		}
	}
	return false
}

func anyServes(s *operations.HiveSnapshot, name string) bool {
	serves := scheduler.Serves(s.Models, name)
	for i := range s.Workers {
		if serves(&s.Workers[i]) {
			return true
		}
	}
	return false
}

// modelID returns the id of the model that name identifies on all hives, or on the given
// one. See [scheduler.CommonModelID].
func (f *Loader) modelID(name, hive string) string {
	var schedHives []scheduler.Hive
	for _, l := range f.pool.Connections() {
		if v := l.View(time.Now()); hive == "" || v.Alias == hive {
			schedHives = append(schedHives, schedulerHive(l.Hive(), v.Link, v.Snapshot))
		}
	}
	return scheduler.CommonModelID(schedHives, name)
}

// noCandidateReason returns an error with the reason of each hive why no worker serves a
// model, from the last snapshots.
func (f *Loader) noCandidateReason(name string) error {
	op := operations.Infer{Model: name}
	var list []registry.Snapshot
	for _, l := range f.pool.Connections() {
		v := registry.Snapshot{Hive: l.Hive(), Report: l.View(time.Now()).Snapshot}
		if e := l.OfflineError(); e != nil {
			v.Err = e
		}
		list = append(list, v)
	}
	f.candidates(list, op)
	_, reasons := scheduler.LoadTargets(hives(list), name)
	addReasons(list, reasons)
	err := noCandidateError(op, list)
	for _, v := range list {
		if v.Report == nil { // an unreachable hive may have the model
			return &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonOf(v.Err), Subject: operations.SubjectModel.Named(name), Message: err.Error(), Err: err}
		}
	}
	return err
}
