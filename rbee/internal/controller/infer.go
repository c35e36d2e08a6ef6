package controller

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/rbee/internal/loader"
)

const (
	maxResponseSize  = 16 << 20 // bytes of a response, or of one event of a stream
	maxInferAttempts = 3        // workers tried for one operation
)

// candidate is a worker that can serve the request.
type candidate struct{ loader.Candidate }

// infer sends the prompt to the best ready worker of the model. If a worker fails before it
// has responded, infer tries the next one. If no worker is ready, infer starts one, unless the
// operation forbids that.
func (c *Controller) infer(ctx context.Context, op operations.Infer, events operations.Handler) (*operations.InferReport, error) {
	events = serialize(events)
	found, err := c.loader.Find(ctx, op)
	defer func() { found.Close() }()
	for first := true; ; first = false {
		if loader.IsNoCandidate(err) && mayLoad(op) {
			found, err = c.loader.Load(ctx, op, found, events)
		}
		if err != nil {
			return nil, err
		}
		r, tryErr := c.tryCandidates(ctx, found.Candidates, op, events)
		if !first || !errors.Is(tryErr, errEvicting) {
			return r, tryErr
		}
		found.Close()
		found, err = c.loader.Find(ctx, op) // without the worker that is being evicted
	}
}

// mayLoad reports whether a worker may be started for the operation.
func mayLoad(op operations.Infer) bool {
	return !op.NoSpawn && op.Workflow == nil && op.WorkerID == ""
}

// errEvicting is the error for a worker that is being evicted.
var errEvicting = errors.New("the worker is stopping")

// tryCandidates tries one worker after the other, until one has started to respond.
func (c *Controller) tryCandidates(ctx context.Context, candidates []loader.Candidate, op operations.Infer, events operations.Handler) (r *operations.InferReport, err error) {
	candidates = candidates[:min(len(candidates), maxInferAttempts)]
	for i, next := range candidates {
		var final bool
		r, final, err = c.tryCandidate(ctx, candidate{next}, op, i, events)
		if err == nil || final || ctx.Err() != nil {
			return r, err
		}
		if i < len(candidates)-1 { // the last error is returned
			events.Send(operations.Event{Type: operations.EventNote, Hive: next.Client.Hive.Alias, Message: err.Error()})
		}
	}
	return nil, err
}

// tryCandidate sends the operation to a worker and counts the request. final is true if the
// worker has started to respond, or returned an error that other workers would return too.
func (c *Controller) tryCandidate(ctx context.Context, target candidate, op operations.Infer, retries int, events operations.Handler) (r *operations.InferReport, final bool, err error) {
	end, ok := c.traffic.Begin(target.Worker)
	if !ok {
		return nil, false, target.fail(fmt.Sprintf("worker %s is stopping", target.Worker.ID), errEvicting)
	}
	defer end()
	send := target.chat
	if op.Workflow != nil {
		send = target.runWorkflow
	}
	start := time.Now()
	r, final, err = send(ctx, op, events)
	c.traffic.Finish(ctx, FinishedRequest{Worker: target.Worker, Start: start, Retries: retries, Stream: op.Stream, Final: final, Report: r, Err: err})
	return r, final, err
}

// chatRequest is a chat or completion request in OpenAI's format, plus top_k, which many
// engines support:
// https://platform.openai.com/docs/api-reference/chat/create
type chatRequest struct {
	Model         string         `json:"model"`
	Messages      []chatMessage  `json:"messages,omitempty"`
	Prompt        string         `json:"prompt,omitempty"` // of a completion, instead of messages
	MaxTokens     int            `json:"max_tokens"`
	Temperature   float64        `json:"temperature"`
	TopP          *float64       `json:"top_p,omitempty"`
	TopK          *int           `json:"top_k,omitempty"`
	Seed          *int64         `json:"seed,omitempty"`
	Stream        bool           `json:"stream"`
	StreamOptions *streamOptions `json:"stream_options,omitempty"`
}

type chatMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// chatResponse is the response to a chat or completion, or a chunk of a stream.
type chatResponse struct {
	Choices []struct {
		Message      chatMessage `json:"message"`
		Delta        chatMessage `json:"delta"`
		Text         string      `json:"text"`
		FinishReason string      `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		PromptTokens     int `json:"prompt_tokens"`
		CompletionTokens int `json:"completion_tokens"`
	} `json:"usage"`
	Error *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// chat sends the prompt to one worker. See tryCandidate for final.
func (c candidate) chat(ctx context.Context, op operations.Infer, events operations.Handler) (r *operations.InferReport, final bool, err error) {
	start := time.Now()
	resp, err := c.post(ctx, "/v1/chat/completions", op)
	if err == nil && isCompletionOnly(resp) {
		resp, err = c.post(ctx, "/v1/completions", op)
	}
	if err != nil {
		return nil, false, c.fail(err.Error(), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, !isUnavailable(resp), c.fail(fmt.Sprintf("worker %s returned %s: %s", c.Worker.ID, resp.Status, errorMessage(resp.Body)), nil)
	}
	r = &operations.InferReport{Model: op.Model, Hive: c.Client.Hive.Alias, WorkerID: c.Worker.ID}
	var text strings.Builder
	handle := func(data []byte) error {
		var response chatResponse
		if err := json.Unmarshal(data, &response); err != nil {
			return fmt.Errorf("worker %s returned an invalid response: %w", c.Worker.ID, err)
		}
		if response.Error != nil {
			final = true
			return fmt.Errorf("worker %s: %s", c.Worker.ID, response.Error.Message)
		}
		if response.Usage != nil {
			r.PromptTokens, r.CompletionTokens = response.Usage.PromptTokens, response.Usage.CompletionTokens
		}
		for _, choice := range response.Choices {
			piece := choice.Delta.Content + choice.Message.Content + choice.Text
			r.FinishReason = cmp.Or(choice.FinishReason, r.FinishReason)
			if piece == "" {
				continue
			}
			if text.Len() == 0 {
				r.FirstTokenSeconds = time.Since(start).Seconds()
			}
			final = true
			text.WriteString(piece)
			if op.Stream {
				events(operations.Event{Time: time.Now(), Type: operations.EventToken, Hive: r.Hive, Text: piece})
			}
		}
		return nil
	}
	if op.Stream {
		err = eachEvent(resp.Body, handle)
	} else {
		var data []byte
		if data, err = io.ReadAll(io.LimitReader(resp.Body, maxResponseSize)); err == nil {
			err = handle(data)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, final, c.fail(err.Error(), err)
	}
	r.Text, r.DurationSeconds = text.String(), time.Since(start).Seconds()
	return r, true, nil
}

// fail returns an error of the candidate's worker.
func (c candidate) fail(message string, err error) error {
	code, reason := operations.CodeFailed, operations.ReasonOf(err)
	switch {
	case errors.Is(err, context.Canceled):
		code, reason = operations.CodeCanceled, operations.ReasonCanceled
	case errors.Is(err, errEvicting):
		reason = operations.ReasonWorkerNotReady
	case err == nil || reason == operations.ReasonFailed:
		reason = operations.ReasonWorkerFailed
	}
	return &operations.Error{
		Code: code, Reason: reason, Subject: operations.SubjectWorker.WithName(c.Worker.ID), Hive: c.Client.Hive.Alias, Message: message, Err: err,
	}
}

// post sends the prompt through the hive to the worker.
func (c candidate) post(ctx context.Context, path string, op operations.Infer) (*http.Response, error) {
	chat := chatRequest{
		Model: cmp.Or(c.Worker.ServedName, c.Worker.Model), MaxTokens: op.MaxTokens, Temperature: op.Temperature, TopP: op.TopP, TopK: op.TopK, Seed: op.Seed, Stream: op.Stream,
	}
	if op.Stream {
		chat.StreamOptions = &streamOptions{IncludeUsage: true}
	}
	if strings.HasSuffix(path, "/chat/completions") {
		if op.System != "" {
			chat.Messages = append(chat.Messages, chatMessage{Role: "system", Content: op.System})
		}
		chat.Messages = append(chat.Messages, chatMessage{Role: "user", Content: op.Prompt})
	} else {
		chat.Prompt = strings.TrimPrefix(op.System+"\n\n"+op.Prompt, "\n\n")
	}
	body, err := json.Marshal(chat)
	if err != nil {
		return nil, err
	}
	url := c.Client.WorkerURL(c.Worker.ID) + path
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+string(c.Client.API.Token))
	if id := client.RequestID(ctx); id != "" {
		req.Header.Set(client.RequestIDHeader, id)
	}
	resp, err := c.Client.API.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot reach worker %s: %w", c.Worker.ID, err)
	}
	return resp, nil
}

// isUnavailable reports whether a response means that the worker is unavailable, so that
// another worker may succeed: errors of the hive, and gateway errors of the engine.
func isUnavailable(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return resp.Header.Get("X-Rbee-Error") != ""
}

// isCompletionOnly reports whether a response means that the engine or the model supports
// completions but not chat. It replaces the body with the part that it has read.
func isCompletionOnly(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest, http.StatusNotImplemented:
		if isUnavailable(resp) {
			return false
		}
	default:
		return false
	}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	_ = resp.Body.Close()
	resp.Body = io.NopCloser(bytes.NewReader(data))
	return resp.StatusCode != http.StatusBadRequest || strings.Contains(string(data), "chat template")
}

// errorMessage returns the message of an error response, in one line.
func errorMessage(body io.Reader) string {
	data, _ := io.ReadAll(io.LimitReader(body, 64<<10)) // a partial body is sufficient
	var a struct {
		Error json.RawMessage `json:"error"`
	}
	var e struct {
		Message string `json:"message"`
	}
	var text string
	if json.Unmarshal(data, &a) == nil && len(a.Error) > 0 {
		if json.Unmarshal(a.Error, &e) == nil && e.Message != "" {
			return e.Message
		}
		if json.Unmarshal(a.Error, &text) == nil && text != "" {
			return text
		}
	}
	text = strings.Join(strings.Fields(string(data)), " ")
	return text[:min(len(text), 300)]
}

// errTruncated is the error for a stream without an end marker.
var errTruncated = errors.New("the response was truncated")

// eachEvent calls handle for the server-sent events of a response until the end marker.
func eachEvent(body io.Reader, handle func(data []byte) error) error {
	for events := sse.NewReader(body, maxResponseSize); ; {
		e, err := events.Next()
		switch {
		case errors.Is(err, io.EOF) && isEndMarker(events.Partial()):
			return nil
		case errors.Is(err, io.EOF):
			return errTruncated
		case err != nil:
			return fmt.Errorf("%w: %w", errTruncated, err)
		case e.Comment:
			continue
		case isEndMarker(e.Data):
			return nil
		}
		if err := handle(bytes.TrimSpace(e.Data)); err != nil {
			return err
		}
	}
}

func isEndMarker(data []byte) bool { return string(bytes.TrimSpace(data)) == "[DONE]" }
