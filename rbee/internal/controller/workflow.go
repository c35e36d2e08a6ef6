package controller

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/comfyui"
)

const (
	// maxWorkflowFiles limits the total size of the files in a report, in bytes.
	maxWorkflowFiles = 256 << 20

	// maxSeed limits random seeds to integers that every JSON reader decodes exactly.
	maxSeed = 1 << 53

	// progressInterval is the time between two notes about the same progress.
	progressInterval = 15 * time.Second
)

// runWorkflow runs the workflow on one worker. final is true if the worker accepted it, or if
// no other worker would.
func (o candidate) runWorkflow(ctx context.Context, op operations.Infer, events operations.Handler) (r *operations.InferReport, final bool, err error) {
	start := time.Now()
	r = &operations.InferReport{Model: o.Worker.Model, Hive: o.Client.Hive.Alias, WorkerID: o.Worker.ID, Seed: op.Seed}
	graph, err := o.fillWorkflow(op, r)
	if err != nil {
		return nil, true, err
	}
	client := comfyui.Client{
		HTTP:   o.Client.API.HTTP,
		Base:   o.Client.WorkerURL(o.Worker.ID),
		Header: http.Header{"Authorization": {"Bearer " + string(o.Client.API.Token)}},
	}
	lastText, lastSent := "", time.Time{}
	result, err := client.Run(ctx, graph, func(p comfyui.Progress) {
		final = true
		text := "the workflow is queued, " + strconv.Itoa(p.Ahead) + " ahead"
		if p.Running {
			text = "the workflow is running"
		}
		if text == lastText && time.Since(lastSent) < progressInterval {
			return
		}
		message := text
		if text == lastText {
			message += ", for " + p.Elapsed.Round(time.Second).String()
		}
		lastText, lastSent = text, time.Now()
		events(operations.Event{Time: lastSent, Type: operations.EventNote, Hive: r.Hive, Message: message})
	})
	if err != nil {
		return nil, final, o.fail(fmt.Sprintf("worker %s: %v", o.Worker.ID, err), err)
	}
	remaining := int64(maxWorkflowFiles)
	for _, f := range result.Files {
		name, data, err := client.Fetch(ctx, f, remaining)
		if err != nil {
			return nil, true, o.fail(fmt.Sprintf("cannot read the output of the workflow from worker %s: %v", o.Worker.ID, err), err)
		}
		remaining -= int64(len(data))
		r.Files = append(r.Files, operations.InferFile{Name: name, Node: f.Node, Kind: f.Kind, Bytes: int64(len(data)), Data: data})
	}
	r.Text, r.DurationSeconds = strings.Join(result.Text, "\n"), time.Since(start).Seconds()
	return r, true, nil
}

// fillWorkflow returns the workflow of op with its placeholders replaced.
func (o candidate) fillWorkflow(op operations.Infer, r *operations.InferReport) (comfyui.Workflow, error) {
	invalid := func(format string, args ...any) error {
		return &operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Message: fmt.Sprintf(format, args...)}
	}
	graph, err := comfyui.ParseWorkflow(op.Workflow)
	if err != nil {
		return nil, invalid("%v", err)
	}
	seed := rand.Int64N(maxSeed) //nolint:gosec // seeds need not be unpredictable
	if op.Seed != nil {
		seed = *op.Seed
	}
	graph, placeholders := graph.With(map[string]any{
		"prompt": op.Prompt, "seed": seed, "model_file": o.Worker.ModelFile,
	})
	hasPlaceholder := func(name string) bool { return slices.Contains(placeholders, name) }
	switch {
	case op.Prompt != "" && !hasPlaceholder("prompt"):
		return nil, invalid("the workflow has no placeholder for the prompt: write {prompt} into its text")
	case op.Prompt == "" && hasPlaceholder("prompt"):
		return nil, invalid("the workflow needs a prompt")
	case op.Seed != nil && !hasPlaceholder("seed"):
		return nil, invalid("the workflow has no placeholder for the seed: write \"{seed}\" as its value")
	case o.Worker.ModelFile == "" && hasPlaceholder("model_file"):
		return nil, invalid("the workflow needs {model_file}, but the model %s of worker %s has no single file", o.Worker.Model, o.Worker.ID)
	case hasPlaceholder("seed"):
		r.Seed = &seed
	}
	return graph, nil
}
