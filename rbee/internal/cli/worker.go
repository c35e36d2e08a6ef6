package cli

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/echo"
)

// WorkerPrefix is the prefix of the program name under which rbee runs a built-in
// worker.
const WorkerPrefix = "rbee-worker-"

type workerCmd struct {
	Echo echoCmd `cmd:"" help:"Run a small OpenAI-compatible server that repeats the prompt"`
}

type echoCmd struct {
	Host  string        `default:"127.0.0.1" help:"Listen address (default: ${default})"`
	Port  int           `default:"0" help:"Listen port; 0 picks a free one (default: ${default})"`
	Delay time.Duration `placeholder:"TIME" help:"Delay before each word"`
	Model string        `default:"echo" help:"Name of the served model (default: ${default})"`
}

// help implements [helper].
func (echoCmd) help() commandHelp {
	return commandHelp{
		examples: []string{"rbee worker echo --port 8700", "rbee-worker-echo --port 8700 --model echo"},
	}
}

// Run runs the server until it is interrupted.
func (c *echoCmd) Run(ctx context.Context, a *app) error {
	if c.Port < 0 || c.Port > 65535 {
		return &usageError{message: fmt.Sprintf("invalid --port %d: want 0 to 65535", c.Port), hint: "run `rbee worker echo --help`"}
	}
	return echo.Serve(ctx, echo.Options{Host: c.Host, Port: c.Port, Model: c.Model, Delay: c.Delay}, func(addr string) {
		if host, port, err := net.SplitHostPort(addr); err == nil {
			fmt.Fprintf(a.p.Stderr, "echo worker listening on http://%s\n", net.JoinHostPort(host, port))
		}
	})
}

// WorkerArgs returns the command line of a program that was started under name. ok
// reports whether it is the name of a built-in worker.
func WorkerArgs(name string, args []string) (line []string, ok bool) {
	worker, ok := strings.CutPrefix(name, WorkerPrefix)
	if !ok || worker == "" {
		return nil, false
	}
	return append([]string{"worker", worker}, args...), true
}
