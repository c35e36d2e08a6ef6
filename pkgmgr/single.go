package pkgmgr

import (
	"cmp"
	"context"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// UninstallPlan is the plan that removes rbee from every hive that was read and
// has anything of it. A machine whose rbee does not work, or that has workers
// but no rbee, is brought this one first, since removing is done on the machine.
func (f *Fleet) UninstallPlan() operations.Plan {
	plan := operations.Plan{Steps: []operations.Step{}, Drift: []operations.Drift{}}
	for _, m := range f.members {
		if m.state == nil {
			continue
		}
		for _, s := range removeSteps(m.state, f.opts.Version, "uninstall") {
			s.Hive = m.hive.Alias
			plan.Steps = append(plan.Steps, s)
		}
	}
	return plan
}

// removeSteps are the steps that remove all of rbee from a machine; version is
// that of the rbee that is brought there where it takes one to remove the rest.
func removeSteps(s *State, version, reason string) []operations.Step {
	if s.Rbee == nil && len(s.Workers) == 0 {
		return nil
	}
	remove := operations.Step{Action: operations.ActionRemoveHive, From: installedVersion(s), Reason: reason}
	if s.Rbee != nil && s.Broken == "" && s.Schema == wire.Schema {
		return []operations.Step{remove}
	}
	return []operations.Step{{
		Action: operations.ActionUpdateHive, From: remove.From, Version: cmp.Or(version, "this one"), Reason: "needed to uninstall",
	}, remove}
}

// Daemon starts or stops the daemons of all hives of the fleet, which must have
// been read; action is ActionStartHive or ActionStopHive.
func (f *Fleet) Daemon(ctx context.Context, action operations.Action, o ApplyOptions) []operations.HiveReport {
	plan := operations.Plan{}
	for _, m := range f.members {
		if m.state != nil && m.state.Rbee != nil {
			plan.Steps = append(plan.Steps, operations.Step{Hive: m.hive.Alias, Action: action, Reason: "asked for"})
		}
	}
	return f.Apply(ctx, plan, o)
}

// NeedsDevices tells whether what is installed, or whether it can be, depends on
// the accelerators of machines for a wanted worker, so that they have to be read.
func (f *Fleet) NeedsDevices() bool {
	for _, m := range f.members {
		for _, w := range m.hive.Workers {
			if r, ok := f.opts.Catalog.Recipe(w.Type); ok && (r.Needs.GPU != "" || r.dependsOnDevices()) {
				return true
			}
		}
	}
	return false
}
