package pkgmgr

import (
	"errors"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// UninstallPlan returns a plan that removes rbee and its workers from all hives that were
// read. On a machine without a working rbee, the plan first installs this version of rbee,
// because rbee itself removes the files. A hive with a newer, incompatible rbee is blocked with
// [operations.ReasonNewerHive], unless downgrade is set.
func (f *Fleet) UninstallPlan(downgrade bool) *plan.Plan {
	changes := plan.New(f.States())
	for _, m := range f.members {
		if m.state == nil {
			continue
		}
		steps, err := plan.RemoveSteps(m.hive.Alias, m.state, f.opts.Version, "uninstall", downgrade)
		if e := (*operations.Error)(nil); errors.As(err, &e) {
			changes.Blocked = append(changes.Blocked, operations.Blocked{Hive: m.hive.Alias, Reason: e.Message, Error: e})
		}
		for _, s := range steps {
			s.Hive = m.hive.Alias
			changes.Steps = append(changes.Steps, s)
		}
	}
	return changes
}
