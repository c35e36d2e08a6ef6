package cli

import (
	"context"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

type stopWorkerCmd struct {
	Worker workerFlags   `embed:""`
	Grace  time.Duration `placeholder:"TIME" help:"Time for requests to finish, then for processes to exit before they are killed (default: 30s, then 20s)"`
	Force  bool          `help:"Kill the worker immediately"`
}

// help implements [helper].
func (stopWorkerCmd) help() commandHelp {
	return commandHelp{
		text:     "Requests in flight finish first. The command waits until all processes have exited and their GPU memory is free.",
		examples: []string{"rbee stop-worker vllm-1a2b", "rbee stop-worker vllm --grace 2m", "rbee stop-worker 4711 --hive gpu-1 --force"},
	}
}

// Run runs the command.
func (c *stopWorkerCmd) Run(ctx context.Context, a *app) error {
	target, ref, err := a.findWorker(ctx, c.Worker.Hive, c.Worker.ID)
	if err != nil {
		return err
	}
	return a.operate(ctx, operations.WorkerProcessDelete{
		Target: target, WorkerRef: ref, GraceSeconds: c.Grace.Seconds(), Force: c.Force,
	})
}
