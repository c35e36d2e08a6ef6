package operations

// Infer asks a model. The answer comes in events of type [EventToken] as it is
// made, if Stream is set, and whole in the [*InferReport] that it ends in.
type Infer struct {
	// Target limits the choice to one hive; an empty HiveID lets the queen choose.
	Target

	// Model is the model to ask. Required.
	Model string `json:"model"`

	// Prompt is the question. Required.
	Prompt string `json:"prompt"`

	// MaxTokens ends the answer after so many tokens; at least 1.
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

	// Stream sends tokens as they come.
	Stream bool `json:"stream"`
}

// Kind is [KindInfer].
func (Infer) Kind() Kind { return KindInfer }

// Validate implements [Operation].
func (o Infer) Validate() error {
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
