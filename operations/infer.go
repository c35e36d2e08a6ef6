package operations

import (
	"bytes"
	"encoding/json"
)

// Infer runs a prompt or a workflow on a model. Its report is an [*InferReport] with the
// complete answer. If Stream is set, parts of the answer are also sent in events of type
// [EventToken] as they are generated.
//
// A Workflow runs on a worker that supports the API of ComfyUI. The report contains the
// files that it produces, such as images.
type Infer struct {
	// Target limits the operation to one hive. An empty HiveID lets the queen choose.
	Target

	// Model is the model to use. Required unless Workflow is set; a workflow without a
	// Model runs on any worker that supports workflows.
	Model string `json:"model"`

	// Prompt is the user message, or the value of the placeholder {prompt} in a
	// workflow. Required unless Workflow is set.
	Prompt string `json:"prompt"`

	// Workflow is a graph in the API format of ComfyUI, a JSON object. In the string
	// inputs of its nodes, the placeholders {prompt}, {seed} and {model_file} (the file
	// name of the worker's model) are replaced. May be nil.
	Workflow json.RawMessage `json:"workflow,omitempty"`

	// Seed is the random seed for sampling. Nil means the default of the engine, or a
	// random seed for a workflow.
	Seed *int64 `json:"seed,omitempty"`

	// MaxTokens is the maximum number of tokens to generate, at least 1. Workflows
	// ignore MaxTokens, Temperature, TopP and TopK.
	MaxTokens int `json:"max_tokens"`

	// Temperature is the sampling temperature, from 0 (always the most likely token)
	// to 2.
	Temperature float64 `json:"temperature"`

	// TopP is the cumulative probability for nucleus sampling, greater than 0 and at
	// most 1. Nil means the default of the engine.
	TopP *float64 `json:"top_p,omitempty"`

	// TopK is the number of most likely tokens to sample from, at least 1. Nil means
	// the default of the engine.
	TopK *int `json:"top_k,omitempty"`

	// Device limits the operation to workers on this accelerator. Empty means any.
	Device string `json:"device,omitempty"`

	// WorkerID limits the operation to one worker. Empty lets the queen choose.
	WorkerID string `json:"worker_id,omitempty"`

	// NoSpawn limits the operation to workers that are running. Otherwise, if no worker
	// is ready, the queen waits for a loading worker, or starts a worker on a hive that
	// has the model, an engine for it, and enough free memory. If no hive has the
	// model, the queen first downloads it from the model hub.
	NoSpawn bool `json:"no_spawn,omitempty"`

	// System is the system message. May be empty.
	System string `json:"system,omitempty"`

	// Stream sends tokens in events as they are generated.
	Stream bool `json:"stream"`
}

// Kind returns [KindInfer].
func (Infer) Kind() Kind { return KindInfer }

// Validate implements [Operation].
func (o Infer) Validate() error {
	if o.Workflow != nil {
		if text := bytes.TrimSpace(o.Workflow); !bytes.HasPrefix(text, []byte("{")) || !json.Valid(text) {
			return badOperation("%s: invalid field \"workflow\": want a JSON object", o.Kind())
		}
		return nil
	}
	if err := require(o.Kind(), "model", o.Model, "prompt", o.Prompt); err != nil {
		return err
	}
	switch {
	case o.MaxTokens < 1:
		return badOperation("%s: invalid field \"max_tokens\": got %d, want at least 1", o.Kind(), o.MaxTokens)
	case o.Temperature < 0 || o.Temperature > 2:
		return badOperation("%s: invalid field \"temperature\": got %g, want 0 to 2", o.Kind(), o.Temperature)
	case o.TopP != nil && (*o.TopP <= 0 || *o.TopP > 1):
		return badOperation("%s: invalid field \"top_p\": got %g, want more than 0 and at most 1", o.Kind(), *o.TopP)
	case o.TopK != nil && *o.TopK < 1:
		return badOperation("%s: invalid field \"top_k\": got %d, want at least 1", o.Kind(), *o.TopK)
	}
	return nil
}

// MarshalJSON returns the wire form of the operation.
func (o Infer) MarshalJSON() ([]byte, error) {
	type fields Infer
	return marshal(o.Kind(), fields(o))
}
