package scheduler

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// The ID of a model is the name under which its hive lists it. Metrics, scheduling and
// loading use the ID. Requests may use other names: the repository, if the hive has only
// one model of it, a different case, or the name with which a worker was started.

// ServedModel returns the ID of the model that a worker serves, or its name if the ID is
// unknown.
func ServedModel(w operations.WorkerProcess) string { return cmp.Or(w.ModelID, w.Model) }

// Serves returns a function that reports whether a worker of a hive serves the model name.
// models are the models of that hive.
func Serves(models []operations.Model, name string) func(*operations.WorkerProcess) bool {
	id := ""
	return func(w *operations.WorkerProcess) bool {
		if name == w.ModelID || name == w.Model {
			return true
		}
		if id == "" {
			id = ModelID(models, name)
		}
		if w.ModelID != "" {
			return id == w.ModelID
		}
		return id == w.Model || id == ModelID(models, w.Model)
	}
}

// ModelID returns the ID of the model that name identifies on a hive, or name itself if it
// matches no model or several.
func ModelID(models []operations.Model, name string) string {
	if m := FindModel(models, name); m != nil {
		return m.ID
	}
	return name
}

// CommonModelID returns the ID of the model that name identifies, if all hives that are not
// offline and have an engine for it agree. Otherwise it returns name.
func CommonModelID(hives []Hive, name string) string {
	id := ""
	for _, h := range hives {
		if h.Report == nil || h.Link == operations.LinkOffline {
			continue
		}
		found := FindModels(h.Report.Models, name)
		if len(found) == 0 || len(found) == 1 && Engine(h, found[0].Format) == "" {
			continue
		}
		if len(found) > 1 || id != "" && id != found[0].ID {
			return name
		}
		id = found[0].ID
	}
	return cmp.Or(id, name)
}

// FindModel returns the model that name identifies, or nil if [FindModels] finds no model or
// several.
func FindModel(models []operations.Model, name string) *operations.Model {
	if found := FindModels(models, name); len(found) == 1 {
		return found[0]
	}
	return nil
}

// FindModels returns the model whose ID is name. Otherwise it returns all models whose ID or
// repository matches name, ignoring case.
func FindModels(models []operations.Model, name string) (found []*operations.Model) {
	for i := range models {
		m := &models[i]
		if m.ID == name {
			return []*operations.Model{m}
		}
		if sameName(m.ID, name) || sameName(m.Repo, name) {
			found = append(found, m)
		}
	}
	return found
}

// sameName reports whether names are equal, ignoring case. It compares the lengths first,
// which is fast: case does not change the length of a model name.
func sameName(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// WorkerKey returns a key that is unique among the workers of all hives.
func WorkerKey(w operations.WorkerProcess) string { return w.Hive + "/" + w.ID }

// Instance returns an identifier of a worker that changes when it restarts.
func Instance(w operations.WorkerProcess) string {
	return w.ID + "@" + strconv.FormatInt(w.StartedAt.UnixNano(), 36)
}
