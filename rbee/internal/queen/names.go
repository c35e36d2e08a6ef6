package queen

import (
	"cmp"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// A model has one name by which things are counted, looked for and loaded: the id
// under which its hive lists it. People call it by others too: by the repository
// alone where that has but one model there, in other letters, or as they named it
// when they started a worker for it.

// served is what a worker serves, by the model's id where it has one.
func served(w operations.WorkerProcess) string { return cmp.Or(w.ModelID, w.Model) }

// serves reports whether a worker serves what somebody calls name on its hive.
func serves(models []operations.Model, w operations.WorkerProcess, name string) bool {
	return name == w.Model || name == w.ModelID || idOf(models, name) == idOf(models, served(w))
}

// idOf is the id of the model that somebody calls name on a hive; the name itself if
// that is none of its models.
func idOf(models []operations.Model, name string) string {
	if m := findModel(models, name); m != nil {
		return m.ID
	}
	return name
}

// findModel finds a model by its id, or by its repository where that has but one.
func findModel(models []operations.Model, name string) *operations.Model {
	if i := slices.IndexFunc(models, func(m operations.Model) bool { return m.ID == name }); i >= 0 {
		return &models[i]
	}
	var found *operations.Model
	for i, m := range models {
		if !strings.EqualFold(m.Repo, name) && !strings.EqualFold(m.ID, name) {
			continue
		}
		if found != nil {
			return nil
		}
		found = &models[i]
	}
	return found
}
