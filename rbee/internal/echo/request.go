package echo

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

const (
	maxStops   = 16   // OpenAI allows 4, other engines more
	maxPrompts = 2048 // in one completions request
)

// job is a request, checked and answered: what remains is to write it down.
type job struct {
	model        string
	answers      []answer // one per choice
	promptTokens int
	stream       bool
	includeUsage bool
}

// common holds the parameters that both endpoints have.
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

// decodeChat reads the body of POST /v1/chat/completions.
func decodeChat(body []byte) (job, *apiError) {
	var req chatRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return job{}, badJSON(err)
	}
	if err := req.check(1); err != nil {
		return job{}, err
	}
	if len(req.Messages) == 0 {
		return job{}, badRequest("messages", "'messages' must be an array with at least one message.")
	}
	words := 0
	for i, m := range req.Messages {
		if !knownRole(m.Role) {
			return job{}, badRequest("messages", "Invalid value for 'messages[%d].role': %q.", i, m.Role)
		}
		words += countWords(string(m.Content))
	}
	return req.job([]string{lastWords(req.Messages)}, words), nil
}

// lastWords is the text of the last user message, or of the last message at
// all if the user said nothing.
func lastWords(messages []inMessage) string {
	for _, m := range slices.Backward(messages) {
		if m.Role == "user" {
			return string(m.Content)
		}
	}
	return string(messages[len(messages)-1].Content)
}

func knownRole(role string) bool {
	switch role {
	case "developer", "system", "user", "assistant", "tool", "function":
		return true
	}
	return false
}

// decodeCompletion reads the body of POST /v1/completions.
func decodeCompletion(body []byte) (job, *apiError) {
	var req completionRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return job{}, badJSON(err)
	}
	if err := req.check(0); err != nil {
		return job{}, err
	}
	if req.Prompt == nil || len(*req.Prompt) == 0 {
		return job{}, badRequest("prompt", "'prompt' must be a string or an array of strings.")
	}
	if len(*req.Prompt) > maxPrompts {
		return job{}, badRequest("prompt", "'prompt' has %d entries; the limit is %d.", len(*req.Prompt), maxPrompts)
	}
	words := 0
	for _, p := range *req.Prompt {
		words += countWords(p)
	}
	return req.job(*req.Prompt, words), nil
}

// check refuses what no answer can honor. least is the smallest token limit.
func (c *common) check(least int) *apiError {
	if c.Model == "" {
		return badRequest("model", "You must provide a 'model' parameter.")
	}
	if c.N != nil && *c.N != 1 {
		return badRequest("n", "'n' is %d; this model gives one choice per prompt.", *c.N)
	}
	for _, limit := range []struct {
		name  string
		value *int
	}{{"max_tokens", c.MaxTokens}, {"max_completion_tokens", c.MaxCompletionTokens}} {
		if limit.value != nil && *limit.value < least {
			return badRequest(limit.name, "'%s' is %d; the smallest value is %d.", limit.name, *limit.value, least)
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

// limit is the number of words allowed, or -1 for any number. The newer of
// the two names wins, as at OpenAI, where max_tokens is deprecated.
func (c *common) limit() int {
	for _, v := range []*int{c.MaxCompletionTokens, c.MaxTokens} {
		if v != nil {
			return *v
		}
	}
	return -1
}

func (c *common) job(prompts []string, promptTokens int) job {
	j := job{
		model:        c.Model,
		promptTokens: promptTokens,
		stream:       c.Stream,
		includeUsage: c.StreamOptions != nil && c.StreamOptions.IncludeUsage,
	}
	for _, p := range prompts {
		j.answers = append(j.answers, answerTo(p, c.Stop, c.limit()))
	}
	return j
}

// oneOrMany is a JSON string or an array of strings; null is none.
type oneOrMany []string

func (o *oneOrMany) UnmarshalJSON(b []byte) error {
	*o = nil
	var one string
	switch first(b) {
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

// content is the text of a message: a string, or an array of parts whose text
// parts are joined by a line break. Parts of other types, such as images, have
// no words and are passed over.
type content string

func (c *content) UnmarshalJSON(b []byte) error {
	*c = ""
	if first(b) != '[' {
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

// first is the first byte of a JSON value, or 0.
func first(b []byte) byte {
	b = bytes.TrimLeft(b, " \t\r\n")
	if len(b) == 0 {
		return 0
	}
	return b[0]
}
