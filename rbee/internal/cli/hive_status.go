package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type hiveStatusCmd struct {
	Alias string `arg:"" help:"Alias of the hive in the config"`
}

// help implements [helper].
func (hiveStatusCmd) help() commandHelp {
	return commandHelp{
		examples: []string{"rbee hive-status gpu-1"},
		exits:    "0 running, 2 not running",
	}
}

// Run runs the command.
func (c *hiveStatusCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveStatus{Alias: c.Alias, ConfigPath: a.config()})
}
