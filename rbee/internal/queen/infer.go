package queen

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

const (
	maxAnswer     = 16 << 20 // bytes of one piece of an engine's answer
	maxInferTries = 3        // workers that are asked one question
	likeBytes     = 1 << 10  // of a prompt, by which a worker is found that has seen it
	inferPath     = "infer"  // what counts call an operation that asks a model
	statusLeft    = 499      // likewise for one that was cancelled
)

// offer is a worker that can answer.
type offer struct {
	door   *door
	worker operations.WorkerProcess
	busy   int    // requests that it is answering
	room   uint64 // device memory that is free beside it, in GiB
}

// infer asks a ready worker of the model: the one with the fewest requests, then
// the one with the most room, then always the same one for the same beginning. If one
// turns out to be gone before it has said anything, the next is asked. Where none is
// ready, one is started, if it may.
func (q *Queen) infer(ctx context.Context, op operations.Infer, events operations.Handler) (*operations.InferReport, error) {
	events = inTurn(events)
	offers, views, err := q.offers(ctx, op)
	defer func() { closeViews(views) }()
	for first := true; ; first = false {
		if operations.CodeOf(err) == operations.CodeNotFound && mayLoad(op) {
			if q.front == nil {
				offers, err = q.offerAnew(ctx, op, views, true, events)
			} else if err = q.front.load(ctx, q.front.wanted(op), &events); err == nil {
				closeViews(views)
				offers, views, err = q.offers(ctx, op)
			}
		}
		if err != nil {
			return nil, err
		}
		r, failed := q.askEach(ctx, offers, op, events)
		if !first || !errors.Is(failed, errEnding) {
			return r, failed
		}
		closeViews(views)
		offers, views, err = q.offers(ctx, op) // without the one that ends
	}
}

// errEnding is a worker that has just begun to end.
var errEnding = errors.New("the worker is being ended")

// askEach asks one worker after the other, until one has begun to answer.
func (q *Queen) askEach(ctx context.Context, offers []offer, op operations.Infer, events operations.Handler) (r *operations.InferReport, err error) {
	for i, o := range offers[:min(len(offers), maxInferTries)] {
		var final bool
		r, final, err = q.askOne(ctx, o, op, i, events)
		if err == nil || final || ctx.Err() != nil {
			return r, err
		}
		tell(events, operations.Event{Type: operations.EventNote, Hive: o.door.hive.Alias, Message: err.Error()})
	}
	return nil, err
}

// askOne asks a worker, and counts that. final is true once it has begun to answer,
// or has given an error that others would give too.
func (q *Queen) askOne(ctx context.Context, o offer, op operations.Infer, tried int, events operations.Handler) (r *operations.InferReport, final bool, err error) {
	end, ok := q.traffic.begin(o.worker)
	if !ok {
		return nil, false, o.fail(fmt.Sprintf("worker %s is being ended", o.worker.ID), errEnding)
	}
	defer end()
	ask := o.ask
	if op.Workflow != nil {
		ask = o.run
	}
	start := time.Now()
	r, final, err = ask(ctx, op, events)
	if q.front == nil {
		return r, final, err
	}
	s := gateway.Sample{
		Path: inferPath, Model: served(o.worker), Hive: o.door.hive.Alias, Worker: o.worker.ID, Start: start, Duration: time.Since(start), RequestID: operations.RequestID(ctx),
		Status: http.StatusOK, Stream: op.Stream, Retries: tried, Err: err,
	}
	switch {
	case ctx.Err() != nil:
		s.Status = statusLeft
	case err != nil:
		s.Status = http.StatusBadGateway
		if !final {
			q.front.suspect(o.worker)
		}
	default:
		s.PromptTokens, s.CompletionTokens = r.PromptTokens, r.CompletionTokens
		s.FirstByte = time.Duration(r.FirstTokenSeconds * float64(time.Second))
	}
	q.traffic.Observe(s)
	return r, final, err
}

// offers finds the workers that can answer, best first, or says hive by hive why
// there are none. The views are the caller's to close.
func (q *Queen) offers(ctx context.Context, op operations.Infer) (offers []offer, views []view, err error) {
	if views, err = q.views(ctx, op.Target); err != nil {
		return nil, nil, err
	}
	if offers = q.among(views, op); len(offers) == 0 {
		q.refresh(ctx, views)
		offers = q.among(views, op)
	}
	if len(offers) == 0 {
		return nil, views, noOffer(op, views)
	}
	sortOffers(offers, op)
	return offers, views, nil
}

// among are the workers that can answer; views that have none are told why.
func (q *Queen) among(views []view, op operations.Infer) (offers []offer) {
	for i := range views {
		v := &views[i]
		if v.snapshot == nil && v.err == nil {
			v.err = &operations.Error{Code: operations.CodeUnreachable, Hive: v.hive.Alias, Message: "the hive has not been heard yet"}
		}
		if v.err != nil {
			continue
		}
		found, why := choose(v.snapshot, op)
		found = slices.DeleteFunc(found, func(o offer) bool {
			ending := q.traffic.closing(o.worker) != nil
			if ending {
				why = o.worker.ID + " is being ended"
			}
			return ending
		})
		if len(found) == 0 {
			v.err = errors.New(why)
			continue
		}
		for j := range found {
			found[j].door, found[j].busy, found[j].room = v.door, q.busy(found[j].worker), room(v.snapshot, found[j].worker)
		}
		offers = append(offers, found...)
	}
	return offers
}

func sortOffers(offers []offer, op operations.Infer) {
	h := fnv.New64a()
	_, _ = io.WriteString(h, op.System+"\x00"+op.Prompt[:min(len(op.Prompt), likeBytes)]) // into memory
	like := h.Sum64()
	sort.Slice(offers, func(i, j int) bool {
		a, b := &offers[i], &offers[j]
		return cmp.Or(
			cmp.Compare(a.busy, b.busy), cmp.Compare(b.room, a.room),
			cmp.Compare(mix(like, trafficKey(b.worker)), mix(like, trafficKey(a.worker))),
		) < 0
	})
}

// room is the device memory that is free beside a worker, in whole GiB: less is no
// difference.
func room(s *operations.HiveSnapshot, w operations.WorkerProcess) (free uint64) {
	for _, d := range s.Machine.Devices {
		on := slices.ContainsFunc(w.Devices, func(o operations.WorkerDevice) bool { return o.UUID == d.UUID && o.Index == d.Index })
		if n, known := d.Available(); on && known {
			free += n
		}
	}
	return free >> 30
}

// choose picks the workers of a hive that can answer, or says why none can.
func choose(s *operations.HiveSnapshot, op operations.Infer) (offers []offer, why string) {
	var not []string
	serves := servesIn(s.Models, op.Model)
	for _, w := range s.Workers {
		asked := serves(&w)
		switch {
		case op.WorkerID != "" && w.ID != op.WorkerID && !strings.HasPrefix(w.ID, op.WorkerID):
		case op.Workflow != nil && w.API != catalog.APIComfyUI:
			not = append(not, w.ID+" runs no workflows")
		case op.Workflow == nil && w.API != "" && asked:
			not = append(not, w.ID+" runs workflows only")
		case !asked && (op.Workflow == nil || op.Model != ""):
			not = append(not, fmt.Sprintf("%s serves %s", w.ID, w.Model))
		case op.Device != "" && !onDevice(w, op.Device):
			not = append(not, fmt.Sprintf("%s is not on device %s", w.ID, op.Device))
		case w.State == operations.WorkerFailed && !w.RestartAt.IsZero():
			not = append(not, strings.TrimSuffix(fmt.Sprintf("%s failed and is started again at %s: %s", w.ID, w.RestartAt.Format(time.TimeOnly), w.Problem), ": "))
		case w.State != operations.WorkerReady:
			not = append(not, strings.TrimSuffix(fmt.Sprintf("%s is %s: %s", w.ID, w.State, w.Problem), ": "))
		default:
			offers = append(offers, offer{worker: w})
		}
	}
	switch {
	case len(offers) > 0:
		return offers, ""
	case len(s.Workers) == 0:
		return nil, "no worker runs there"
	case len(not) == 0:
		return nil, fmt.Sprintf("no worker %s runs there", op.WorkerID)
	default:
		return nil, strings.Join(not, ", ")
	}
}

// onDevice reports whether a worker runs on a device, named by index, by vendor
// and index as in "cuda:0", or by UUID; "cpu" is none.
func onDevice(w operations.WorkerProcess, device string) bool {
	if device == "cpu" || device == operations.DeviceNone {
		return len(w.Devices) == 0
	}
	_, index, _ := strings.Cut(device, ":")
	return slices.ContainsFunc(w.Devices, func(d operations.WorkerDevice) bool {
		return d.UUID != "" && d.UUID == device || strconv.Itoa(d.Index) == cmp.Or(index, device)
	})
}

// noOffer says, hive by hive, why nobody can answer.
func noOffer(op operations.Infer, views []view) error {
	var b strings.Builder
	b.WriteString("no ready worker ")
	switch {
	case op.Workflow == nil:
		b.WriteString("serves " + op.Model)
	case op.Model == "":
		b.WriteString("runs workflows")
	default:
		b.WriteString("runs workflows with " + op.Model)
	}
	code, reason := operations.CodeNotFound, ""
	if len(views) == 0 {
		b.WriteString(": the config has no hives")
	}
	unreached := 0
	for _, v := range views {
		var e *operations.Error
		text := "it can now" // somebody else made it so just now
		if v.err != nil {
			text = v.err.Error()
		}
		if errors.As(v.err, &e) {
			text = e.Message
			if e.Code == operations.CodeUnreachable {
				unreached++
				reason = e.Reason
			}
			if e.Code == operations.CodeCanceled {
				return v.err
			}
		}
		fmt.Fprintf(&b, "\n  %s: %s", v.hive.Alias, text)
	}
	if len(views) > 0 && unreached == len(views) {
		if len(views) == 1 {
			return views[0].err
		}
		return &operations.Error{Code: operations.CodeUnreachable, Reason: reason, Message: b.String()}
	}
	return &operations.Error{Code: code, Hive: op.HiveID, Message: b.String()}
}

// chatRequest is a question in OpenAI's dialect, with top_k, which the open
// engines share beyond it:
// https://platform.openai.com/docs/api-reference/chat/create
type chatRequest struct {
	Model         string         `json:"model"`
	Messages      []chatMessage  `json:"messages,omitempty"`
	Prompt        string         `json:"prompt,omitempty"` // of a completion, in place of messages
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

// chatAnswer is an answer, whole or a piece of one, of a chat or a completion.
type chatAnswer struct {
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

// ask asks one worker. final is true once it has said something, or another worker
// would not say anything else.
func (o offer) ask(ctx context.Context, op operations.Infer, events operations.Handler) (r *operations.InferReport, final bool, err error) {
	start := time.Now()
	resp, err := o.post(ctx, "/v1/chat/completions", op)
	if err == nil && speaksNoChat(resp) {
		resp, err = o.post(ctx, "/v1/completions", op)
	}
	if err != nil {
		return nil, false, o.fail(err.Error(), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, !cannotServe(resp), o.fail(fmt.Sprintf("worker %s answered %s: %s", o.worker.ID, resp.Status, complaint(resp.Body)), nil)
	}
	r = &operations.InferReport{Model: op.Model, Hive: o.door.hive.Alias, WorkerID: o.worker.ID}
	var text strings.Builder
	take := func(data []byte) error {
		var a chatAnswer
		if err := json.Unmarshal(data, &a); err != nil {
			return fmt.Errorf("worker %s answered what is no answer: %w", o.worker.ID, err)
		}
		if a.Error != nil {
			final = true
			return fmt.Errorf("worker %s: %s", o.worker.ID, a.Error.Message)
		}
		if a.Usage != nil {
			r.PromptTokens, r.CompletionTokens = a.Usage.PromptTokens, a.Usage.CompletionTokens
		}
		for _, c := range a.Choices {
			piece := c.Delta.Content + c.Message.Content + c.Text
			r.FinishReason = cmp.Or(c.FinishReason, r.FinishReason)
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
		err = eachPiece(resp.Body, take)
	} else {
		var whole []byte
		if whole, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err == nil {
			err = take(whole)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, final, o.fail(err.Error(), err)
	}
	r.Text, r.DurationSeconds = text.String(), time.Since(start).Seconds()
	return r, true, nil
}

func (o offer) fail(message string, err error) error {
	code := operations.CodeFailed
	if errors.Is(err, context.Canceled) {
		code = operations.CodeCanceled
	}
	return &operations.Error{Code: code, Hive: o.door.hive.Alias, Message: message, Err: err}
}

// post sends the question through the hive to the worker.
func (o offer) post(ctx context.Context, path string, op operations.Infer) (*http.Response, error) {
	q := chatRequest{
		Model: cmp.Or(o.worker.Serves, o.worker.Model), MaxTokens: op.MaxTokens, Temperature: op.Temperature, TopP: op.TopP, TopK: op.TopK, Seed: op.Seed, Stream: op.Stream,
	}
	if op.Stream {
		q.StreamOptions = &streamOptions{IncludeUsage: true}
	}
	if strings.HasSuffix(path, "/chat/completions") {
		if op.System != "" {
			q.Messages = append(q.Messages, chatMessage{Role: "system", Content: op.System})
		}
		q.Messages = append(q.Messages, chatMessage{Role: "user", Content: op.Prompt})
	} else {
		q.Prompt = strings.TrimPrefix(op.System+"\n\n"+op.Prompt, "\n\n")
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	to := o.door.client.URL + "/v1/workers/" + url.PathEscape(o.worker.ID) + "/proxy" + path
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+string(o.door.client.Token))
	if id := operations.RequestID(ctx); id != "" {
		req.Header.Set(operations.RequestIDHeader, id)
	}
	resp, err := o.door.client.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking worker %s: %w", o.worker.ID, err)
	}
	return resp, nil
}

// cannotServe recognises answers that another worker need not give: the hive's, in
// the place of a worker that is gone or ending, and those of an engine that is not
// well.
func cannotServe(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return resp.Header.Get("X-Rbee-Error") != ""
}

// speaksNoChat recognises an engine, or a model, that only completes text. The
// answer's body is used up then.
func speaksNoChat(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest, http.StatusNotImplemented:
		if cannotServe(resp) {
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

// complaint is what an answer that is an error says, in one line.
func complaint(body io.Reader) string {
	data, _ := io.ReadAll(io.LimitReader(body, 64<<10)) // what came is told
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

// errCut is a stream that ended before its end.
var errCut = errors.New("the answer was cut off")

// eachPiece reads the server-sent events of an answer until its end mark.
func eachPiece(body io.Reader, take func(data []byte) error) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 64<<10), maxAnswer)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue
		}
		data = bytes.TrimSpace(data)
		if string(data) == "[DONE]" {
			return nil
		}
		if err := take(data); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", errCut, err)
	}
	return errCut
}
