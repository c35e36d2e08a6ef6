package echo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations/sse"
)

type server struct {
	model   string
	delay   time.Duration
	started int64 // seconds since 1970
}

// reply is a complete response, or one chunk of a stream.
type reply struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	// Usage is omitted if empty. In a stream with include_usage it is null in every
	// chunk except the last, which requires the raw form.
	Usage json.RawMessage `json:"usage,omitempty"`
}

// choice has Message in a complete chat response, Delta in a chunk of a chat response, and
// Text in both kinds of text completions.
type choice struct {
	Index        int         `json:"index"`
	Message      *outMessage `json:"message,omitempty"`
	Delta        *delta      `json:"delta,omitempty"`
	Text         *string     `json:"text,omitempty"`
	Logprobs     *struct{}   `json:"logprobs"` // always null
	FinishReason *string     `json:"finish_reason"`
}

type outMessage struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"` // always null
}

type delta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

// dialect holds the differences between the chat and the completion endpoint.
type dialect struct {
	idPrefix, object, chunkObject string

	decode   func(body []byte) (generation, *apiError)
	complete func(text string) choice // a complete response
	first    func() choice            // the chunk before the first word; nil for none
	token    func(text string) choice // a chunk with a word
	last     func() choice            // the chunk with the finish reason
}

var chat = dialect{
	idPrefix: "chatcmpl-", object: "chat.completion", chunkObject: "chat.completion.chunk",
	decode: decodeChat,
	complete: func(text string) choice {
		return choice{Message: &outMessage{Role: "assistant", Content: text}}
	},
	first: func() choice { return choice{Delta: &delta{Role: "assistant", Content: new(string)}} },
	token: func(text string) choice { return choice{Delta: &delta{Content: &text}} },
	last:  func() choice { return choice{Delta: &delta{}} },
}

var completions = dialect{
	idPrefix: "cmpl-", object: "text_completion", chunkObject: "text_completion",
	decode:   decodeCompletion,
	complete: func(text string) choice { return choice{Text: &text} },
	token:    func(text string) choice { return choice{Text: &text} },
	last:     func() choice { return choice{Text: new(string)} },
}

func (s *server) health(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Status string `json:"status"`
	}{"ok"})
}

// model is an entry of /v1/models.
type model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// modelInfo returns the entry of the only model.
func (s *server) modelInfo() model {
	return model{ID: s.model, Object: "model", Created: s.started, OwnedBy: "rbee"}
}

func (s *server) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
	}{"list", []model{s.modelInfo()}})
}

func (s *server) oneModel(w http.ResponseWriter, r *http.Request) {
	if name := r.PathValue("model"); name != s.model {
		writeError(w, modelNotFound(name))
		return
	}
	writeJSON(w, http.StatusOK, s.modelInfo())
}

// generate returns the handler for generation requests of a dialect.
func (s *server) generate(d dialect) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, apiErr := readBody(w, r)
		if apiErr != nil {
			writeError(w, apiErr)
			return
		}
		g, apiErr := d.decode(body)
		if apiErr == nil && g.model != s.model {
			apiErr = modelNotFound(g.model)
		}
		if apiErr != nil {
			writeError(w, apiErr)
			return
		}
		head := reply{ID: d.idPrefix + rand.Text(), Created: time.Now().Unix(), Model: s.model}
		if g.stream {
			s.stream(w, r, d, g, head)
		} else {
			s.respond(w, r, d, g, head)
		}
	}
}

// readBody reads the body within limits of size and time. It sets the read deadline per
// request, because a deadline of the server would also end long streams.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *apiError) {
	rc := http.NewResponseController(w)
	// Writers without deadlines, as in tests, are permitted.
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, bodyError(err)
	}
	_ = rc.SetReadDeadline(time.Time{})
	return body, nil
}

// respond writes the response as one JSON object.
func (s *server) respond(w http.ResponseWriter, r *http.Request, d dialect, g generation, head reply) {
	for i, comp := range g.completions {
		if !s.emitTokens(r.Context(), comp, func(string) bool { return true }) {
			return
		}
		c := d.complete(comp.text)
		c.Index, c.FinishReason = i, &comp.finish
		head.Choices = append(head.Choices, c)
	}
	head.Object = d.object
	head.Usage = g.usage()
	writeJSON(w, http.StatusOK, head)
}

// stream writes the response as server-sent events with one word each. It returns early if
// the client disconnects.
func (s *server) stream(w http.ResponseWriter, r *http.Request, d dialect, g generation, head reply) {
	out := sse.NewWriter(w, writeTimeout)
	w.Header().Set("Cache-Control", "no-cache")
	head.Object = d.chunkObject
	if g.includeUsage {
		head.Usage = json.RawMessage("null")
	}
	for i, comp := range g.completions {
		send := func(c choice) bool {
			c.Index = i
			head.Choices = []choice{c}
			return sendChunk(out, head)
		}
		if d.first != nil && !send(d.first()) {
			return
		}
		if !s.emitTokens(r.Context(), comp, func(word string) bool { return send(d.token(word)) }) {
			return
		}
		last := d.last()
		last.FinishReason = &comp.finish
		if !send(last) {
			return
		}
	}
	if g.includeUsage {
		head.Choices, head.Usage = []choice{}, g.usage()
		if !sendChunk(out, head) {
			return
		}
	}
	_ = out.Send(sse.Event{Data: []byte("[DONE]")}) // the stream ends anyway; an error does not matter
}

// emitTokens calls emit for each token, after the server's delay. It returns false if emit
// returns false or ctx ends.
func (s *server) emitTokens(ctx context.Context, c completion, emit func(token string) bool) bool {
	for token, rest := nextToken(c.text); token != ""; token, rest = nextToken(rest) {
		if !sleep(ctx, s.delay) || !emit(token) {
			return false
		}
	}
	return true
}

// sleep waits for d. It returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// sendChunk sends one chunk immediately. It returns false if the client has disconnected.
func sendChunk(out *sse.Writer, chunk reply) bool {
	// The writer has a timeout for clients that stop reading.
	return out.Send(sse.Event{Data: []byte(strings.TrimSuffix(encode(chunk), "\n"))}) == nil
}

func (g generation) usage() json.RawMessage {
	u := usage{PromptTokens: g.promptTokens}
	for _, c := range g.completions {
		u.CompletionTokens += c.words
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return json.RawMessage(encode(u))
}

// encode returns v as JSON with a newline, without escaping <, > and &. The types of this
// package can always be encoded.
func encode(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v)
	return b.String()
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body := encode(v)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // the client may have disconnected
}
