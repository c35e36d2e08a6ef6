package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

type uninstallCmd struct {
	Purge     bool          `help:"Also remove the config, your own recipes and the records of hives from this machine"`
	Downgrade bool          `help:"Also remove rbee from hives with a newer version"`
	Yes       bool          `short:"y" help:"Do not ask for confirmation"`
	LockWait  time.Duration `default:"30s" placeholder:"TIME" help:"Time to wait for another run on a hive to finish (default: ${default})"`
	Scope     scopeFlags    `embed:""`
}

// help implements [helper].
func (uninstallCmd) help() commandHelp {
	return commandHelp{
		text:     "Without --hive and --label, the command removes rbee from all hives and asks for confirmation.",
		examples: []string{"rbee uninstall", "rbee uninstall --hive gpu-1", "rbee uninstall --purge --yes"},
	}
}

// Run runs the command.
func (c *uninstallCmd) Run(ctx context.Context, a *app) error {
	op := operations.PackageUninstall{Scope: a.scope(c.Scope), Purge: c.Purge, Downgrade: c.Downgrade, LockWaitSeconds: lockWait(c.LockWait)}
	if err := op.Validate(); err != nil {
		return err
	}
	allHives := len(c.Scope.Hive) == 0 && len(c.Scope.Label) == 0
	if allHives && !c.Yes {
		if err := c.confirm(ctx, a); err != nil {
			return err
		}
	}
	return a.operate(ctx, op)
}

// confirm prints the hives and asks for confirmation.
func (c *uninstallCmd) confirm(ctx context.Context, a *app) error {
	if !a.terminal(a.p.Stdin) || !a.terminal(a.p.Stderr) {
		return &usageError{
			message: "uninstall without --hive removes rbee from all hives and needs a terminal for its prompt",
			hint:    "use --yes to uninstall without a prompt, or select hives with --hive",
		}
	}
	list, err := reportOf[*operations.HiveListReport](ctx, a, operations.HiveList{ConfigPath: a.config()}, nil)
	if err != nil {
		return err
	}
	for _, h := range list.Hives {
		workers := make([]string, len(h.Workers))
		for i, w := range h.Workers {
			workers[i] = w.Type
		}
		fmt.Fprintf(a.p.Stderr, "  %s (%s)  %s\n", h.Alias, h.Hostname, strings.Join(workers, ", "))
	}
	hives := fmt.Sprintf("these %d hives", len(list.Hives))
	if len(list.Hives) == 1 {
		hives = "this hive"
	}
	question := fmt.Sprintf("Remove rbee and its workers from %s?", hives)
	if c.Purge {
		question = fmt.Sprintf("Remove rbee and its workers from %s, and the config, your own recipes and the records from this machine?", hives)
	}
	yes, err := (&prompter{a}).Confirm(ctx, question)
	if err == nil && !yes {
		err = errors.New("canceled; nothing was removed")
	}
	return err
}
