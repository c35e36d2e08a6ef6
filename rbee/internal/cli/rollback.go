package cli

import (
	"context"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

type rollbackCmd struct {
	Hive     string        `required:"" placeholder:"ALIAS" help:"Hive of the worker"`
	Type     string        `arg:"" help:"Worker type, such as vllm, or rbee for rbee itself"`
	LockWait time.Duration `default:"30s" placeholder:"TIME" help:"Time to wait for another run on a hive to finish (default: ${default})"`
}

// help implements [helper].
func (rollbackCmd) help() commandHelp {
	return commandHelp{
		text:     "Nothing is downloaded: the previous version is still on the hive. The worker type stays pinned to that version until you run `rbee sync --upgrade TYPE` or set another version in the config; `rbee status` does not report the pinned version as drift. Running workers keep their version until they are restarted.\n\nWith TYPE rbee, the command restores the previous rbee on the hive and restarts the daemon. The next `rbee sync` replaces it with the version of the local rbee, unless the restored version is newer.",
		examples: []string{"rbee rollback --hive gpu-1 vllm", "rbee rollback --hive gpu-1 rbee"},
	}
}

// Run runs the command.
func (c *rollbackCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageRollback{
		ConfigPath: a.config(), Hive: c.Hive, Worker: c.Type, LockWaitSeconds: lockWait(c.LockWait),
	})
}
