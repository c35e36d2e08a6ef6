package echo

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

const (
	maxStops   = 16   // stop sequences; OpenAI allows 4, other engines more
	maxPrompts = 2048 // prompts or inputs of one request
)

// generation is a validated request with its completions.
type generation struct {
	model        string
	completions  []completion // one per choice
	promptTokens int
	stream       bool
	includeUsage bool
}

// common holds the parameters of both endpoints.
type common struct {
	Model               string         `json:"model"`
	N                   *int           `json:"n"`
	MaxTokens           *int           `json:"max_tokens"`
	MaxCompletionTokens *int           `json:"max_completion_tokens"`
	Stop                oneOrMany      `json:"stop"`
	Stream              bool           `json:"stream"`
	StreamOptions       *streamOptions `json:"stream_options"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type chatRequest struct {
	common
	Messages []inMessage `json:"messages"`
}

type inMessage struct {
	Role    string  `json:"role"`
	Content content `json:"content"`
}

type completionRequest struct {
	common
	Prompt *oneOrMany `json:"prompt"`
}

// decodeChat decodes the body of POST /v1/chat/completions.
func decodeChat(body []byte) (generation, *apiError) {
	var req chatRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return generation{}, jsonError(err)
	}
	if err := req.validate(1); err != nil {
		return generation{}, err
	}
	if len(req.Messages) == 0 {
		return generation{}, badRequest("messages", "'messages' must be an array with at least one message.")
	}
	words := 0
	for i, m := range req.Messages {
		if !isKnownRole(m.Role) {
			return generation{}, badRequest("messages", "Invalid value for 'messages[%d].role': %q.", i, m.Role)
		}
		words += countWords(string(m.Content))
	}
	return req.generation([]string{promptText(req.Messages)}, words), nil
}

// promptText returns the text of the last user message, or of the last message if there is
// no user message.
func promptText(messages []inMessage) string {
	for _, m := range slices.Backward(messages) {
		if m.Role == "user" {
			return string(m.Content)
		}
	}
	return string(messages[len(messages)-1].Content)
}

func isKnownRole(role string) bool {
	switch role {
	case "developer", "system", "user", "assistant", "tool", "function":
		return true
	}
	return false
}

// decodeCompletion decodes the body of POST /v1/completions.
func decodeCompletion(body []byte) (generation, *apiError) {
	var req completionRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return generation{}, jsonError(err)
	}
	if err := req.validate(0); err != nil {
		return generation{}, err
	}
	if req.Prompt == nil || len(*req.Prompt) == 0 {
		return generation{}, badRequest("prompt", "'prompt' must be a string or an array of strings.")
	}
	if len(*req.Prompt) > maxPrompts {
		return generation{}, badRequest("prompt", "'prompt' has %d entries; the limit is %d.", len(*req.Prompt), maxPrompts)
	}
	words := 0
	for _, p := range *req.Prompt {
		words += countWords(p)
	}
	return req.generation(*req.Prompt, words), nil
}

// validate returns an error for unsupported values. minTokens is the smallest valid token
// limit.
func (c *common) validate(minTokens int) *apiError {
	if c.Model == "" {
		return badRequest("model", "You must provide a 'model' parameter.")
	}
	if c.N != nil && *c.N != 1 {
		return badRequest("n", "'n' is %d; this model returns one choice per prompt.", *c.N)
	}
	for _, limit := range []struct {
		name  string
		value *int
	}{{"max_tokens", c.MaxTokens}, {"max_completion_tokens", c.MaxCompletionTokens}} {
		if limit.value != nil && *limit.value < minTokens {
			return badRequest(limit.name, "'%s' is %d; the smallest value is %d.", limit.name, *limit.value, minTokens)
		}
	}
	if len(c.Stop) > maxStops {
		return badRequest("stop", "'stop' has %d sequences; the limit is %d.", len(c.Stop), maxStops)
	}
	if c.StreamOptions != nil && !c.Stream {
		return badRequest("stream_options", "'stream_options' is only allowed when 'stream' is true.")
	}
	return nil
}

// limit returns the maximum number of words, or -1 for no limit. max_completion_tokens has
// precedence, because OpenAI has deprecated max_tokens.
func (c *common) limit() int {
	for _, v := range []*int{c.MaxCompletionTokens, c.MaxTokens} {
		if v != nil {
			return *v
		}
	}
	return -1
}

// generation returns a generation with the completions of the prompts.
func (c *common) generation(prompts []string, promptTokens int) generation {
	g := generation{
		model:        c.Model,
		promptTokens: promptTokens,
		stream:       c.Stream,
		includeUsage: c.StreamOptions != nil && c.StreamOptions.IncludeUsage,
	}
	for _, p := range prompts {
		g.completions = append(g.completions, complete(p, c.Stop, c.limit()))
	}
	return g
}

// oneOrMany is a JSON string or an array of strings; null means none.
type oneOrMany []string

func (o *oneOrMany) UnmarshalJSON(b []byte) error {
	*o = nil
	var one string
	switch firstByte(b) {
	case 'n':
		return nil
	case '"':
		if err := json.Unmarshal(b, &one); err != nil {
			return err
		}
		*o = oneOrMany{one}
		return nil
	}
	var many []*string
	if err := json.Unmarshal(b, &many); err != nil || slices.Contains(many, nil) {
		return badRequest("", "'stop' and 'prompt' take a string or an array of strings; tokens are not supported.")
	}
	for _, s := range many {
		*o = append(*o, *s)
	}
	return nil
}

// content is the text of a message: a string, or an array of parts. The text parts are
// joined with newlines; parts of other types, such as images, are ignored.
type content string

func (c *content) UnmarshalJSON(b []byte) error {
	*c = ""
	if firstByte(b) != '[' {
		var s *string
		if err := json.Unmarshal(b, &s); err != nil {
			return badRequest("messages", "A message's 'content' must be a string or an array of parts.")
		}
		if s != nil {
			*c = content(*s)
		}
		return nil
	}
	var parts []struct {
		Type string  `json:"type"`
		Text *string `json:"text"`
	}
	if err := json.Unmarshal(b, &parts); err != nil {
		return badRequest("messages", "A part of a message's 'content' must be an object with a 'type'.")
	}
	var texts []string
	for _, p := range parts {
		switch {
		case p.Type == "":
			return badRequest("messages", "A part of a message's 'content' has no 'type'.")
		case p.Type == "text" && p.Text == nil:
			return badRequest("messages", "A part of type 'text' has no 'text'.")
		case p.Type == "text":
			texts = append(texts, *p.Text)
		}
	}
	*c = content(strings.Join(texts, "\n"))
	return nil
}

// firstByte returns the first byte of a JSON value, or 0.
func firstByte(b []byte) byte {
	b = bytes.TrimLeft(b, " \t\r\n")
	if len(b) == 0 {
		return 0
	}
	return b[0]
}
