package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// runWorkflow runs a workflow on a worker and saves the files it creates.
func (c *inferCmd) runWorkflow(ctx context.Context, a *app) error {
	graph, err := os.ReadFile(c.Workflow)
	if err != nil {
		return &usageError{message: "cannot read the workflow: " + err.Error(), hint: "in ComfyUI, choose Workflow, Export (API) to create the file"}
	}
	if len(graph) > maxPrompt {
		return &usageError{message: fmt.Sprintf("the workflow is longer than %d MiB", maxPrompt>>20), hint: "in ComfyUI, choose Workflow, Export (API) to create a file without images"}
	}
	prompt := c.Prompt
	if prompt == "-" {
		if prompt, err = waitFor(ctx, func() (string, error) { return readPrompt(a.p.Stdin) }); err != nil {
			return err
		}
	}
	out := ui.NewText(a.p.Stdout, a.terminal(a.p.Stdout))
	r, err := reportOf[*operations.InferReport](ctx, a, operations.Infer{
		Target: a.target(c.Hive), Model: c.Model, Prompt: prompt, Workflow: graph, Seed: c.Seed,
		Device: c.Device, WorkerID: c.WorkerID, MaxTokens: c.MaxTokens, Temperature: c.Temperature,
	}, a.stream(operations.EventToken, out))
	if err := a.endStream(ctx, out, err); err != nil {
		return err
	}
	for i, f := range r.Files {
		saved, err := saveNew(filepath.Join(c.Output, f.Name), f.Data)
		if err != nil {
			return err // the error contains the path
		}
		r.Files[i].Path, r.Files[i].Data = saved, nil
		if !a.asJSON() {
			out.Write(saved + "\n")
		}
	}
	switch {
	case a.asJSON():
		return a.show(r)
	case r.Text != "":
		out.Write(r.Text)
		out.EndLine()
	case len(r.Files) == 0 && !a.flags().Quiet:
		if err := ui.EmptyWorkflow(a.p.Stderr, a.style(a.p.Stderr)); err != nil {
			return err
		}
	}
	if out.Err() != nil {
		return fmt.Errorf("cannot write the result: %w", out.Err())
	}
	return c.showStats(a, r)
}

// saveNew writes a file atomically and never replaces another one: if the name is
// taken, it appends a number.
func saveNew(path string, data []byte) (saved string, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // with the permissions of the directory above
		return "", operations.FileError(path, "cannot write "+path, err)
	}
	ext := filepath.Ext(path)
	stem := strings.TrimSuffix(path, ext)
	for n := 0; ; n++ {
		if saved = path; n > 0 {
			saved = stem + "-" + strconv.Itoa(n) + ext
		}
		switch err := atomicfile.Create(saved, data, 0o644); {
		case err == nil:
			return saved, nil
		case !errors.Is(err, fs.ErrExist):
			return "", operations.FileError(saved, "cannot write "+saved, err)
		}
	}
}
