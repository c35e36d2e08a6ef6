package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type validateCmd struct {
	Scope scopeFlags `embed:""`
}

// help implements [helper].
func (validateCmd) help() commandHelp {
	return commandHelp{
		text:     "Checks the syntax of the config and, for each hive, the host name, SSH access, worker types, versions, GPUs and disk. Changes nothing.",
		examples: []string{"rbee validate", "rbee validate --config /path/to/hives.conf"},
		exits:    "0 valid, 3 invalid, 4 valid, but a hive is unreachable",
	}
}

// Run runs the command.
func (c *validateCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageValidate{Scope: a.scope(c.Scope)})
}
