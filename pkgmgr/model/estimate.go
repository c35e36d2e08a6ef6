package model

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// maxDefaultContext limits the default context length, in tokens.
const maxDefaultContext = 8192

// maxConfigSize is the maximum size of a config.json, in bytes.
const maxConfigSize = 16 << 20

// Estimate is an estimate of the device memory usage of a model, in bytes.
type Estimate struct {
	Weights int64 // size of the weights
	Cache   int64 // size of the key-value cache with 16-bit values; 0 if unknown
	Context int64 // context length of the cache, in tokens
	Layers  int64 // number of layers of the cache
}

// Total returns the total memory usage in bytes.
func (e Estimate) Total() int64 { return e.Weights + e.Cache }

// Explain describes the calculation of the estimate to the user.
func (e Estimate) Explain() string {
	if e.Cache == 0 {
		return fmt.Sprintf("%s weights; the size of the context cache is unknown", bytesize.Format(e.Weights))
	}
	return fmt.Sprintf("%s weights + %s for %d tokens of context in %d layers", bytesize.Format(e.Weights), bytesize.Format(e.Cache), e.Context, e.Layers)
}

// EstimateMemory estimates the device memory usage of a model with a context of contextLength
// tokens; 0 means the context length of the model, at most 8192. It reads the header of a
// GGUF file, or the config.json of safetensors. The estimate includes the weights and the
// key-value cache, but not the additional memory of the engine.
//
// The size of the cache in bytes is
// layers × context × key-value heads × (key length + value length) × 2.
func EstimateMemory(m operations.Model, contextLength int) (Estimate, error) {
	var e Estimate
	for _, f := range m.Files {
		if m.Format == "gguf" || IsSafetensors(f.Path) {
			e.Weights += f.Bytes
		}
	}
	var shape shape
	var err error
	switch m.Format {
	case "gguf":
		shape, err = ggufShape(m.Path)
	case "safetensors":
		shape, err = configShape(filepath.Join(m.Path, "config.json"))
	default:
		return Estimate{}, fmt.Errorf("invalid model format %q: want gguf or safetensors", m.Format)
	}
	if err != nil && m.Format == "gguf" {
		return Estimate{}, err
	}
	if e.Context = int64(contextLength); e.Context == 0 {
		e.Context = min(cmp.Or(shape.context, maxDefaultContext), maxDefaultContext)
	}
	e.Layers = shape.layers
	e.Cache = shape.layers * e.Context * shape.heads * (shape.key + shape.value) * 2
	return e, nil
}

// shape contains the parameters of a model that determine the size of its key-value cache.
type shape struct{ layers, heads, key, value, context int64 }

// validate returns s, or an error if a number is out of range. The limits prevent an integer
// overflow in the calculation of the cache size.
func (s shape) validate() (shape, error) {
	limits := []struct{ n, max int64 }{{s.layers, 1 << 12}, {s.heads, 1 << 12}, {s.key, 1 << 14}, {s.value, 1 << 14}, {s.context, 1 << 31}}
	if slices.ContainsFunc(limits, func(l struct{ n, max int64 }) bool { return l.n < 0 || l.n > l.max }) {
		return shape{}, errors.New("invalid model parameters: a number is out of range")
	}
	return s, nil
}

// ggufShape reads the parameters from the header of a GGUF file.
func ggufShape(path string) (shape, error) {
	g, err := readGGUF(path)
	if err != nil {
		return shape{}, err
	}
	headLength := int64(0)
	if g.Heads > 0 {
		headLength = g.Embedding / g.Heads
	}
	return shape{
		layers: g.Layers, heads: cmp.Or(g.KVHeads, g.Heads), key: cmp.Or(g.KeyLength, headLength),
		value: cmp.Or(g.ValueLength, headLength), context: g.Context,
	}.validate()
}

// transformerConfig is the config.json of the transformers library. In multimodal models,
// text_config contains the parameters of the text model.
type transformerConfig struct {
	Layers   int64              `json:"num_hidden_layers"`
	Heads    int64              `json:"num_attention_heads"`
	KVHeads  int64              `json:"num_key_value_heads"`
	HeadDim  int64              `json:"head_dim"`
	Hidden   int64              `json:"hidden_size"`
	Context  int64              `json:"max_position_embeddings"`
	TextPart *transformerConfig `json:"text_config"`
}

// configShape reads the parameters from a config.json.
func configShape(path string) (shape, error) {
	info, err := os.Stat(path)
	if err != nil {
		return shape{}, err
	}
	if info.Size() > maxConfigSize {
		return shape{}, fmt.Errorf("invalid config.json: %s, want at most %s", bytesize.Format(info.Size()), bytesize.Format(maxConfigSize))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return shape{}, err
	}
	var c transformerConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return shape{}, fmt.Errorf("invalid config.json: %w", err)
	}
	if c.TextPart != nil && c.Layers == 0 {
		c = *c.TextPart
	}
	headLength := c.HeadDim
	if headLength == 0 && c.Heads > 0 {
		headLength = c.Hidden / c.Heads
	}
	return shape{layers: c.Layers, heads: cmp.Or(c.KVHeads, c.Heads), key: headLength, value: headLength, context: c.Context}.validate()
}
