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

// reply is a whole answer, or one chunk of a stream.
type reply struct {
	ID      string   `json:"id"`
	Object  string   `json:"object"`
	Created int64    `json:"created"`
	Model   string   `json:"model"`
	Choices []choice `json:"choices"`
	// Usage is left out where it is empty. In a stream with include_usage it is
	// null in every chunk but the last, hence the raw form.
	Usage json.RawMessage `json:"usage,omitempty"`
}

// choice has Message in a whole chat answer, Delta in a chunk of one, and Text
// in both kinds of completions.
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

// dialect is what differs between the two endpoints.
type dialect struct {
	idPrefix, object, chunkObject string

	decode func(body []byte) (job, *apiError)
	whole  func(text string) choice // a complete answer
	open   func() choice            // the chunk before the first word; nil for none
	piece  func(text string) choice // a chunk with a word
	end    func() choice            // the chunk with the finish reason
}

var chat = dialect{
	idPrefix: "chatcmpl-", object: "chat.completion", chunkObject: "chat.completion.chunk",
	decode: decodeChat,
	whole: func(text string) choice {
		return choice{Message: &outMessage{Role: "assistant", Content: text}}
	},
	open:  func() choice { return choice{Delta: &delta{Role: "assistant", Content: new(string)}} },
	piece: func(text string) choice { return choice{Delta: &delta{Content: &text}} },
	end:   func() choice { return choice{Delta: &delta{}} },
}

var completions = dialect{
	idPrefix: "cmpl-", object: "text_completion", chunkObject: "text_completion",
	decode: decodeCompletion,
	whole:  func(text string) choice { return choice{Text: &text} },
	piece:  func(text string) choice { return choice{Text: &text} },
	end:    func() choice { return choice{Text: new(string)} },
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

func (s *server) card() model {
	return model{ID: s.model, Object: "model", Created: s.started, OwnedBy: "rbee"}
}

func (s *server) models(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Object string  `json:"object"`
		Data   []model `json:"data"`
	}{"list", []model{s.card()}})
}

func (s *server) oneModel(w http.ResponseWriter, r *http.Request) {
	if name := r.PathValue("model"); name != s.model {
		writeError(w, modelNotFound(name))
		return
	}
	writeJSON(w, http.StatusOK, s.card())
}

// answer handles a generation request of the given dialect.
func (s *server) answer(d dialect) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, refusal := readBody(w, r)
		if refusal != nil {
			writeError(w, refusal)
			return
		}
		j, refusal := d.decode(body)
		if refusal == nil && j.model != s.model {
			refusal = modelNotFound(j.model)
		}
		if refusal != nil {
			writeError(w, refusal)
			return
		}
		head := reply{ID: d.idPrefix + rand.Text(), Created: time.Now().Unix(), Model: s.model}
		if j.stream {
			s.stream(w, r, d, j, head)
		} else {
			s.whole(w, r, d, j, head)
		}
	}
}

// readBody reads the body within its limits of size and time. The deadline is
// set here and not on the server, where it would end long streams as well.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *apiError) {
	rc := http.NewResponseController(w)
	// A writer without deadlines, as in a test, is no reason to refuse.
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, badBody(err)
	}
	_ = rc.SetReadDeadline(time.Time{})
	return body, nil
}

// whole writes the answer as one JSON object.
func (s *server) whole(w http.ResponseWriter, r *http.Request, d dialect, j job, head reply) {
	for i, a := range j.answers {
		if !s.say(r.Context(), a, func(string) bool { return true }) {
			return
		}
		c := d.whole(a.text)
		c.Index, c.FinishReason = i, &a.finish
		head.Choices = append(head.Choices, c)
	}
	head.Object = d.object
	head.Usage = j.usage()
	writeJSON(w, http.StatusOK, head)
}

// stream writes the answer as server-sent events, one word each, and stops
// when the client has gone.
func (s *server) stream(w http.ResponseWriter, r *http.Request, d dialect, j job, head reply) {
	out := sse.NewWriter(w, writeTimeout)
	w.Header().Set("Cache-Control", "no-cache")
	head.Object = d.chunkObject
	if j.includeUsage {
		head.Usage = json.RawMessage("null")
	}
	for i, a := range j.answers {
		send := func(c choice) bool {
			c.Index = i
			head.Choices = []choice{c}
			return event(out, head)
		}
		if d.open != nil && !send(d.open()) {
			return
		}
		if !s.say(r.Context(), a, func(word string) bool { return send(d.piece(word)) }) {
			return
		}
		last := d.end()
		last.FinishReason = &a.finish
		if !send(last) {
			return
		}
	}
	if j.includeUsage {
		head.Choices, head.Usage = []choice{}, j.usage()
		if !event(out, head) {
			return
		}
	}
	_ = out.Send(sse.Event{Data: []byte("[DONE]")}) // the end either way
}

// say hands the answer over word by word at the server's pace, until emit
// wants no more or ctx ends; then it is false.
func (s *server) say(ctx context.Context, a answer, emit func(word string) bool) bool {
	for piece, rest := nextPiece(a.text); piece != ""; piece, rest = nextPiece(rest) {
		if !pause(ctx, s.delay) || !emit(piece) {
			return false
		}
	}
	return true
}

// pause waits for d and is false if ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
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

// event sends one chunk at once; false means that the client is gone.
func event(out *sse.Writer, chunk reply) bool {
	// A client that stops reading must not hold this goroutine for ever.
	return out.Send(sse.Event{Data: []byte(strings.TrimSuffix(encode(chunk), "\n"))}) == nil
}

func (j job) usage() json.RawMessage {
	u := usage{PromptTokens: j.promptTokens}
	for _, a := range j.answers {
		u.CompletionTokens += a.words
	}
	u.TotalTokens = u.PromptTokens + u.CompletionTokens
	return json.RawMessage(encode(u))
}

// encode is v as JSON with a line break behind it, and < > & left as they are.
// The package's own types always encode.
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
	_, _ = io.WriteString(w, body) // the client may have gone
}
