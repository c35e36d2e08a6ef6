package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type hiveCapabilitiesCmd struct {
	Alias string `arg:"" optional:"" help:"Alias of the hive in the config (default: all hives)"`
}

// help implements [helper].
func (hiveCapabilitiesCmd) help() commandHelp {
	return commandHelp{
		text:     "With --json, the result for one hive is its report. For several hives it is {\"hives\":[{\"alias\":...,\"report\":...}]}; a hive that failed has \"error\" instead of \"report\".",
		examples: []string{"rbee hive-capabilities gpu-1", "rbee hive-capabilities --json"},
	}
}

// Run runs the command.
func (c *hiveCapabilitiesCmd) Run(ctx context.Context, a *app) error {
	operation := func(alias string) operations.Operation {
		return operations.HiveCapabilities{Alias: alias, ConfigPath: a.config()}
	}
	if c.Alias != "" {
		return a.operate(ctx, operation(c.Alias))
	}
	aliases, err := a.configHives(ctx)
	if err != nil {
		return err
	}
	if len(aliases) == 1 {
		return a.operate(ctx, operation(aliases[0]))
	}
	return a.operateEach(ctx, aliases, operation)
}
