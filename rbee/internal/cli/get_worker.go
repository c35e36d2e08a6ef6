package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

// workerFlags select a worker process.
type workerFlags struct {
	ID   string `arg:"" name:"id" help:"Worker ID, a unique prefix of it, or a PID"`
	Hive string `placeholder:"ALIAS" help:"Hive of the worker (default: search all hives)"`
}

type getWorkerCmd struct {
	Worker workerFlags `embed:""`
}

// help implements [helper].
func (getWorkerCmd) help() commandHelp {
	return commandHelp{
		examples: []string{"rbee get-worker vllm-1a2b", "rbee get-worker 4711 --hive gpu-1"},
	}
}

// Run runs the command.
func (c *getWorkerCmd) Run(ctx context.Context, a *app) error {
	target, ref, err := a.findWorker(ctx, c.Worker.Hive, c.Worker.ID)
	if err != nil {
		return err
	}
	return a.operate(ctx, operations.WorkerProcessGet{Target: target, WorkerRef: ref})
}
