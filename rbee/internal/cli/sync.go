package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type syncCmd struct {
	DryRun      bool        `help:"Print the plan; change nothing"`
	RemoveExtra bool        `help:"Remove hives and workers that are not in the config"`
	Force       bool        `help:"Reinstall rbee and workers that are already installed"`
	Downgrade   bool        `help:"Replace a newer rbee on hives with this version"`
	Upgrade     bool        `help:"Move to the newest versions, of TYPE or of all worker types"`
	Type        []string    `arg:"" optional:"" help:"Worker types to upgrade, with --upgrade"`
	Scope       scopeFlags  `embed:""`
	Change      changeFlags `embed:""`
}

// help implements [helper].
func (syncCmd) help() commandHelp {
	return commandHelp{
		text:     "Installs missing hives and workers, updates outdated ones and starts hives with auto_start. Hives and workers that are not in the config stay unless you pass --remove-extra. If one hive fails, the others continue. Versions come from hives.lock; only --upgrade looks for newer ones.",
		examples: []string{"rbee sync", "rbee sync --dry-run", "rbee sync --remove-extra --hive gpu-1", "rbee sync --upgrade --dry-run", "rbee sync --upgrade vllm"},
		exits:    "0 success, 2 --dry-run found changes",
	}
}

// Run runs the command.
func (c *syncCmd) Run(ctx context.Context, a *app) error {
	if len(c.Type) > 0 && !c.Upgrade {
		return &usageError{message: "worker types need --upgrade", hint: "run `rbee sync --upgrade " + c.Type[0] + "`"}
	}
	return a.operate(ctx, operations.PackageSync{
		Scope: a.scope(c.Scope), Change: c.Change.change(),
		DryRun: c.DryRun, RemoveExtra: c.RemoveExtra, Force: c.Force, Downgrade: c.Downgrade, Upgrade: c.Upgrade, UpgradeWorkers: c.Type,
	})
}
