package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

type deleteModelCmd struct {
	Model modelFlags `embed:""`
	Yes   bool       `short:"y" help:"Do not ask for confirmation"`
}

// help implements [helper].
func (deleteModelCmd) help() commandHelp {
	return commandHelp{
		text:     "Asks for confirmation. Models in use by a worker are not deleted. Files shared with other models are kept.",
		examples: []string{"rbee delete-model Qwen/Qwen3-8B --hive gpu-1", "rbee delete-model Qwen/Qwen3-8B --hive gpu-1 --yes"},
	}
}

// Run runs the command.
func (c *deleteModelCmd) Run(ctx context.Context, a *app) error {
	if !c.Yes && !(a.terminal(a.p.Stdin) && a.terminal(a.p.Stderr)) {
		return &usageError{
			message: "delete-model needs a terminal for its prompt",
			hint:    "use --yes to delete without a prompt",
		}
	}
	target, err := a.findModel(ctx, c.Model.Hive, c.Model.ID)
	if err != nil {
		return err
	}
	if !c.Yes {
		if err := c.confirm(ctx, a, target); err != nil {
			return err
		}
	}
	return a.operate(ctx, operations.ModelDelete{Target: target, ID: c.Model.ID})
}

// confirm prints the model and asks for confirmation.
func (c *deleteModelCmd) confirm(ctx context.Context, a *app, target operations.Target) error {
	report, err := listAll[*operations.ModelGetReport](ctx, a, operations.ModelGet{Target: target, ID: c.Model.ID})
	if err != nil {
		return err
	}
	report.Model.Files = nil
	if err := ui.Report(a.p.Stderr, a.style(a.p.Stderr), report); err != nil {
		return err
	}
	yes, err := (&prompter{a}).Confirm(ctx, fmt.Sprintf("Delete this model from %s?", target.HiveID))
	if err == nil && !yes {
		err = errors.New("canceled; nothing was deleted")
	}
	return err
}
