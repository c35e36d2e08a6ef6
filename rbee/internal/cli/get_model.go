package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

// modelFlags select a model.
type modelFlags struct {
	ID   string `arg:"" name:"model" help:"Model, as ${listModels} prints it"`
	Hive string `placeholder:"ALIAS" help:"Hive of the model (default: search all hives)"`
}

type getModelCmd struct {
	Model modelFlags `embed:""`
}

// help implements [helper].
func (getModelCmd) help() commandHelp {
	return commandHelp{
		text:     "Prints the files of the model and the GPU memory that a worker needs to serve it.",
		examples: []string{"rbee get-model Qwen/Qwen3-8B", "rbee get-model Qwen/Qwen3-8B --hive gpu-1"},
	}
}

// Run runs the command.
func (c *getModelCmd) Run(ctx context.Context, a *app) error {
	target, err := a.findModel(ctx, c.Model.Hive, c.Model.ID)
	if err != nil {
		return err
	}
	return a.operate(ctx, operations.ModelGet{Target: target, ID: c.Model.ID})
}
