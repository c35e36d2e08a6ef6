package pkgmgr

import (
	"errors"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// UninstallPlan is the plan that removes rbee from every hive that was read and
// has anything of it. A machine whose rbee does not work, or that has workers
// but no rbee, is brought this one first, since removing is done on the machine. A hive
// with a newer rbee that does not understand this one is blocked, with
// [operations.ReasonNewerHive], unless downgrade allows to replace it.
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
