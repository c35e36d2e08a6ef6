package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

// workerFlags name one worker process.
type workerFlags struct {
	ID   string `arg:"" name:"id" help:"Its id, as much of the beginning as is unique, or its process id."`
	Hive string `placeholder:"ALIAS" help:"The hive it is on; all are asked when not given."`
}

type getWorkerCmd struct {
	Which workerFlags `embed:""`
}

// Help is shown below the command's summary.
func (getWorkerCmd) Help() string {
	return describe("", []string{"rbee get-worker vllm-1a2b", "rbee get-worker 4711 --hive gpu-1"}, exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *getWorkerCmd) Run(ctx context.Context, a *app) error {
	target, ref, err := a.findWorker(ctx, c.Which.Hive, c.Which.ID)
	if err != nil {
		return err
	}
	return a.operate(ctx, operations.WorkerProcessGet{Target: target, WorkerRef: ref})
}
