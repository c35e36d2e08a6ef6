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
		text:     "Prints the configuration, the record of the installation and the current state of the hive.",
		examples: []string{"rbee get-hive gpu-1"},
	}
}

// Run runs the command.
func (c *getHiveCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveGet{Alias: c.Alias, ConfigPath: a.config()})
}
