package operations

import (
	"bytes"
	"encoding/json"
)

// Infer asks a model. The answer comes in events of type [EventToken] as it is
// made, if Stream is set, and whole in the [*InferReport] that it ends in.
//
// With a Workflow it makes pictures, or what else the workflow makes: a worker
// that speaks ComfyUI's dialect runs it, and the report holds the files.
type Infer struct {
	// Target limits the choice to one hive; an empty HiveID lets the queen choose.
	Target

	// Model is the model to ask. Required, unless there is a Workflow: that may
	// run on any worker that runs workflows.
	Model string `json:"model"`

	// Prompt is the question, or what {prompt} stands for in a workflow. Required,
	// unless there is a Workflow.
	Prompt string `json:"prompt"`

	// Workflow is a graph in ComfyUI's API format, a JSON object. In the texts of
	// its inputs {prompt}, {seed} and {model_file}, the name of the file of the
	// worker's model, are replaced. May be nil.
	Workflow json.RawMessage `json:"workflow,omitempty"`

	// Seed begins the sampling, so that the same seed gives the same answer as far
	// as the engine can; nil leaves it to the worker, and to chance for a workflow.
	Seed *int64 `json:"seed,omitempty"`

	// MaxTokens ends the answer after so many tokens; at least 1. A workflow
	// takes no heed of it, nor of the three below.
	MaxTokens int `json:"max_tokens"`

	// Temperature is the sampling temperature, 0 (always the likeliest) to 2.
	Temperature float64 `json:"temperature"`

	// TopP samples from the likeliest tokens that hold this share of the
	// probability, above 0 to 1; nil leaves it to the worker.
	TopP *float64 `json:"top_p,omitempty"`

	// TopK samples from so many of the likeliest tokens, at least 1; nil
	// leaves it to the worker.
	TopK *int `json:"top_k,omitempty"`

	// Device limits the choice to workers on this accelerator; empty does not.
	Device string `json:"device,omitempty"`

	// WorkerID asks one worker; empty lets the queen choose.
	WorkerID string `json:"worker_id,omitempty"`

	// NoSpawn asks only workers that run. Without it, where none is ready, one that is
	// loading is waited for, or one is started on a hive that has an engine for the
	// model, the model, and room. A model of a hub that no hive has is fetched first.
	NoSpawn bool `json:"no_spawn,omitempty"`

	// System is the instruction before the question; empty for none.
	System string `json:"system,omitempty"`

	// Stream sends tokens as they come.
	Stream bool `json:"stream"`
}

// Kind is [KindInfer].
func (Infer) Kind() Kind { return KindInfer }

// Validate implements [Operation].
func (o Infer) Validate() error {
	if o.Workflow != nil {
		if text := bytes.TrimSpace(o.Workflow); !bytes.HasPrefix(text, []byte("{")) || !json.Valid(text) {
			return badOperation("%s: field \"workflow\" is no JSON object", o.Kind())
		}
		return nil
	}
	if err := require(o.Kind(), "model", o.Model, "prompt", o.Prompt); err != nil {
		return err
	}
	switch {
	case o.MaxTokens < 1:
		return badOperation("%s: field \"max_tokens\" is %d, want at least 1", o.Kind(), o.MaxTokens)
	case o.Temperature < 0 || o.Temperature > 2:
		return badOperation("%s: field \"temperature\" is %g, want 0 to 2", o.Kind(), o.Temperature)
	case o.TopP != nil && (*o.TopP <= 0 || *o.TopP > 1):
		return badOperation("%s: field \"top_p\" is %g, want more than 0 and at most 1", o.Kind(), *o.TopP)
	case o.TopK != nil && *o.TopK < 1:
		return badOperation("%s: field \"top_k\" is %d, want at least 1", o.Kind(), *o.TopK)
	}
	return nil
}

// MarshalJSON writes the wire form.
func (o Infer) MarshalJSON() ([]byte, error) {
	type fields Infer
	return tagged(o.Kind(), fields(o))
}
