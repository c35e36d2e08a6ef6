package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type listModelsCmd struct {
	Hive string `placeholder:"ALIAS" help:"Only this hive."`
}

// Help is shown below the command's summary.
func (listModelsCmd) Help() string {
	return describe("Models that other programs put into the cache are shown too.",
		[]string{"rbee list-models", "rbee list-models --hive gpu-1"}, exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *listModelsCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.ModelList{Target: a.target(c.Hive)})
}
