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

	// progressInterval is the interval at which unchanged progress is reported again.
	progressInterval = 15 * time.Second
)

// runWorkflow runs the workflow on one worker. final is true if the worker accepted the
// workflow, or if every worker would reject it: no other worker must be tried.
func (c candidate) runWorkflow(ctx context.Context, op operations.Infer, events operations.Handler) (r *operations.InferReport, final bool, err error) {
	start := time.Now()
	r = &operations.InferReport{Model: c.Worker.Model, Hive: c.Client.Hive.Alias, WorkerID: c.Worker.ID, Seed: op.Seed}
	graph, err := c.fillWorkflow(op, r)
	if err != nil {
		return nil, true, err
	}
	client := comfyui.Client{
		HTTP:    c.Client.API.HTTP,
		BaseURL: c.Client.WorkerURL(c.Worker.ID),
		Header:  http.Header{"Authorization": {"Bearer " + string(c.Client.API.Token)}},
	}
	lastText, lastSent := "", time.Time{}
	result, err := client.Run(ctx, graph, func(p comfyui.Progress) {
		final = true
		text := "the workflow is queued, " + strconv.Itoa(p.WorkflowsAhead) + " ahead"
		if p.Running {
			text = "the workflow is running"
		}
		if text == lastText && time.Since(lastSent) < progressInterval {
			return
		}
		message := text
		if text == lastText {
			message += " (" + p.Elapsed.Round(time.Second).String() + " elapsed)"
		}
		lastText, lastSent = text, time.Now()
		events(operations.Event{Time: lastSent, Type: operations.EventNote, Hive: r.Hive, Message: message})
	})
	if err != nil {
		return nil, final, c.fail(fmt.Sprintf("worker %s: %v", c.Worker.ID, err), err)
	}
	remaining := int64(maxWorkflowFiles)
	for _, f := range result.Files {
		name, data, err := client.Fetch(ctx, f, remaining)
		if err != nil {
			return nil, true, c.fail(fmt.Sprintf("cannot fetch the output of the workflow from worker %s: %v", c.Worker.ID, err), err)
		}
		remaining -= int64(len(data))
		r.Files = append(r.Files, operations.InferFile{Name: name, Node: f.Node, Kind: f.Kind, Bytes: int64(len(data)), Data: data})
	}
	r.Text, r.DurationSeconds = strings.Join(result.Text, "\n"), time.Since(start).Seconds()
	return r, true, nil
}

// fillWorkflow returns the workflow of op with its placeholders replaced. It sets the seed in r
// if the workflow uses one.
func (c candidate) fillWorkflow(op operations.Infer, r *operations.InferReport) (comfyui.Workflow, error) {
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
		"prompt": op.Prompt, "seed": seed, "model_file": c.Worker.ModelFile,
	})
	hasPlaceholder := func(name string) bool { return slices.Contains(placeholders, name) }
	switch {
	case op.Prompt != "" && !hasPlaceholder("prompt"):
		return nil, invalid("invalid workflow: want {prompt} in a text, which is replaced by the prompt")
	case op.Prompt == "" && hasPlaceholder("prompt"):
		return nil, invalid("invalid prompt \"\": want text for the workflow's placeholder {prompt}")
	case op.Seed != nil && !hasPlaceholder("seed"):
		return nil, invalid("invalid workflow: want the value \"{seed}\", which is replaced by the seed")
	case c.Worker.ModelFile == "" && hasPlaceholder("model_file"):
		return nil, invalid("cannot replace {model_file} in the workflow: model %s of worker %s is not a single file", c.Worker.Model, c.Worker.ID)
	case hasPlaceholder("seed"):
		r.Seed = &seed
	}
	return graph, nil
}
