package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type statusCmd struct {
	Deep  bool       `help:"Read installed files again, compare their checksums, and run the verify commands of workers."`
	Scope scopeFlags `embed:""`
}

// Help is shown below the command's summary.
func (statusCmd) Help() string {
	return describe("With --verbose, what each hive has is shown too.",
		[]string{"rbee status", "rbee status --verbose", "rbee status --deep --json"},
		exitDrift, exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *statusCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageStatus{Scope: a.scope(c.Scope), Verbose: a.flags().Verbose, Deep: c.Deep})
}
