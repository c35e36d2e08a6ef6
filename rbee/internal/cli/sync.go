package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type syncCmd struct {
	DryRun      bool        `help:"Show what would change and change nothing."`
	RemoveExtra bool        `help:"Also remove hives and workers that the config does not name."`
	Force       bool        `help:"Install again what is installed already."`
	Downgrade   bool        `help:"Replace a newer rbee on hives by this one."`
	Upgrade     bool        `help:"Look for newer versions than those of the lock, of TYPE or of all workers."`
	Type        []string    `arg:"" optional:"" help:"With --upgrade: only these worker types."`
	Scope       scopeFlags  `embed:""`
	Change      changeFlags `embed:""`
}

// Help is shown below the command's summary.
func (syncCmd) Help() string {
	return describe("Missing and outdated hives and workers are installed, and hives with auto_start are started. One hive that fails does not stop the others. What latest and ranges of versions stand for is kept in a lock beside the config; only --upgrade moves it.",
		[]string{"rbee sync", "rbee sync --dry-run", "rbee sync --remove-extra --hive gpu-1", "rbee sync --upgrade --dry-run", "rbee sync --upgrade vllm"},
		exitDrift, exitInvalid, exitUnreachable, exitLocked)
}

// Run does the command.
func (c *syncCmd) Run(ctx context.Context, a *app) error {
	if len(c.Type) > 0 && !c.Upgrade {
		return &usageError{message: "worker types go with --upgrade only", hint: "rbee sync --upgrade " + c.Type[0]}
	}
	return a.operate(ctx, operations.PackageSync{
		Scope: a.scope(c.Scope), Change: c.Change.change(),
		DryRun: c.DryRun, RemoveExtra: c.RemoveExtra, Force: c.Force, Downgrade: c.Downgrade, Upgrade: c.Upgrade, UpgradeWorkers: c.Type,
	})
}
