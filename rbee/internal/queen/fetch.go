package queen

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// fetchModel has a hive fetch a model that no hive has whole: the one that has begun
// to, else the one with the most memory among those that have an engine for it. It does
// nothing for a name that is none of a hub's or means several models, where no hive has
// an engine, and where a hive that is away has the model: unreachable is not absent.
// What cannot fit into any memory of the hive is given up once its size is known.
func (q *Queen) fetchModel(ctx context.Context, model string, views []view, events operations.Handler) error {
	if !strings.Contains(model, "/") {
		return nil
	}
	v := roomiest(views, formatOf(model))
	for i := range views {
		found := findModels(q.toldOf(&views[i]), model)
		switch {
		case len(found) > 1, len(found) == 1 && found[0].Complete:
			return nil // what is wrong with that is told
		case len(found) == 1 && views[i].snapshot != nil:
			v = &views[i]
		}
	}
	if v == nil {
		return nil
	}
	tell(events, operations.Event{
		Type: operations.EventNote, Hive: v.hive.Alias, Message: "no hive has " + model + ": fetching it",
	})
	most := capacity(v.snapshot)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := v.door.do(ctx, operations.ModelDownload{Target: operations.Target{HiveID: v.hive.Alias}, Model: model}, func(e operations.Event) {
		if most > 0 && e.Total > 0 && uint64(e.Total) > most {
			cancel(fmt.Errorf("it has %d bytes, and there are %d of memory", e.Total, most))
		}
		tell(events, e)
	})
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	got, ok := r.(*operations.ModelDownloadReport)
	switch {
	case ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled):
		return asError(context.Cause(ctx))
	case err == nil && !ok:
		err = fmt.Errorf("the hive answered with a %T", r)
	}
	if err != nil {
		v.err = errors.Join(v.err, fmt.Errorf("fetching it there: %w", err))
		return nil
	}
	got.Model.Hive = v.hive.Alias
	there := *v.snapshot // which others may hold too
	there.Models = slices.DeleteFunc(slices.Clone(there.Models), func(m operations.Model) bool { return m.ID == got.Model.ID })
	there.Models = append(there.Models, got.Model)
	v.snapshot = &there
	return nil
}

// toldOf are the models of a hive, also of one that is away, as far as it was heard.
func (q *Queen) toldOf(v *view) []operations.Model {
	s := v.snapshot
	if s == nil && q.registry != nil {
		if l := q.registry.find(v.hive); l != nil {
			s = l.view(time.Now()).Snapshot
		}
	}
	if s == nil {
		return nil
	}
	return s.Models
}

// formatOf guesses the format of a model of which only the name is known: repositories
// of GGUF files say so in their names, and only they hold several quantisations.
func formatOf(model string) string {
	if _, after, _ := strings.Cut(model, "/"); strings.Contains(after, ":") || strings.Contains(strings.ToLower(after), "gguf") {
		return "gguf"
	}
	return "safetensors"
}

// roomiest is the hive with the most memory that has an engine for a format, or, where
// none has, for any.
func roomiest(views []view, format string) *view {
	var list []*view
	for i := range views {
		if v := &views[i]; v.snapshot != nil && v.door != nil && slices.ContainsFunc(v.snapshot.Installed, func(t operations.InstalledType) bool { return len(t.Formats) > 0 }) {
			list = append(list, v)
		}
	}
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if has := engineFor(a, format) != ""; has != (engineFor(b, format) != "") {
			return has
		}
		return capacity(a.snapshot) > capacity(b.snapshot)
	})
	if len(list) == 0 {
		return nil
	}
	return list[0]
}

// capacity is the memory that a model may take on a hive: that of its accelerators, or
// the machine's where it has none.
func capacity(s *operations.HiveSnapshot) (n uint64) {
	for _, d := range s.Machine.Devices {
		if d.Error == "" {
			n += d.MemoryTotal
		}
	}
	if n == 0 {
		return s.Machine.MemoryTotal
	}
	return n
}
