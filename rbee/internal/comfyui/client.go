package comfyui

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Client speaks to one ComfyUI.
type Client struct {
	// HTTP makes the requests; nil is [http.DefaultClient].
	HTTP *http.Client

	// Base is its address, such as http://127.0.0.1:8188; a path in front of its
	// own is kept. Header goes along with each request; may be nil.
	Base   string
	Header http.Header

	// Poll is the time between two questions how far it is, at first; 0 is 250 ms.
	Poll time.Duration

	// Stall is how long a request may bring no byte; 0 is a minute. A graph may run
	// for longer: ComfyUI answers questions meanwhile.
	Stall time.Duration
}

// Progress tells how far a graph is.
type Progress struct {
	Running bool // else it waits
	Ahead   int  // graphs that are done before it
	Elapsed time.Duration
}

// File is something that a graph made.
type File struct {
	Filename, Subfolder, Type string

	Node string // the id of the node that made it
	Kind string // what the node calls it, such as "images"
}

// Result is what came of a graph.
type Result struct {
	ID    string
	Files []File
	Text  []string
}

const (
	maxAnswer  = 16 << 20
	firstPoll  = 250 * time.Millisecond
	slowPoll   = time.Second
	stall      = time.Minute
	patience   = 5 // questions that may fail in a row while a graph runs
	takingBack = 5 * time.Second
)

// Run queues a graph and waits until it has run. When ctx ends, the graph is taken
// out of the queue or interrupted, and the cause returned. progress, if not nil, is
// called from Run's own goroutine.
func (c *Client) Run(ctx context.Context, w Workflow, progress func(Progress)) (*Result, error) {
	start := time.Now()
	id, err := c.queue(ctx, w)
	if err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	failures, lost := 0, 0
	first := cmp.Or(c.Poll, firstPoll)
	pauses := &backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 1.25, MaxInterval: max(slowPoll, first)}
	for {
		r, done, err := c.history(ctx, id)
		if done {
			return r, err
		}
		p, known := Progress{Elapsed: time.Since(start)}, false
		if err == nil {
			known, err = c.place(ctx, id, &p)
		}
		switch {
		case ctx.Err() != nil:
			c.takeBack(ctx, id)
			return nil, context.Cause(ctx)
		case err != nil:
			if failures++; failures >= patience {
				return nil, fmt.Errorf("ComfyUI does not answer any more: %w", err)
			}
		case known:
			failures, lost = 0, 0
			progress(p)
		default:
			// Between the end of a graph and its history a moment may pass.
			if lost++; lost >= patience {
				return nil, errors.New("ComfyUI does not know the workflow any more: it was started anew, or its queue was cleared")
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// queue hands a graph over.
func (c *Client) queue(ctx context.Context, w Workflow) (id string, err error) {
	body, err := json.Marshal(map[string]any{"prompt": w, "client_id": "rbee"})
	if err != nil {
		return "", fmt.Errorf("writing the workflow: %w", err)
	}
	var answer struct {
		ID         string               `json:"prompt_id"`
		Error      json.RawMessage      `json:"error"`
		NodeErrors map[string]nodeError `json:"node_errors"`
	}
	status, err := c.ask(ctx, http.MethodPost, "/prompt", body, &answer)
	switch {
	case err != nil && status == 0:
		return "", fmt.Errorf("queueing the workflow: %w", err)
	case status == http.StatusOK && answer.ID != "":
		return answer.ID, nil
	}
	if text := refusal(answer.Error, answer.NodeErrors); text != "" {
		return "", fmt.Errorf("ComfyUI refuses the workflow: %s", text)
	}
	return "", fmt.Errorf("queueing the workflow: ComfyUI answers %d", status)
}

type nodeError struct {
	Class  string `json:"class_type"`
	Errors []struct {
		Message string `json:"message"`
		Details string `json:"details"`
	} `json:"errors"`
}

// refusal words what is wrong with a graph.
func refusal(general json.RawMessage, nodes map[string]nodeError) string {
	var parts []string
	var e struct {
		Message string `json:"message"`
		Details string `json:"details"`
	}
	var text string
	switch {
	case json.Unmarshal(general, &e) == nil && e.Message != "":
		parts = append(parts, strings.TrimSuffix(e.Message+": "+e.Details, ": "))
	case json.Unmarshal(general, &text) == nil && text != "":
		parts = append(parts, text)
	}
	var of []string
	for id, n := range nodes {
		for _, e := range n.Errors {
			of = append(of, fmt.Sprintf("node %s (%s): %s", id, n.Class, strings.TrimSuffix(e.Message+": "+e.Details, ": ")))
		}
	}
	slices.Sort(of)
	return strings.Join(append(parts, of...), "; ")
}

// history tells what came of a graph, if it has ended.
func (c *Client) history(ctx context.Context, id string) (r *Result, done bool, err error) {
	var answer map[string]struct {
		Outputs map[string]map[string]json.RawMessage `json:"outputs"`
		Status  struct {
			Text     string              `json:"status_str"`
			Messages [][]json.RawMessage `json:"messages"`
		} `json:"status"`
	}
	status, err := c.ask(ctx, http.MethodGet, "/history/"+url.PathEscape(id), nil, &answer)
	if err != nil || status != http.StatusOK {
		return nil, false, cmp.Or(err, fmt.Errorf("asking for the workflow: ComfyUI answers %d", status))
	}
	h, ok := answer[id]
	if !ok {
		return nil, false, nil
	}
	if h.Status.Text == "error" {
		return nil, true, executionError(h.Status.Messages)
	}
	r = &Result{ID: id}
	for node, kinds := range h.Outputs {
		for kind, raw := range kinds {
			r.take(node, kind, raw)
		}
	}
	r.onlyOutputs()
	return r, true, nil
}

func (r *Result) take(node, kind string, raw json.RawMessage) {
	var files []struct {
		Filename  string `json:"filename"`
		Subfolder string `json:"subfolder"`
		Type      string `json:"type"`
	}
	var texts []string
	if json.Unmarshal(raw, &files) == nil {
		for _, f := range files {
			if f.Filename != "" {
				r.Files = append(r.Files, File{f.Filename, f.Subfolder, f.Type, node, kind})
			}
		}
	} else if json.Unmarshal(raw, &texts) == nil {
		r.Text = append(r.Text, texts...)
	}
}

// onlyOutputs leaves out previews, unless there is nothing else.
func (r *Result) onlyOutputs() {
	isPreview := func(f File) bool { return f.Type == "temp" }
	if slices.ContainsFunc(r.Files, func(f File) bool { return !isPreview(f) }) {
		r.Files = slices.DeleteFunc(r.Files, isPreview)
	}
	sort.Slice(r.Files, func(i, j int) bool {
		a, b := &r.Files[i], &r.Files[j]
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Subfolder, b.Subfolder), cmp.Compare(a.Filename, b.Filename)) < 0
	})
}

// executionError words why a graph failed.
func executionError(messages [][]json.RawMessage) error {
	for _, m := range messages {
		var kind string
		var e struct {
			Node    string `json:"node_id"`
			Type    string `json:"node_type"`
			Message string `json:"exception_message"`
		}
		if len(m) < 2 || json.Unmarshal(m[0], &kind) != nil || json.Unmarshal(m[1], &e) != nil {
			continue
		}
		switch kind {
		case "execution_error":
			first, _, _ := strings.Cut(strings.TrimSpace(e.Message), "\n")
			return fmt.Errorf("the workflow failed at node %s (%s): %s", e.Node, e.Type, first)
		case "execution_interrupted":
			return errors.New("the workflow was interrupted on the machine")
		}
	}
	return errors.New("the workflow failed, and ComfyUI does not say why")
}

// place finds a graph among those that wait and run.
func (c *Client) place(ctx context.Context, id string, p *Progress) (known bool, err error) {
	var answer struct {
		Running [][]json.RawMessage `json:"queue_running"`
		Pending [][]json.RawMessage `json:"queue_pending"`
	}
	status, err := c.ask(ctx, http.MethodGet, "/queue", nil, &answer)
	if err != nil || status != http.StatusOK {
		return false, cmp.Or(err, fmt.Errorf("asking for the queue: ComfyUI answers %d", status))
	}
	number := func(item []json.RawMessage) (n float64, itsID string) {
		if len(item) > 1 {
			_ = json.Unmarshal(item[0], &n) // what is no number counts as 0
			_ = json.Unmarshal(item[1], &itsID)
		}
		return n, itsID
	}
	for _, item := range answer.Running {
		if _, its := number(item); its == id {
			p.Running = true
			return true, nil
		}
	}
	own, at := 0.0, false
	for _, item := range answer.Pending {
		if n, its := number(item); its == id {
			own, at = n, true
		}
	}
	p.Ahead = len(answer.Running)
	for _, item := range answer.Pending {
		if n, its := number(item); its != id && n < own {
			p.Ahead++
		}
	}
	return at, nil
}

// takeBack takes a graph out of the queue, or interrupts it if it runs.
func (c *Client) takeBack(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), takingBack)
	defer cancel()
	body, err := json.Marshal(map[string]any{"delete": []string{id}})
	if err != nil {
		return
	}
	_, _ = c.ask(ctx, http.MethodPost, "/queue", body, nil) // the best that can be done
	var p Progress
	if known, err := c.place(ctx, id, &p); err == nil && known && p.Running {
		if body, err = json.Marshal(map[string]string{"prompt_id": id}); err == nil {
			_, _ = c.ask(ctx, http.MethodPost, "/interrupt", body, nil)
		}
	}
}

// ask makes a request and reads the JSON that comes back, whatever the status. A
// status of 0 means that nothing did.
func (c *Client) ask(ctx context.Context, method, what string, body []byte, into any) (status int, err error) {
	resp, err := c.do(ctx, method, what, body)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, err
	}
	if into != nil && len(data) > 0 {
		if err := json.Unmarshal(data, into); err != nil {
			return resp.StatusCode, fmt.Errorf("its answer (%s) is no JSON: %w", resp.Status, err)
		}
	}
	return resp.StatusCode, nil
}

// do makes a request. It fails, and so does reading what comes back, when nothing
// has come for c.Stall.
func (c *Client) do(ctx context.Context, method, what string, body []byte) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.Base, "/")+what, bytes.NewReader(body))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	for name, values := range c.Header {
		req.Header[name] = values
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	limit := cmp.Or(c.Stall, stall)
	w := &watchedBody{ctx: ctx, cancel: cancel, limit: limit}
	w.timer = time.AfterFunc(limit, func() { cancel(silent(limit)) })
	resp, err := cmp.Or(c.HTTP, http.DefaultClient).Do(req)
	if err != nil {
		w.stop()
		return nil, w.why(err)
	}
	w.timer.Reset(limit)
	w.ReadCloser, resp.Body = resp.Body, w
	return resp, nil
}

// silent is the error of a request that nothing came back from for so long.
type silent time.Duration

func (s silent) Error() string { return fmt.Sprintf("nothing came for %s", time.Duration(s)) }

// watchedBody is the body of an answer. Its request ends when no byte of it has
// come for limit.
type watchedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

func (w *watchedBody) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.timer.Reset(w.limit)
	}
	return n, w.why(err)
}

func (w *watchedBody) Close() error {
	w.stop()
	return w.ReadCloser.Close()
}

func (w *watchedBody) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// why is err, or the silence that it came from.
func (w *watchedBody) why(err error) error {
	var s silent
	if err != nil && !errors.Is(err, io.EOF) && errors.As(context.Cause(w.ctx), &s) {
		return s
	}
	return err
}

// Fetch fetches a file of at most limit bytes. name is its name without
// directories, and fit to be a file's name here.
func (c *Client) Fetch(ctx context.Context, f File, limit int64) (name string, data []byte, err error) {
	name = path.Base(path.Clean("/" + strings.ReplaceAll(f.Filename, `\`, "/")))
	if name == "/" || strings.ContainsRune(name, 0) {
		return "", nil, fmt.Errorf("ComfyUI names a file %q", f.Filename)
	}
	query := url.Values{"filename": {f.Filename}, "subfolder": {f.Subfolder}, "type": {f.Type}}
	resp, err := c.do(ctx, http.MethodGet, "/view?"+query.Encode(), nil)
	if err != nil {
		return "", nil, fmt.Errorf("fetching %s: %w", name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("fetching %s: ComfyUI answers %s", name, resp.Status)
	}
	data, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("fetching %s: %w", name, err)
	case resp.ContentLength >= 0 && int64(len(data)) < min(resp.ContentLength, limit):
		return "", nil, fmt.Errorf("fetching %s: %w", name, io.ErrUnexpectedEOF)
	case int64(len(data)) > limit:
		return "", nil, fmt.Errorf("fetching %s: it is longer than the %d bytes that are left for it", name, limit)
	}
	return name, data, nil
}
