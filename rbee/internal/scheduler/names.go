package scheduler

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// A model has one name by which things are counted, looked for and loaded: the id
// under which its hive lists it. People call it by others too: by the repository
// alone where that has but one model there, in other letters, or as they named it
// when they started a worker for it.

// ServedModel is what a worker serves, by the model's id where it has one.
func ServedModel(w operations.WorkerProcess) string { return cmp.Or(w.ModelID, w.Model) }

// Serves reports for the workers of a hive whether they serve what somebody calls name.
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

// ModelID is the id of the model that somebody calls name on a hive; the name itself if
// that is none of its models, or several.
func ModelID(models []operations.Model, name string) string {
	if m := FindModel(models, name); m != nil {
		return m.ID
	}
	return name
}

// CommonModelID is the id of the model that somebody calls name: if all hives agree on it
// that are not offline and have an engine for it. Else the name stays.
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

// FindModel finds a model by its id, or by its repository where that has but one.
func FindModel(models []operations.Model, name string) *operations.Model {
	if found := FindModels(models, name); len(found) == 1 {
		return found[0]
	}
	return nil
}

// FindModels are the models that a name may mean: the one with that id, else those of
// that repository, in whatever letters.
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

// sameName compares names in whatever letters. They are of letters that have the same
// length in both cases, and there are many to compare.
func sameName(a, b string) bool { return len(a) == len(b) && strings.EqualFold(a, b) }

// WorkerKey returns what distinguishes a worker from all others of the fleet.
func WorkerKey(w operations.WorkerProcess) string { return w.Hive + "/" + w.ID }

// Instance tells a worker from what it was before it was started again.
func Instance(w operations.WorkerProcess) string {
	return w.ID + "@" + strconv.FormatInt(w.StartedAt.UnixNano(), 36)
}
