package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type hiveCapabilitiesCmd struct {
	Alias string `arg:"" optional:"" help:"The hive's name in the config; all hives when not given."`
}

// Help is shown below the command's summary.
func (hiveCapabilitiesCmd) Help() string {
	return describe("With --json one hive's report is written as it is, and those of several as {\"hives\":[{\"alias\":...,\"report\":...}]}, with \"error\" in place of \"report\" for a hive that could not be asked.",
		[]string{"rbee hive-capabilities gpu-1", "rbee hive-capabilities --json"}, exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *hiveCapabilitiesCmd) Run(ctx context.Context, a *app) error {
	ask := func(alias string) operations.Operation {
		return operations.HiveCapabilities{Alias: alias, ConfigPath: a.config()}
	}
	if c.Alias != "" {
		return a.operate(ctx, ask(c.Alias))
	}
	aliases, err := a.configHives(ctx)
	if err != nil {
		return err
	}
	if len(aliases) == 1 {
		return a.operate(ctx, ask(aliases[0]))
	}
	return a.each(ctx, aliases, ask)
}
