package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

type workerLogsCmd struct {
	Worker workerFlags `embed:""`
	Lines  int         `short:"n" default:"100" placeholder:"N" help:"Number of lines from the end; 0 for all (default: ${default})"`
	Follow bool        `short:"f" help:"Print new lines until the worker exits"`
}

// help implements [helper].
func (workerLogsCmd) help() commandHelp {
	return commandHelp{
		text:     "The log is printed to stdout unchanged. With --json, the result has its lines in \"lines\".",
		examples: []string{"rbee worker-logs vllm-1a2b", "rbee worker-logs vllm-1a2b -n 1000", "rbee worker-logs vllm-1a2b --follow"},
	}
}

// logsDocument is the JSON output of the command.
type logsDocument struct {
	Lines []string `json:"lines"`
	*operations.WorkerLogsReport
}

// Run runs the command.
func (c *workerLogsCmd) Run(ctx context.Context, a *app) error {
	switch {
	case c.Lines < 0:
		return &usageError{message: fmt.Sprintf("invalid --lines %d: want 0 (all) or more", c.Lines), hint: "run `rbee worker-logs --help`"}
	case c.Follow && a.asJSON():
		return &usageError{message: "--follow and --json cannot be combined", hint: "remove --follow or --json"}
	}
	target, ref, err := a.findWorker(ctx, c.Worker.Hive, c.Worker.ID)
	if err != nil {
		return err
	}
	lines := c.Lines
	if lines == 0 {
		lines = -1
	}
	op := operations.WorkerProcessLogs{Target: target, WorkerRef: ref, Lines: lines, Follow: c.Follow}
	if a.asJSON() {
		return c.document(ctx, a, op)
	}
	out := ui.NewText(a.p.Stdout, a.terminal(a.p.Stdout))
	report, err := reportOf[*operations.WorkerLogsReport](ctx, a, op, a.stream(operations.EventLog, out))
	if err := a.endStream(ctx, out, err); err != nil {
		return err
	}
	if c.Follow && !a.flags().Quiet {
		fmt.Fprintf(a.p.Stderr, "%s is %s\n", report.ID, report.State)
	}
	return nil
}

// document prints the log as JSON.
func (c *workerLogsCmd) document(ctx context.Context, a *app, op operations.Operation) error {
	var text strings.Builder
	report, err := reportOf[*operations.WorkerLogsReport](ctx, a, op, func(e operations.Event) {
		if e.Type == operations.EventLog {
			text.WriteString(e.Text)
		}
	})
	if err != nil {
		return err
	}
	doc := logsDocument{Lines: []string{}, WorkerLogsReport: report}
	for line := range strings.Lines(text.String()) {
		doc.Lines = append(doc.Lines, strings.TrimRight(line, "\r\n"))
	}
	return ui.JSON(a.p.Stdout, doc)
}
