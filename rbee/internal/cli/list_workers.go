package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type listWorkersCmd struct {
	Hive string `placeholder:"ALIAS" help:"Only this hive."`
	All  bool   `help:"Those that were stopped too."`
}

// Help is shown below the command's summary.
func (listWorkersCmd) Help() string {
	return describe("What is installed is shown by `rbee status --verbose`.",
		[]string{"rbee list-workers", "rbee list-workers --hive gpu-1 --all"}, exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *listWorkersCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.WorkerProcessList{Target: a.target(c.Hive), All: c.All})
}
