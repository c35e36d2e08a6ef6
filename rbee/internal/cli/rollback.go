package cli

import (
	"context"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

type rollbackCmd struct {
	Hive     string        `required:"" placeholder:"ALIAS" help:"The hive."`
	Type     string        `arg:"" help:"The worker type, such as vllm, or rbee for the hive's own rbee."`
	LockWait time.Duration `default:"30s" placeholder:"TIME" help:"How long to wait for a hive on which another run works (${default})."`
}

// Help is shown below the command's summary.
func (rollbackCmd) Help() string {
	return describe("The version before is still on the machine, so nothing is fetched. The hive keeps it, and status finds no drift in that, until `rbee sync --upgrade` of the type, or another version in the config. Workers that run go on as they are. For rbee itself, the hive's previous rbee is restored and its daemon restarted; the next `rbee sync` installs the version of the rbee that runs it, unless the restored one is newer.",
		[]string{"rbee rollback --hive gpu-1 vllm", "rbee rollback --hive gpu-1 rbee"}, exitInvalid, exitUnreachable, exitLocked)
}

// Run does the command.
func (c *rollbackCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageRollback{
		ConfigPath: a.config(), Hive: c.Hive, Worker: c.Type, LockWaitSeconds: lockWait(c.LockWait),
	})
}
