package queen

import (
	"cmp"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// A model has one name by which things are counted, looked for and loaded: the id
// under which its hive lists it. People call it by others too: by the repository
// alone where that has but one model there, in other letters, or as they named it
// when they started a worker for it.

// served is what a worker serves, by the model's id where it has one.
func served(w operations.WorkerProcess) string { return cmp.Or(w.ModelID, w.Model) }

// servesIn reports for the workers of a hive whether they serve what somebody calls name.
func servesIn(models []operations.Model, name string) func(*operations.WorkerProcess) bool {
	id := ""
	return func(w *operations.WorkerProcess) bool {
		if name == w.ModelID || name == w.Model {
			return true
		}
		if id == "" {
			id = idOf(models, name)
		}
		if w.ModelID != "" {
			return id == w.ModelID
		}
		return id == w.Model || id == idOf(models, w.Model)
	}
}

// idOf is the id of the model that somebody calls name on a hive; the name itself if
// that is none of its models, or several.
func idOf(models []operations.Model, name string) string {
	if m := findModel(models, name); m != nil {
		return m.ID
	}
	return name
}

// findModel finds a model by its id, or by its repository where that has but one.
func findModel(models []operations.Model, name string) *operations.Model {
	if found := findModels(models, name); len(found) == 1 {
		return found[0]
	}
	return nil
}

// findModels are the models that a name may mean: the one with that id, else those of
// that repository, in whatever letters.
func findModels(models []operations.Model, name string) (found []*operations.Model) {
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
