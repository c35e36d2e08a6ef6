package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type syncCmd struct {
	DryRun      bool        `help:"Show what would change and change nothing."`
	RemoveExtra bool        `help:"Also remove hives and workers that the config does not name."`
	Force       bool        `help:"Install again what is installed already."`
	Scope       scopeFlags  `embed:""`
	Change      changeFlags `embed:""`
}

// Help is shown below the command's summary.
func (syncCmd) Help() string {
	return describe("Missing and outdated hives and workers are installed, and hives with auto_start are started. One hive that fails does not stop the others.",
		[]string{"rbee sync", "rbee sync --dry-run", "rbee sync --remove-extra --hive gpu-1"},
		exitDrift, exitInvalid, exitUnreachable, exitLocked)
}

// Run does the command.
func (c *syncCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageSync{
		Scope: a.scope(c.Scope), Change: c.Change.change(),
		DryRun: c.DryRun, RemoveExtra: c.RemoveExtra, Force: c.Force,
	})
}
