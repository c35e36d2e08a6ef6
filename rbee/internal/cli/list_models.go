package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type listModelsCmd struct {
	Hive string `placeholder:"ALIAS" help:"List only the models on this hive"`
}

// help implements [helper].
func (listModelsCmd) help() commandHelp {
	return commandHelp{
		text:     "Includes models that other programs downloaded to the cache.",
		examples: []string{"rbee list-models", "rbee list-models --hive gpu-1"},
	}
}

// Run runs the command.
func (c *listModelsCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.ModelList{Target: a.target(c.Hive)})
}
