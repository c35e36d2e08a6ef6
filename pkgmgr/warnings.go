package pkgmgr

import (
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// Warnings returns the warnings of a plan about installed workers, in the order of hives
// and workers; nil for none.
func (f *Fleet) Warnings(p *plan.Plan) []operations.ValidateWarning { return f.warnings(p, true) }

// warnings returns the warnings of a plan about the hives that were read, or only those
// about installed workers if installed is set.
func (f *Fleet) warnings(p *plan.Plan, installed bool) []operations.ValidateWarning {
	var list []operations.ValidateWarning
	for _, m := range f.members {
		h := p.Hive(m.hive.Alias)
		if m.extra || m.state == nil || h == nil {
			continue
		}
		types := installedTypes(m.state)
		for _, w := range h.Workers {
			if w.Warning != "" && (!installed || slices.Contains(types, w.Type)) {
				list = append(list, operations.ValidateWarning{Hive: m.hive.Alias, Warning: w.Warning})
			}
		}
	}
	return list
}
