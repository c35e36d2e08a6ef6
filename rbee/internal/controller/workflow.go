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
	// maxWorkflowFiles bounds what a workflow's report holds, in bytes.
	maxWorkflowFiles = 256 << 20

	// maxSeed keeps a seed by chance exact in every JSON reader.
	maxSeed = 1 << 53

	// progressInterval is the time between two notes that a workflow still runs.
	progressInterval = 15 * time.Second
)

// run has one worker run a workflow. final is true once it has taken it, or nobody
// could.
func (o candidate) runWorkflow(ctx context.Context, op operations.Infer, events operations.Handler) (r *operations.InferReport, begun bool, err error) {
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
	told, toldAt := "", time.Time{}
	done, err := client.Run(ctx, graph, func(p comfyui.Progress) {
		begun = true
		text := "the workflow waits for those before it: " + strconv.Itoa(p.Ahead)
		if p.Running {
			text = "the workflow runs"
		}
		if text == told && time.Since(toldAt) < progressInterval {
			return
		}
		message := text
		if text == told {
			message += ", for " + p.Elapsed.Round(time.Second).String()
		}
		told, toldAt = text, time.Now()
		events(operations.Event{Time: toldAt, Type: operations.EventNote, Hive: r.Hive, Message: message})
	})
	if err != nil {
		return nil, begun, o.fail(fmt.Sprintf("worker %s: %v", o.Worker.ID, err), err)
	}
	left := int64(maxWorkflowFiles)
	for _, f := range done.Files {
		name, data, err := client.Fetch(ctx, f, left)
		if err != nil {
			return nil, true, o.fail(fmt.Sprintf("worker %s has run the workflow: %v", o.Worker.ID, err), err)
		}
		left -= int64(len(data))
		r.Files = append(r.Files, operations.InferFile{Name: name, Node: f.Node, Kind: f.Kind, Bytes: int64(len(data)), Data: data})
	}
	r.Text, r.DurationSeconds = strings.Join(done.Text, "\n"), time.Since(start).Seconds()
	return r, true, nil
}

// fillWorkflow puts what op says into its workflow's places for it.
func (o candidate) fillWorkflow(op operations.Infer, r *operations.InferReport) (comfyui.Workflow, error) {
	invalid := func(format string, args ...any) error {
		return &operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Message: fmt.Sprintf(format, args...)}
	}
	graph, err := comfyui.ParseWorkflow(op.Workflow)
	if err != nil {
		return nil, invalid("%v", err)
	}
	seed := rand.Int64N(maxSeed) //nolint:gosec // not to guess it is nobody's aim
	if op.Seed != nil {
		seed = *op.Seed
	}
	graph, found := graph.With(map[string]any{
		"prompt": op.Prompt, "seed": seed, "model_file": o.Worker.ModelFile,
	})
	has := func(word string) bool { return slices.Contains(found, word) }
	switch {
	case op.Prompt != "" && !has("prompt"):
		return nil, invalid("the workflow has no place for the prompt: write {prompt} into the text that it shall stand in")
	case op.Prompt == "" && has("prompt"):
		return nil, invalid("the workflow asks for a prompt, and there is none")
	case op.Seed != nil && !has("seed"):
		return nil, invalid("the workflow has no place for the seed: write \"{seed}\" where it shall stand")
	case o.Worker.ModelFile == "" && has("model_file"):
		return nil, invalid("the workflow asks for {model_file}, and the model %s of worker %s has no file of its own", o.Worker.Model, o.Worker.ID)
	case has("seed"):
		r.Seed = &seed
	}
	return graph, nil
}
