package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type startHiveCmd struct {
	Alias string `arg:"" help:"Alias of the hive in the config"`
}

// help implements [helper].
func (startHiveCmd) help() commandHelp {
	return commandHelp{
		examples: []string{"rbee start-hive gpu-1"},
	}
}

// Run runs the command.
func (c *startHiveCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveStart{Alias: c.Alias, ConfigPath: a.config()})
}
