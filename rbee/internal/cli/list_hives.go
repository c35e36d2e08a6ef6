package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type listHivesCmd struct{}

// Help is shown below the command's summary.
func (listHivesCmd) Help() string {
	return describe("No machine is asked: warnings are those of the last sync or status.", []string{"rbee list-hives", "rbee list-hives --json"}, exitInvalid)
}

// Run does the command.
func (listHivesCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveList{ConfigPath: a.config()})
}
