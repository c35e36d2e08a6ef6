package cli

import (
	"context"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

type rollbackCmd struct {
	Hive     string        `required:"" placeholder:"ALIAS" help:"Hive to roll back on"`
	Type     string        `arg:"" help:"Worker type, such as vllm, or rbee for rbee itself"`
	LockWait time.Duration `default:"30s" placeholder:"TIME" help:"Time to wait for another run on the same hive (default: ${default})"`
}

// help implements [helper].
func (rollbackCmd) help() commandHelp {
	return commandHelp{
		text:     "Nothing is downloaded: the previous version is still on the hive. The worker type stays pinned to that version until you run `rbee sync --upgrade TYPE` or set another version in the config; until then it does not count as drift. Running workers keep their version until they are restarted.\n\nFor rbee itself, the hive gets its previous rbee back and its daemon restarts. The next `rbee sync` installs the version of the rbee that runs it, unless the restored one is newer.",
		examples: []string{"rbee rollback --hive gpu-1 vllm", "rbee rollback --hive gpu-1 rbee"},
	}
}

// Run runs the command.
func (c *rollbackCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageRollback{
		ConfigPath: a.config(), Hive: c.Hive, Worker: c.Type, LockWaitSeconds: lockWait(c.LockWait),
	})
}
