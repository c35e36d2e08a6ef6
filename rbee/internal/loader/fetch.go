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

// fetchModel has a hive fetch a model that no hive has whole; [scheduler.FetchTarget]
// chooses it, or none. What cannot fit into any memory of the hive is given up once its
// size is known.
func (f *Finder) fetchModel(ctx context.Context, model string, list []registry.Snapshot, events operations.Handler) error {
	known := make([][]operations.Model, len(list))
	for i := range list {
		known[i] = f.lastModels(&list[i])
	}
	target := scheduler.FetchTarget(hives(list), known, model)
	if target < 0 {
		return nil
	}
	v := &list[target]
	events.Send(operations.Event{
		Type: operations.EventNote, Hive: v.Hive.Alias, Message: "no hive has " + model + ": fetching it",
	})
	most := scheduler.Capacity(v.Report)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := v.Client.Do(ctx, operations.ModelDownload{Target: operations.Target{HiveID: v.Hive.Alias}, Model: model}, func(e operations.Event) {
		if most > 0 && e.Total > 0 && uint64(e.Total) > most {
			cancel(fmt.Errorf("it has %d bytes, and there are %d of memory", e.Total, most))
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
		err = fmt.Errorf("the hive answered with a %T", r)
	}
	if err != nil {
		v.Err = errors.Join(v.Err, fmt.Errorf("fetching it there: %w", err))
		return nil
	}
	got.Model.Hive = v.Hive.Alias
	there := *v.Report // which others may hold too
	there.Models = slices.DeleteFunc(slices.Clone(there.Models), func(m operations.Model) bool { return m.ID == got.Model.ID })
	there.Models = append(there.Models, got.Model)
	v.Report = &there
	return nil
}

// lastModels are the models of a hive, also of one that is away, as far as it was heard.
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
