package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type validateCmd struct {
	Scope scopeFlags `embed:""`
}

// Help is shown below the command's summary.
func (validateCmd) Help() string {
	return describe("It checks the syntax, and of each hive its name, SSH, worker types and versions, GPU and disk.",
		[]string{"rbee validate", "rbee validate --config /path/to/hives.conf"},
		exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *validateCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageValidate{Scope: a.scope(c.Scope)})
}
