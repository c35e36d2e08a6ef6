package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type stopHiveCmd struct {
	Alias string `arg:"" help:"The hive's name in the config."`
}

// Help is shown below the command's summary.
func (stopHiveCmd) Help() string {
	return describe("Workers that run go on.", []string{"rbee stop-hive gpu-1"}, exitInvalid, exitUnreachable, exitLocked)
}

// Run does the command.
func (c *stopHiveCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveStop{Alias: c.Alias, ConfigPath: a.config()})
}
