package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type stopHiveCmd struct {
	Alias string `arg:"" help:"Alias of the hive in the config"`
}

// help implements [helper].
func (stopHiveCmd) help() commandHelp {
	return commandHelp{
		examples: []string{"rbee stop-hive gpu-1"},
	}
}

// Run runs the command.
func (c *stopHiveCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveStop{Alias: c.Alias, ConfigPath: a.config()})
}
