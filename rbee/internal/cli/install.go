package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type installCmd struct {
	Force  bool        `help:"Install again what is installed already."`
	Scope  scopeFlags  `embed:""`
	Change changeFlags `embed:""`
}

// Help is shown below the command's summary.
func (installCmd) Help() string {
	return describe("", []string{"rbee install", "rbee install --hive gpu-1", "rbee install --label a100 --push"},
		exitInvalid, exitUnreachable, exitLocked)
}

// Run does the command.
func (c *installCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageInstall{Scope: a.scope(c.Scope), Change: c.Change.change(), Force: c.Force})
}
