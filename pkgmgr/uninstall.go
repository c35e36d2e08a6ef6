package pkgmgr

import (
	"context"
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

// Daemon starts or stops the daemons of all hives of the fleet, which must have
// been read; action is ActionStartHive or ActionStopHive.
func (f *Fleet) Daemon(ctx context.Context, action operations.Action, o ApplyOptions) []operations.HiveReport {
	changes := plan.New(f.States())
	for _, m := range f.members {
		if m.state != nil && m.state.Rbee != nil {
			changes.Steps = append(changes.Steps, operations.Step{Hive: m.hive.Alias, Action: action, Reason: "asked for"})
		}
	}
	return f.Apply(ctx, changes, o)
}

// NeedsDevices tells whether what is installed, or whether it can be, depends on
// the accelerators of machines for a wanted worker, so that they have to be read.
func (f *Fleet) NeedsDevices() bool {
	for _, m := range f.members {
		for _, w := range m.hive.Workers {
			if r, ok := f.opts.Catalog.Recipe(w.Type); ok && (r.Needs.GPU != "" || r.DependsOnDevices()) {
				return true
			}
		}
	}
	return false
}
