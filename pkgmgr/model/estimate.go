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

// usualContext is the length of context that is counted with where none is asked
// for and the model has room for more.
const usualContext = 8192

// Estimate is the device memory that a model takes, in bytes.
type Estimate struct {
	Weights int64 // its files
	Cache   int64 // keys and values of the context, 16 bits each; 0 if the model does not tell
	Context int64 // tokens that Cache is for
	Layers  int64 // that Cache is for
}

// Total is the sum.
func (e Estimate) Total() int64 { return e.Weights + e.Cache }

// Explain is the arithmetic, for a person.
func (e Estimate) Explain() string {
	if e.Cache == 0 {
		return fmt.Sprintf("%s weights; the model does not say what its context takes", bytesize.Format(e.Weights))
	}
	return fmt.Sprintf("%s weights + %s for %d tokens of context in %d layers", bytesize.Format(e.Weights), bytesize.Format(e.Cache), e.Context, e.Layers)
}

// EstimateMemory computes what a model takes on devices with a context of so many
// tokens; 0 is the model's own length, at most 8192. It reads the model's own
// files: the header of a GGUF file, or config.json beside safetensors. The
// estimate is of weights and context; engines take some more for themselves.
//
// The context's share is 2 bytes for each number of keys and values:
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
		return Estimate{}, errors.New("its files are neither GGUF nor safetensors")
	}
	if err != nil && m.Format == "gguf" {
		return Estimate{}, err
	}
	if e.Context = int64(contextLength); e.Context == 0 {
		e.Context = min(cmp.Or(shape.context, usualContext), usualContext)
	}
	e.Layers = shape.layers
	e.Cache = shape.layers * e.Context * shape.heads * (shape.key + shape.value) * 2
	return e, nil
}

// shape is what of a model decides on the size of its context.
type shape struct{ layers, heads, key, value, context int64 }

// sane refuses numbers that no model has, so that products stay in range.
func (s shape) sane() (shape, error) {
	limits := []struct{ n, most int64 }{{s.layers, 1 << 12}, {s.heads, 1 << 12}, {s.key, 1 << 14}, {s.value, 1 << 14}, {s.context, 1 << 31}}
	if slices.ContainsFunc(limits, func(l struct{ n, most int64 }) bool { return l.n < 0 || l.n > l.most }) {
		return shape{}, errors.New("its description has numbers that cannot be")
	}
	return s, nil
}

func ggufShape(path string) (shape, error) {
	g, err := readGGUF(path)
	if err != nil {
		return shape{}, err
	}
	head := int64(0)
	if g.Heads > 0 {
		head = g.Embedding / g.Heads
	}
	return shape{
		layers: g.Layers, heads: cmp.Or(g.KVHeads, g.Heads), key: cmp.Or(g.KeyLength, head),
		value: cmp.Or(g.ValueLength, head), context: g.Context,
	}.sane()
}

// transformerConfig is config.json as transformers writes it; multimodal models
// have the text model's part in text_config.
type transformerConfig struct {
	Layers   int64              `json:"num_hidden_layers"`
	Heads    int64              `json:"num_attention_heads"`
	KVHeads  int64              `json:"num_key_value_heads"`
	HeadDim  int64              `json:"head_dim"`
	Hidden   int64              `json:"hidden_size"`
	Context  int64              `json:"max_position_embeddings"`
	TextPart *transformerConfig `json:"text_config"`
}

func configShape(path string) (shape, error) {
	info, err := os.Stat(path)
	if err != nil {
		return shape{}, err
	}
	if info.Size() > 16<<20 {
		return shape{}, errors.New("config.json is too large")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return shape{}, err
	}
	var c transformerConfig
	if err := json.Unmarshal(data, &c); err != nil {
		return shape{}, fmt.Errorf("config.json: %w", err)
	}
	if c.TextPart != nil && c.Layers == 0 {
		c = *c.TextPart
	}
	head := c.HeadDim
	if head == 0 && c.Heads > 0 {
		head = c.Hidden / c.Heads
	}
	return shape{layers: c.Layers, heads: cmp.Or(c.KVHeads, c.Heads), key: head, value: head, context: c.Context}.sane()
}
