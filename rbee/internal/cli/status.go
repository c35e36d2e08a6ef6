package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type statusCmd struct {
	Deep  bool       `help:"Read installed files again, compare checksums and run the verify commands of workers"`
	Scope scopeFlags `embed:""`
}

// help implements [helper].
func (statusCmd) help() commandHelp {
	return commandHelp{
		text:     "Changes nothing. --verbose also prints the installed version and workers of each hive.",
		examples: []string{"rbee status", "rbee status --verbose", "rbee status --deep --json"},
		exits:    "0 no drift, 2 drift, 4 no drift, but a hive is unreachable",
	}
}

// Run runs the command.
func (c *statusCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageStatus{Scope: a.scope(c.Scope), Verbose: a.flags().Verbose, Deep: c.Deep})
}
