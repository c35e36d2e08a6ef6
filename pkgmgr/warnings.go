package pkgmgr

import (
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// Warnings lists the warnings of [Fleet.Plan] about workers that are installed,
// in the order of hives and workers; nil for none.
func (f *Fleet) Warnings() []operations.ValidateWarning { return f.warnings(true) }

// warnings lists the warnings of what [Fleet.Plan] decided that hives of the
// config shall have, in the order of hives and workers; nil for none. With
// installed, only workers that are installed count.
func (f *Fleet) warnings(installed bool) []operations.ValidateWarning {
	var list []operations.ValidateWarning
	for _, m := range f.members {
		if m.extra || m.state == nil {
			continue
		}
		types := installedTypes(m.state)
		for _, w := range m.hive.Workers {
			warning := f.want.Workers[plan.WorkerKey{Hive: m.hive.Alias, Type: w.Type}].Warning
			if warning != "" && (!installed || slices.Contains(types, w.Type)) {
				list = append(list, operations.ValidateWarning{Hive: m.hive.Alias, Warning: warning})
			}
		}
	}
	return list
}
