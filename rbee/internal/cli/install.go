package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type installCmd struct {
	Force  bool        `help:"Reinstall rbee and workers that are already installed"`
	Scope  scopeFlags  `embed:""`
	Change changeFlags `embed:""`
}

// help implements [helper].
func (installCmd) help() commandHelp {
	return commandHelp{
		examples: []string{"rbee install", "rbee install --hive gpu-1", "rbee install --label a100 --push"},
	}
}

// Run runs the command.
func (c *installCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageInstall{Scope: a.scope(c.Scope), Change: c.Change.change(), Force: c.Force})
}
