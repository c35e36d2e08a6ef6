package comfyui

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Workflow is a graph: a map of nodes by ID.
type Workflow map[string]any

// ParseWorkflow parses a graph in the API format, or an object that has such a graph as
// "prompt".
func ParseWorkflow(data []byte) (Workflow, error) {
	var w Workflow
	if err := json.Unmarshal(data, &w); err != nil {
		return nil, fmt.Errorf("invalid workflow: want a JSON object: %w", err)
	}
	if _, nodes := w["nodes"].([]any); nodes {
		return nil, errors.New("invalid workflow: want the API format, not the format of the editor; in ComfyUI, choose \"Save (API format)\" or Workflow > Export (API)")
	}
	if inner, ok := w["prompt"].(map[string]any); ok {
		w = inner
	}
	if len(w) == 0 {
		return nil, errors.New("invalid workflow: it has no nodes")
	}
	for id, n := range w {
		node, ok := n.(map[string]any)
		if class, isText := node["class_type"].(string); !ok || !isText || class == "" {
			return nil, fmt.Errorf("invalid workflow: node %q has no class_type", id)
		}
	}
	return w, nil
}

// With returns a copy in which the placeholders of text inputs, such as {prompt}, are
// replaced by values. An input that consists of one placeholder becomes the value itself,
// which may be a number. found has the sorted names of the placeholders that were replaced.
func (w Workflow) With(values map[string]any) (out Workflow, found []string) {
	out = Workflow{}
	for id, n := range w {
		out[id] = n
		node, ok := n.(map[string]any)
		inputs, has := node["inputs"].(map[string]any)
		if !ok || !has {
			continue
		}
		copied, expanded := map[string]any{}, map[string]any{}
		for k, v := range node {
			copied[k] = v
		}
		for k, v := range inputs {
			expanded[k] = v
			if text, ok := v.(string); ok {
				expanded[k] = expand(text, values, &found)
			}
		}
		copied["inputs"], out[id] = expanded, copied
	}
	slices.Sort(found)
	return out, slices.Compact(found)
}

// expand replaces the placeholders of text and appends their names to found.
func expand(text string, values map[string]any, found *[]string) any {
	var pairs []string
	for name, value := range values {
		placeholder := "{" + name + "}"
		pairs = append(pairs, placeholder, fmt.Sprint(value))
		if strings.Contains(text, placeholder) {
			*found = append(*found, name)
		}
		if text == placeholder {
			return value
		}
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
