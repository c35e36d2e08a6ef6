package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type hiveStatusCmd struct {
	Alias string `arg:"" help:"The hive's name in the config."`
}

// Help is shown below the command's summary.
func (hiveStatusCmd) Help() string {
	return describe("A daemon that does not run ends it with exit code 2.", []string{"rbee hive-status gpu-1"}, exitDrift, exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *hiveStatusCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveStatus{Alias: c.Alias, ConfigPath: a.config()})
}
