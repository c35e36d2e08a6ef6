package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

// modelFlags name one model.
type modelFlags struct {
	ID   string `arg:"" name:"id" help:"The model, as list-models names it."`
	Hive string `placeholder:"ALIAS" help:"The hive it is on; all are asked when not given."`
}

type getModelCmd struct {
	Which modelFlags `embed:""`
}

// Help is shown below the command's summary.
func (getModelCmd) Help() string {
	return describe("Its files are shown, and the device memory that serving it is expected to take.",
		[]string{"rbee get-model Qwen/Qwen3-8B", "rbee get-model Qwen/Qwen3-8B --hive gpu-1"}, exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *getModelCmd) Run(ctx context.Context, a *app) error {
	target, err := a.findModel(ctx, c.Which.Hive, c.Which.ID)
	if err != nil {
		return err
	}
	return a.operate(ctx, operations.ModelGet{Target: target, ID: c.Which.ID})
}
