package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type startHiveCmd struct {
	Alias string `arg:"" help:"The hive's name in the config."`
}

// Help is shown below the command's summary.
func (startHiveCmd) Help() string {
	return describe("", []string{"rbee start-hive gpu-1"}, exitInvalid, exitUnreachable, exitLocked)
}

// Run does the command.
func (c *startHiveCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveStart{Alias: c.Alias, ConfigPath: a.config()})
}
