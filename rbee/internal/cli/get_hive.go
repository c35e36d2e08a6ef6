package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type getHiveCmd struct {
	Alias string `arg:"" help:"The hive's name in the config."`
}

// Help is shown below the command's summary.
func (getHiveCmd) Help() string {
	return describe("It shows the config, the record, and what the machine itself answers.", []string{"rbee get-hive gpu-1"}, exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *getHiveCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveGet{Alias: c.Alias, ConfigPath: a.config()})
}
