package comfyui

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Workflow is a graph: nodes by their ids.
type Workflow map[string]any

// ParseWorkflow reads a graph in the API format, alone or as the value of "prompt".
func ParseWorkflow(data []byte) (Workflow, error) {
	var w Workflow
	if err := json.Unmarshal(data, &w); err != nil {
		return nil, fmt.Errorf("the workflow is no JSON object: %w", err)
	}
	if _, nodes := w["nodes"].([]any); nodes {
		return nil, errors.New("the workflow is in the editor's own format: export it as \"Save (API format)\" (in ComfyUI's menu, Workflow, Export (API))")
	}
	if inner, ok := w["prompt"].(map[string]any); ok {
		w = inner
	}
	if len(w) == 0 {
		return nil, errors.New("the workflow has no nodes")
	}
	for id, n := range w {
		node, ok := n.(map[string]any)
		if class, isText := node["class_type"].(string); !ok || !isText || class == "" {
			return nil, fmt.Errorf("the workflow's node %q has no class_type", id)
		}
	}
	return w, nil
}

// With is a copy with the words in braces of its text inputs replaced, such as
// {prompt}. An input that is nothing but a word becomes its value, so that a
// number stays one. found are the words that were there.
func (w Workflow) With(words map[string]any) (out Workflow, found []string) {
	out = Workflow{}
	for id, n := range w {
		out[id] = n
		node, ok := n.(map[string]any)
		inputs, has := node["inputs"].(map[string]any)
		if !ok || !has {
			continue
		}
		copied, filled := map[string]any{}, map[string]any{}
		for k, v := range node {
			copied[k] = v
		}
		for k, v := range inputs {
			filled[k] = v
			if text, ok := v.(string); ok {
				filled[k] = fill(text, words, &found)
			}
		}
		copied["inputs"], out[id] = filled, copied
	}
	slices.Sort(found)
	return out, slices.Compact(found)
}

func fill(text string, words map[string]any, found *[]string) any {
	var pairs []string
	for name, value := range words {
		word := "{" + name + "}"
		pairs = append(pairs, word, fmt.Sprint(value))
		if strings.Contains(text, word) {
			*found = append(*found, name)
		}
		if text == word {
			return value
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
