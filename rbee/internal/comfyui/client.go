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

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// Client sends requests to one ComfyUI server.
type Client struct {
	// HTTP sends the requests; nil means [http.DefaultClient].
	HTTP *http.Client

	// BaseURL is the URL of the server, such as http://127.0.0.1:8188. It may have a path.
	BaseURL string

	// Header is sent with each request; it may be nil.
	Header http.Header

	// PollInterval is the initial interval between polls; 0 means 250 ms. The interval
	// grows to at most one second.
	PollInterval time.Duration

	// StallTimeout is the maximum time without data during one request; 0 means a
	// minute. A workflow may run longer, because ComfyUI responds to polls while it runs.
	StallTimeout time.Duration
}

// Progress is the progress of a workflow.
type Progress struct {
	Running        bool          // false while the workflow waits in the queue
	WorkflowsAhead int           // running and queued workflows before this one
	Elapsed        time.Duration // since the call of [Client.Run]
}

// File identifies an output file of a workflow.
type File struct {
	Filename, Subfolder, Type string

	Node string // ID of the node that wrote the file
	Kind string // key of the node's output, such as "images"
}

// Result is the output of a workflow.
type Result struct {
	ID    string
	Files []File
	Text  []string
}

const (
	maxResponse         = 16 << 20               // bytes of a JSON response
	defaultPollInterval = 250 * time.Millisecond // time between the first two polls
	maxPollInterval     = time.Second            // maximum time between two polls
	defaultStallTimeout = time.Minute            // time without an answer from ComfyUI
	maxFailures         = 5                      // consecutive polls that fail or do not find the workflow
	cancelTimeout       = 5 * time.Second        // for the request that cancels a workflow
)

// Run queues a workflow and waits until it has finished. If ctx ends, Run cancels the
// workflow and returns the cause. Run calls progress, if not nil, after each poll, in the
// caller's goroutine.
func (c *Client) Run(ctx context.Context, w Workflow, progress func(Progress)) (*Result, error) {
	start := time.Now()
	id, err := c.enqueue(ctx, w)
	if err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	failures, missing := 0, 0
	first := cmp.Or(c.PollInterval, defaultPollInterval)
	delays := &backoff.ExponentialBackOff{InitialInterval: first, Multiplier: 1.25, MaxInterval: max(maxPollInterval, first)}
	for {
		r, done, err := c.history(ctx, id)
		if done {
			return r, err
		}
		p, known := Progress{Elapsed: time.Since(start)}, false
		if err == nil {
			known, err = c.queueStatus(ctx, id, &p)
		}
		switch {
		case ctx.Err() != nil:
			c.cancelRun(ctx, id)
			return nil, context.Cause(ctx)
		case err != nil:
			if failures++; failures >= maxFailures {
				return nil, fmt.Errorf("ComfyUI stopped responding: %w", err)
			}
		case known:
			failures, missing = 0, 0
			progress(p)
		default:
			// A finished workflow is briefly neither in the queue nor in the history.
			if missing++; missing >= maxFailures {
				return nil, errors.New("ComfyUI lost the workflow: it was restarted, or its queue was cleared")
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(delays.NextBackOff()):
		}
	}
}

// enqueue queues a workflow and returns its ID.
func (c *Client) enqueue(ctx context.Context, w Workflow) (id string, err error) {
	body, err := json.Marshal(map[string]any{"prompt": w, "client_id": "rbee"})
	if err != nil {
		return "", fmt.Errorf("cannot encode the workflow: %w", err)
	}
	var response struct {
		ID         string               `json:"prompt_id"`
		Error      json.RawMessage      `json:"error"`
		NodeErrors map[string]nodeError `json:"node_errors"`
	}
	status, err := c.request(ctx, http.MethodPost, "/prompt", body, &response)
	switch {
	case err != nil && status == 0:
		return "", fmt.Errorf("cannot queue the workflow: %w", err)
	case status == http.StatusOK && response.ID != "":
		return response.ID, nil
	}
	if text := describeRejection(response.Error, response.NodeErrors); text != "" {
		return "", fmt.Errorf("ComfyUI rejected the workflow: %s", text)
	}
	return "", fmt.Errorf("cannot queue the workflow: status %d", status)
}

type nodeError struct {
	Class  string `json:"class_type"`
	Errors []struct {
		Message string `json:"message"`
		Details string `json:"details"`
	} `json:"errors"`
}

// describeRejection returns a description of the errors in the response to a rejected
// workflow, or "" if the response has none.
func describeRejection(general json.RawMessage, nodes map[string]nodeError) string {
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
	var nodeParts []string
	for id, n := range nodes {
		for _, e := range n.Errors {
			nodeParts = append(nodeParts, fmt.Sprintf("node %s (%s): %s", id, n.Class, strings.TrimSuffix(e.Message+": "+e.Details, ": ")))
		}
	}
	slices.Sort(nodeParts)
	return strings.Join(append(parts, nodeParts...), "; ")
}

// history returns the result of a workflow; done is false if the workflow has not finished.
func (c *Client) history(ctx context.Context, id string) (r *Result, done bool, err error) {
	var response map[string]struct {
		Outputs map[string]map[string]json.RawMessage `json:"outputs"`
		Status  struct {
			Text     string              `json:"status_str"`
			Messages [][]json.RawMessage `json:"messages"`
		} `json:"status"`
	}
	status, err := c.request(ctx, http.MethodGet, "/history/"+url.PathEscape(id), nil, &response)
	if err != nil || status != http.StatusOK {
		return nil, false, cmp.Or(err, fmt.Errorf("cannot get the workflow's history: status %d", status))
	}
	h, ok := response[id]
	if !ok {
		return nil, false, nil
	}
	if h.Status.Text == "error" {
		return nil, true, executionError(h.Status.Messages)
	}
	r = &Result{ID: id}
	for node, kinds := range h.Outputs {
		for kind, raw := range kinds {
			r.addOutput(node, kind, raw)
		}
	}
	r.removePreviews()
	return r, true, nil
}

// addOutput adds an output of a node: a list of files or of texts.
func (r *Result) addOutput(node, kind string, raw json.RawMessage) {
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

// removePreviews removes previews, unless all files are previews, and sorts the files.
func (r *Result) removePreviews() {
	isPreview := func(f File) bool { return f.Type == "temp" }
	if slices.ContainsFunc(r.Files, func(f File) bool { return !isPreview(f) }) {
		r.Files = slices.DeleteFunc(r.Files, isPreview)
	}
	sort.Slice(r.Files, func(i, j int) bool {
		a, b := &r.Files[i], &r.Files[j]
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Subfolder, b.Subfolder), cmp.Compare(a.Filename, b.Filename)) < 0
	})
}

// executionError returns the error of a failed workflow.
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
			return errors.New("the workflow was interrupted in ComfyUI")
		}
	}
	return errors.New("the workflow failed; ComfyUI reported no reason")
}

// queueStatus finds a workflow in the queue and sets its progress. known is false if the
// workflow is not in the queue.
func (c *Client) queueStatus(ctx context.Context, id string, p *Progress) (known bool, err error) {
	var response struct {
		Running [][]json.RawMessage `json:"queue_running"`
		Pending [][]json.RawMessage `json:"queue_pending"`
	}
	status, err := c.request(ctx, http.MethodGet, "/queue", nil, &response)
	if err != nil || status != http.StatusOK {
		return false, cmp.Or(err, fmt.Errorf("cannot get the queue: status %d", status))
	}
	parseItem := func(item []json.RawMessage) (n float64, promptID string) {
		if len(item) > 1 {
			_ = json.Unmarshal(item[0], &n) // 0 on error
			_ = json.Unmarshal(item[1], &promptID)
		}
		return n, promptID
	}
	for _, item := range response.Running {
		if _, promptID := parseItem(item); promptID == id {
			p.Running = true
			return true, nil
		}
	}
	position := 0.0
	for _, item := range response.Pending {
		if n, promptID := parseItem(item); promptID == id {
			position, known = n, true
		}
	}
	p.WorkflowsAhead = len(response.Running)
	for _, item := range response.Pending {
		if n, promptID := parseItem(item); promptID != id && n < position {
			p.WorkflowsAhead++
		}
	}
	return known, nil
}

// cancelRun removes a workflow from the queue, or interrupts the workflow if it is running.
func (c *Client) cancelRun(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	body, err := json.Marshal(map[string]any{"delete": []string{id}})
	if err != nil {
		return
	}
	_, _ = c.request(ctx, http.MethodPost, "/queue", body, nil) // best effort
	var p Progress
	if known, err := c.queueStatus(ctx, id, &p); err == nil && known && p.Running {
		if body, err = json.Marshal(map[string]string{"prompt_id": id}); err == nil {
			_, _ = c.request(ctx, http.MethodPost, "/interrupt", body, nil)
		}
	}
}

// request sends a request and decodes the JSON response, with any status, into v, if v is
// not nil. The returned status is 0 if no response was received.
func (c *Client) request(ctx context.Context, method, endpoint string, body []byte, v any) (status int, err error) {
	resp, err := c.do(ctx, method, endpoint, body)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse))
	if err != nil {
		return 0, err
	}
	if v != nil && len(data) > 0 {
		if err := json.Unmarshal(data, v); err != nil {
			return resp.StatusCode, fmt.Errorf("invalid JSON response (status %s): %w", resp.Status, err)
		}
	}
	return resp.StatusCode, nil
}

// do sends a request. If no data arrives for c.StallTimeout, do or the next read of the
// response body returns an error.
func (c *Client) do(ctx context.Context, method, endpoint string, body []byte) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.BaseURL, "/")+endpoint, bytes.NewReader(body))
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
	limit := cmp.Or(c.StallTimeout, defaultStallTimeout)
	w := &watchedBody{ctx: ctx, cancel: cancel, limit: limit}
	w.timer = time.AfterFunc(limit, func() { cancel(stallError(limit)) })
	resp, err := cmp.Or(c.HTTP, http.DefaultClient).Do(req)
	if err != nil {
		w.stop()
		return nil, w.causeOf(err)
	}
	w.timer.Reset(limit)
	w.ReadCloser, resp.Body = resp.Body, w
	return resp, nil
}

// stallError reports that no data was received for the given time.
type stallError time.Duration

func (s stallError) Error() string { return fmt.Sprintf("no data received for %s", time.Duration(s)) }

// watchedBody is a response body. It cancels its request when no data arrives for limit.
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
	return n, w.causeOf(err)
}

func (w *watchedBody) Close() error {
	w.stop()
	return w.ReadCloser.Close()
}

func (w *watchedBody) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// causeOf returns the stallError that caused err, or else err.
func (w *watchedBody) causeOf(err error) error {
	var s stallError
	if err != nil && !errors.Is(err, io.EOF) && errors.As(context.Cause(w.ctx), &s) {
		return s
	}
	return err
}

// Fetch downloads a file of at most limit bytes. name is the base name of the file, which is
// safe to use as a local file name.
func (c *Client) Fetch(ctx context.Context, f File, limit int64) (name string, data []byte, err error) {
	name = path.Base(path.Clean("/" + strings.ReplaceAll(f.Filename, `\`, "/")))
	if name == "/" || strings.ContainsRune(name, 0) {
		return "", nil, fmt.Errorf("invalid file name %q from ComfyUI", f.Filename)
	}
	query := url.Values{"filename": {f.Filename}, "subfolder": {f.Subfolder}, "type": {f.Type}}
	resp, err := c.do(ctx, http.MethodGet, "/view?"+query.Encode(), nil)
	if err != nil {
		return "", nil, fmt.Errorf("cannot fetch %s: %w", name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("cannot fetch %s: status %s", name, resp.Status)
	}
	data, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("cannot fetch %s: %w", name, err)
	case resp.ContentLength >= 0 && int64(len(data)) < min(resp.ContentLength, limit):
		return "", nil, fmt.Errorf("cannot fetch %s: %w", name, io.ErrUnexpectedEOF)
	case int64(len(data)) > limit:
		return "", nil, fmt.Errorf("cannot fetch %s: the file exceeds the limit of %s", name, bytesize.Format(limit))
	}
	return name, data, nil
}
