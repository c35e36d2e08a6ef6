package pkgmgr

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// Daemon starts or stops the hive daemons of the fleet. The action is
// [operations.ActionStartHive] or [operations.ActionStopHive]. Call [Fleet.Read] first.
func (f *Fleet) Daemon(ctx context.Context, action operations.Action, o ApplyOptions) []operations.HiveReport {
	changes := plan.New(f.States())
	for _, m := range f.members {
		if m.state != nil && m.state.Rbee != nil {
			changes.Steps = append(changes.Steps, operations.Step{Hive: m.hive.Alias, Action: action, Reason: "requested"})
		}
	}
	return f.Apply(ctx, changes, o)
}
