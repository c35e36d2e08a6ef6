package loader

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/rbee-keeper/rbee/operations"
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
	v := &list[target]
	events.Send(operations.Event{
		Type: operations.EventNote, Hive: v.Hive.Alias, Message: "no hive has " + model + ": fetching it",
	})
	capacity := scheduler.Capacity(v.Report)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := v.Client.Do(ctx, operations.ModelDownload{Target: operations.Target{HiveID: v.Hive.Alias}, Model: model}, func(e operations.Event) {
		if capacity > 0 && e.Total > 0 && uint64(e.Total) > capacity {
			cancel(fmt.Errorf("the model needs %d bytes, but the hive has only %d bytes of memory", e.Total, capacity))
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
		err = fmt.Errorf("unexpected report %T from the hive", r)
	}
	if err != nil {
		v.Err = errors.Join(v.Err, fmt.Errorf("cannot fetch the model: %w", err))
		return nil
	}
	got.Model.Hive = v.Hive.Alias
	report := *v.Report // a copy, because the snapshot is shared
	report.Models = slices.DeleteFunc(slices.Clone(report.Models), func(m operations.Model) bool { return m.ID == got.Model.ID })
	report.Models = append(report.Models, got.Model)
	v.Report = &report
	return nil
}

// lastModels returns the models of the last snapshot of a hive, even if it is offline.
func (f *Finder) lastModels(v *registry.Snapshot) []operations.Model {
	s := v.Report
	if s == nil {
		s = f.conn.LastReport(v.Hive)
	}
	if s == nil {
		return nil
	}
	return s.Models
}
