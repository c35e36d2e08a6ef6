package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type listHivesCmd struct{}

// help implements [helper].
func (listHivesCmd) help() commandHelp {
	return commandHelp{
		text:     "Does not connect to the hives. Warnings are from the last `rbee sync` or `rbee status`.",
		examples: []string{"rbee list-hives", "rbee list-hives --json"},
	}
}

// Run runs the command.
func (listHivesCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.HiveList{ConfigPath: a.config()})
}
