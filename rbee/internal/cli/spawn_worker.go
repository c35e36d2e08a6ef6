package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

type spawnWorkerCmd struct {
	Worker   string   `required:"" placeholder:"TYPE" help:"Worker type installed on the hive, such as vllm"`
	Model    string   `required:"" placeholder:"MODEL" help:"Model to serve, as for ${downloadModel}"`
	Hive     string   `placeholder:"ALIAS" help:"Hive to start the worker on (default: the only hive)"`
	Device   string   `placeholder:"DEVICES" help:"GPU indices such as 0,1; auto to choose by free memory; none to use the CPU (default: auto)"`
	Port     int      `placeholder:"PORT" help:"Port on the loopback interface of the hive (default: any free port)"`
	Context  int      `placeholder:"TOKENS" help:"Context length of one request (default: from the recipe)"`
	Parallel int      `placeholder:"N" help:"Number of requests that the engine serves at a time (default: the engine's)"`
	Env      []string `sep:"none" placeholder:"NAME[=VALUE]" help:"Environment variable for the engine; without =VALUE, copied from the environment of this command (repeat for several)"`
	Detach   bool     `help:"Do not wait until the worker is ready"`
	Args     []string `arg:"" optional:"" name:"engine-flags" help:"Flags of the engine, after --"`
}

// help implements [helper].
func (spawnWorkerCmd) help() commandHelp {
	return commandHelp{
		text: "Waits until the worker is ready. --verbose also prints why the devices were chosen.",
		examples: []string{
			"rbee spawn-worker --hive gpu-1 --worker vllm --model Qwen/Qwen3-8B",
			"rbee spawn-worker --worker llama-cpp --model Qwen/Qwen3-8B-GGUF --device 0,1",
			"rbee spawn-worker --worker vllm --model Qwen/Qwen3-8B -- --enforce-eager",
		},
	}
}

// Run runs the command.
func (c *spawnWorkerCmd) Run(ctx context.Context, a *app) error {
	if err := c.check(a.p.Args); err != nil {
		return err
	}
	env, err := environment(a.p, c.Env)
	if err != nil {
		return err
	}
	hive, err := a.oneHive(ctx, c.Hive)
	if err != nil {
		return err
	}
	err = a.operate(ctx, operations.WorkerSpawn{
		Target: a.target(hive), Model: c.Model, Worker: c.Worker, Device: c.Device, Port: c.Port,
		ContextLength: c.Context, Parallel: c.Parallel, Env: env, Args: c.Args, Detach: c.Detach,
	})
	if operations.CodeOf(err) == operations.CodeCanceled || errors.Is(err, context.Canceled) {
		return &hintedError{err, "use --detach to start the worker without waiting; `rbee list-workers` shows its state"}
	}
	return err
}

// check rejects arguments before "--", which usually are values whose flag is missing.
func (c *spawnWorkerCmd) check(line []string) error {
	after := 0
	if end := slices.Index(line, "--"); end >= 0 {
		after = len(line) - end - 1
	}
	if len(c.Args) > after {
		return &usageError{
			message: fmt.Sprintf("unexpected argument %q", c.Args[0]),
			hint:    "put the flags of the engine after --; run `rbee spawn-worker --help`",
		}
	}
	return nil
}

// environment parses NAME=VALUE, or NAME for a variable of this process.
func environment(p Process, variables []string) (map[string]string, error) {
	env := map[string]string{}
	for _, v := range variables {
		name, value, ok := strings.Cut(v, "=")
		if !ok {
			if value, ok = p.LookupEnv(name); !ok {
				return nil, &usageError{message: fmt.Sprintf("--env %s: the variable is not set", name), hint: "set it, or pass --env " + name + "=VALUE"}
			}
		}
		env[name] = value
	}
	if len(env) == 0 {
		return nil, nil
	}
	return env, nil
}
