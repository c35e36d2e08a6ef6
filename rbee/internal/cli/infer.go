package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// maxPrompt bounds what is read as a prompt, and as a workflow, in bytes. As JSON both
// have their place in what a queen takes.
const maxPrompt = 16 << 20

type inferCmd struct {
	Prompt      string   `arg:"" optional:"" help:"The question. It is read from stdin for -, and where there is none and stdin is no terminal."`
	Model       string   `placeholder:"MODEL" help:"The model to ask: by its id, its repository, or as its worker was started with it. A workflow may do without."`
	Workflow    string   `placeholder:"FILE" type:"path" help:"Run a workflow of ComfyUI, exported in its API format, with the prompt in the place of {prompt}."`
	Output      string   `short:"o" default:"." placeholder:"DIR" help:"Where to save what a workflow makes (here)."`
	Hive        string   `placeholder:"ALIAS" help:"Only workers on this hive."`
	WorkerID    string   `name:"worker-id" placeholder:"ID" help:"Only this worker."`
	Device      string   `placeholder:"INDEX" help:"Only workers on this accelerator."`
	MaxTokens   int      `default:"256" placeholder:"N" help:"End the answer after so many tokens (${default})."`
	Temperature float64  `default:"0.7" placeholder:"T" help:"0 takes the likeliest token always, 2 is wild (${default})."`
	TopP        *float64 `name:"top-p" placeholder:"P" help:"Choose from the likeliest tokens that hold this share of the probability, such as 0.9."`
	TopK        *int     `name:"top-k" placeholder:"K" help:"Choose from so many of the likeliest tokens."`
	Seed        *int64   `placeholder:"N" help:"Begin the sampling from this number: the same again gives the same again."`
	System      string   `placeholder:"TEXT" help:"An instruction before the question."`
	NoSpawn     bool     `help:"Ask only workers that run. Else one is started where none is ready, on a hive that has the model, an engine for it, and room; a model of a hub that no hive has is fetched first."`
	NoStream    bool     `help:"Show the answer when it is whole."`
}

// Help is shown below the command's summary.
func (inferCmd) Help() string {
	return describe("The answer goes to stdout as it comes. With --verbose a line on stderr tells its tokens, their speed and who answered; with --json stdout has the whole result, and nothing comes before its end.\n\nWith --workflow a ComfyUI worker runs a graph of nodes, and what it makes is saved, under a name that is not taken; stdout has the paths. {prompt}, {seed} and {model_file} are replaced in its texts.",
		[]string{
			`rbee infer "Why is the sky blue?" --model Qwen/Qwen3-8B`,
			"git diff | rbee infer --model Qwen/Qwen3-8B --max-tokens 1000 > summary.txt",
			`rbee infer "Name a color." --model Qwen/Qwen3-8B --temperature 0 --json`,
			`rbee infer "a bee on a flower" --workflow flower.json --output pictures`,
		}, exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *inferCmd) Run(ctx context.Context, a *app) error {
	switch {
	case c.Workflow != "":
		return c.runWorkflow(ctx, a)
	case c.Model == "":
		return &usageError{message: "missing flags: --model=MODEL", hint: "`rbee list-workers` shows which models are served"}
	}
	prompt, err := c.prompt(ctx, a)
	if err != nil {
		return err
	}
	op := operations.Infer{
		Target: a.target(c.Hive), Model: c.Model, Prompt: prompt, MaxTokens: c.MaxTokens, Temperature: c.Temperature,
		System: c.System, NoSpawn: c.NoSpawn, TopP: c.TopP, TopK: c.TopK, Seed: c.Seed, Device: c.Device, WorkerID: c.WorkerID, Stream: !c.NoStream && !a.asJSON(),
	}
	if a.asJSON() {
		return a.operate(ctx, op)
	}
	out := ui.NewText(a.p.Stdout, a.terminal(a.p.Stdout))
	report, err := askFor[*operations.InferReport](ctx, a, op, a.stream(operations.EventToken, out))
	if err == nil {
		if !out.Written() {
			out.Write(report.Text)
		}
		out.EndLine()
	}
	if err := a.endStream(ctx, out, err); err != nil {
		return err
	}
	return c.after(a, report)
}

// after says on stderr what the answer does not.
func (c *inferCmd) after(a *app, report *operations.InferReport) error {
	w, style := a.p.Stderr, a.style(a.p.Stderr)
	if report.FinishReason == "length" && !a.flags().Quiet {
		if err := ui.CutShort(w, style, c.MaxTokens); err != nil {
			return err
		}
	}
	if a.flags().Verbose {
		return ui.Answered(w, style, report)
	}
	return nil
}

// prompt is the argument, or what stdin has.
func (c *inferCmd) prompt(ctx context.Context, a *app) (string, error) {
	text := c.Prompt
	if text == "-" || text == "" && !isTerminal(a.p.Stdin) {
		var err error
		if text, err = waitFor(ctx, func() (string, error) { return readPrompt(a.p.Stdin) }); err != nil {
			return "", err
		}
	}
	if strings.TrimSpace(text) == "" {
		return "", &usageError{message: "the prompt is empty", hint: "give it as an argument or on stdin; `rbee infer --help` shows how"}
	}
	return text, nil
}

// readPrompt reads all of r but for the line ends after it.
func readPrompt(r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxPrompt+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("reading the prompt: %w", err)
	case len(data) > maxPrompt:
		return "", &usageError{message: fmt.Sprintf("the prompt is longer than %d MiB", maxPrompt>>20), hint: "no model reads that much"}
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}

// isTerminal also holds for terminals that cannot be drawn on.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
