package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type listWorkersCmd struct {
	Hive string `placeholder:"ALIAS" help:"List only the workers on this hive"`
	All  bool   `help:"Include stopped workers"`
}

// help implements [helper].
func (listWorkersCmd) help() commandHelp {
	return commandHelp{
		text:     "To list installed worker types, run `rbee status --verbose`.",
		examples: []string{"rbee list-workers", "rbee list-workers --hive gpu-1 --all"},
	}
}

// Run runs the command.
func (c *listWorkersCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.WorkerProcessList{Target: a.target(c.Hive), All: c.All})
}
