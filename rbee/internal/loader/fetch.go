package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
)

// fetchModel downloads a model that no hive has completely, to the hive that
// [scheduler.FetchTarget] selects, if any. It cancels the download once the size is known to
// exceed the memory of the hive. A failed download is recorded in list.
func (f *Finder) fetchModel(ctx context.Context, model string, list []registry.Snapshot, events operations.Handler) error {
	models := make([][]operations.Model, len(list))
	for i := range list {
		models[i] = f.lastModels(&list[i])
	}
	target := scheduler.FetchTarget(hives(list), models, model)
	if target < 0 {
		return nil
	}
	snap := &list[target]
	events.Send(operations.Event{
		Type: operations.EventNote, Hive: snap.Hive.Alias, Message: "no hive has " + model + ": fetching it",
	})
	capacity := scheduler.Capacity(snap.Report)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := snap.Client.Do(ctx, operations.ModelDownload{Target: operations.Target{HiveID: snap.Hive.Alias}, Model: model}, func(e operations.Event) {
		if capacity > 0 && e.Total > 0 && uint64(e.Total) > capacity {
			cancel(fmt.Errorf("the model needs %s, but the hive has only %s of memory", bytesize.Format(e.Total), bytesize.Format(capacity)))
		}
		events.Send(e)
	})
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	got, ok := r.(*operations.ModelDownloadReport)
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled):
		return registry.OperationError(context.Cause(ctx))
	case err == nil && !ok:
		err = fmt.Errorf("invalid report from the hive: got %T, want %T", r, got)
	}
	if err != nil {
		snap.Err = errors.Join(snap.Err, fmt.Errorf("cannot fetch the model: %w", err))
		return nil
	}
	got.Model.Hive = snap.Hive.Alias
	report := *snap.Report // a copy, because the snapshot is shared
	report.Models = slices.DeleteFunc(slices.Clone(report.Models), func(m operations.Model) bool { return m.ID == got.Model.ID })
	report.Models = append(report.Models, got.Model)
	snap.Report = &report
	return nil
}

// lastModels returns the models of the last snapshot of a hive, even if it is offline.
func (f *Finder) lastModels(snap *registry.Snapshot) []operations.Model {
	report := snap.Report
	if report == nil {
		report = f.conn.LastReport(snap.Hive)
	}
	if report == nil {
		return nil
	}
	return report.Models
}
