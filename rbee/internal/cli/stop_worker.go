package cli

import (
	"context"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

type stopWorkerCmd struct {
	Which workerFlags   `embed:""`
	Grace time.Duration `placeholder:"TIME" help:"How long requests under way, and then its processes, may take to end before they are killed; 30s and 20s when not given."`
	Force bool          `help:"Kill it at once."`
}

// Help is shown below the command's summary.
func (stopWorkerCmd) Help() string {
	return describe("Requests under way are finished first. All processes of the worker are ended, and its device memory is waited for.",
		[]string{"rbee stop-worker vllm-1a2b", "rbee stop-worker vllm --grace 2m", "rbee stop-worker 4711 --hive gpu-1 --force"},
		exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *stopWorkerCmd) Run(ctx context.Context, a *app) error {
	target, ref, err := a.findWorker(ctx, c.Which.Hive, c.Which.ID)
	if err != nil {
		return err
	}
	return a.operate(ctx, operations.WorkerProcessDelete{
		Target: target, WorkerRef: ref, GraceSeconds: c.Grace.Seconds(), Force: c.Force,
	})
}
