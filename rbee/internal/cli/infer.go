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

// maxPrompt limits the size of a prompt and of a workflow, in bytes, so that they fit
// into a request to a queen.
const maxPrompt = 16 << 20

type inferCmd struct {
	Prompt      string   `arg:"" optional:"" help:"Prompt; read from stdin if PROMPT is \"-\", or missing and stdin is not a terminal"`
	Model       string   `placeholder:"MODEL" help:"Model: an ID, a repository, or the name that a worker was started with; optional with --workflow"`
	Workflow    string   `placeholder:"FILE" type:"path" help:"Run a ComfyUI workflow that was exported in the API format"`
	Output      string   `short:"o" default:"." placeholder:"DIR" help:"Directory for the files that a workflow creates (default: the current one)"`
	Hive        string   `placeholder:"ALIAS" help:"Use only workers on this hive"`
	WorkerID    string   `name:"worker-id" placeholder:"ID" help:"Use only this worker"`
	Device      string   `placeholder:"INDEX" help:"Use only workers on this GPU"`
	MaxTokens   int      `default:"256" placeholder:"N" help:"Maximum length of the answer in tokens (default: ${default})"`
	Temperature float64  `default:"0.7" placeholder:"T" help:"Sampling temperature from 0 to 2; 0 picks the most likely token (default: ${default})"`
	TopP        *float64 `name:"top-p" placeholder:"P" help:"Sample from the most likely tokens with this total probability, such as 0.9"`
	TopK        *int     `name:"top-k" placeholder:"K" help:"Sample from the K most likely tokens"`
	Seed        *int64   `placeholder:"N" help:"Random seed; the same seed gives the same answer"`
	System      string   `placeholder:"TEXT" help:"System prompt"`
	NoSpawn     bool     `help:"Fail if no worker is ready, instead of starting one"`
	NoStream    bool     `help:"Print the answer when it is complete"`
}

// help implements [helper].
func (inferCmd) help() commandHelp {
	return commandHelp{
		text: "The answer is printed as it arrives. If no worker is ready, rbee starts one on a hive that has the model, a suitable engine and enough free memory. A Hugging Face model that is not on any hive is downloaded first. With --verbose, token counts, speed and the worker are printed to stderr. With --json, the complete result is printed at the end.\n\nWith --workflow, a ComfyUI worker runs a workflow, in which {prompt}, {seed} and {model_file} are replaced. rbee saves the files that the workflow creates without overwriting existing ones, and prints their paths.",
		examples: []string{
			`rbee infer "Why is the sky blue?" --model Qwen/Qwen3-8B`,
			"git diff | rbee infer --model Qwen/Qwen3-8B --max-tokens 1000 > summary.txt",
			`rbee infer "Name a color." --model Qwen/Qwen3-8B --temperature 0 --json`,
			`rbee infer "a bee on a flower" --workflow flower.json --output pictures`,
		},
	}
}

// Run runs the command.
func (c *inferCmd) Run(ctx context.Context, a *app) error {
	switch {
	case c.Workflow != "":
		return c.runWorkflow(ctx, a)
	case c.Model == "":
		return &usageError{message: missingFlags([]string{"--model MODEL"}), hint: "run `rbee list-workers` to list the running models"}
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
	report, err := reportOf[*operations.InferReport](ctx, a, op, a.stream(operations.EventToken, out))
	if err == nil {
		if !out.HasText() {
			out.Write(report.Text)
		}
		out.EndLine()
	}
	if err := a.endStream(ctx, out, err); err != nil {
		return err
	}
	return c.showStats(a, report)
}

// showStats prints the statistics of an answer to stderr.
func (c *inferCmd) showStats(a *app, report *operations.InferReport) error {
	w, style := a.p.Stderr, a.style(a.p.Stderr)
	if report.FinishReason == "length" && !a.flags().Quiet {
		if err := ui.TruncatedAnswer(w, style, c.MaxTokens); err != nil {
			return err
		}
	}
	if a.flags().Verbose {
		return ui.AnswerStats(w, style, report)
	}
	return nil
}

// prompt returns the prompt from the argument or from stdin.
func (c *inferCmd) prompt(ctx context.Context, a *app) (string, error) {
	text := c.Prompt
	if text == "-" || text == "" && !isTerminal(a.p.Stdin) {
		var err error
		if text, err = waitFor(ctx, func() (string, error) { return readPrompt(a.p.Stdin) }); err != nil {
			return "", err
		}
	}
	if strings.TrimSpace(text) == "" {
		return "", &usageError{message: "the prompt is empty", hint: "pass it as an argument or on stdin"}
	}
	return text, nil
}

// readPrompt reads r, without its trailing line breaks.
func readPrompt(r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxPrompt+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read the prompt: %w", err)
	case len(data) > maxPrompt:
		return "", &usageError{message: fmt.Sprintf("the prompt is longer than %d MiB", maxPrompt>>20), hint: "shorten it"}
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}

// isTerminal reports whether a stream is a terminal, with or without cursor control.
func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
