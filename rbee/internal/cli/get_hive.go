package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type getHiveCmd struct {
	Alias string `arg:"" help:"Alias of the hive in the config"`
}

// help implements [helper].
func (getHiveCmd) help() commandHelp {
	return commandHelp{
		text:     "Prints the configuration of the hive, the record of its installation and its current state.",
		examples: []string{"rbee get-hive gpu-1"},
	}
}

// Run runs the command.
func (c *getHiveCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveGet{Alias: c.Alias, ConfigPath: a.config()})
}
