package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rbee-keeper/rbee/operations/sse"
)

// send forwards the request and returns the engine's response.
func (x *exchange) send(r *apiRequest, b *Backend) (*http.Response, error) {
	resp, stale, err := x.roundTrip(r, b)
	if err != nil && stale && x.ctx.Err() == nil {
		// The worker may just have closed the idle connection, which is not a failure.
		resp, _, err = x.roundTrip(r, b)
	}
	if err != nil {
		return nil, x.workerError(b, 0, err)
	}
	switch hiveErr := resp.Header.Get(hiveErrorHeader); {
	case hiveErr != "":
		err = fmt.Errorf("hive error: %s", hiveErr)
	case resp.StatusCode == http.StatusBadGateway, resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusGatewayTimeout:
		err = errors.New("worker is unavailable")
	default:
		return resp, nil
	}
	resp.Body.Close()
	return nil, x.workerError(b, resp.StatusCode, err)
}

// roundTrip sends the request once. stale reports whether it used a kept-alive connection
// and received no byte.
func (x *exchange) roundTrip(r *apiRequest, b *Backend) (resp *http.Response, stale bool, err error) {
	var reused, received atomic.Bool
	req, err := x.newRequest(httptrace.WithClientTrace(x.ctx, &httptrace.ClientTrace{
		GotConn:              func(c httptrace.GotConnInfo) { reused.Store(c.Reused) },
		GotFirstResponseByte: func() { received.Store(true) },
	}), r, b)
	if err != nil {
		return nil, false, err
	}
	resp, err = b.Transport.RoundTrip(req)
	return resp, reused.Load() && !received.Load(), err
}

// newRequest returns the request to the worker.
func (x *exchange) newRequest(ctx context.Context, r *apiRequest, b *Backend) (*http.Request, error) {
	url := b.URL + x.sample.Path
	if x.r.URL.RawQuery != "" {
		url += "?" + x.r.URL.RawQuery
	}
	body := func() (io.ReadCloser, error) { return &workerBody{parts: r.bodyParts(b.Name)}, nil }
	first, _ := body()
	req, err := http.NewRequestWithContext(ctx, x.r.Method, url, first) //nolint:gosec // the URL comes from the hive of the worker
	if err != nil {
		return nil, err
	}
	req.GetBody = body
	for _, part := range r.bodyParts(b.Name) {
		req.ContentLength += int64(len(part))
	}
	copyHeader(req.Header, x.r.Header)
	for _, name := range []string{"Authorization", "X-Api-Key", "Cookie", "Host", "Expect", "Content-Length"} {
		delete(req.Header, name)
	}
	// The access package checks the origin of requests. An engine would reject
	// unknown origins.
	for name := range req.Header {
		if name == "Origin" || name == "Referer" || strings.HasPrefix(name, "Sec-Fetch-") {
			delete(req.Header, name)
		}
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = []string{""} // suppresses the default of the transport
	}
	req.Header[requestIDHeader] = []string{x.sample.RequestID}
	for name, values := range b.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	return req, nil
}

// relay forwards a response as it arrives. It writes nothing before the first bytes of
// the body, so that the request can still be retried on another worker.
func (x *exchange) relay(resp *http.Response, b *Backend) error {
	events := strings.HasPrefix(resp.Header.Get("Content-Type"), sse.ContentType)
	uncompressed := resp.Header.Get("Content-Encoding") == "" // the gateway can parse the content
	needsDone := events && uncompressed && resp.StatusCode == http.StatusOK &&
		(x.sample.Path == "/v1/chat/completions" || x.sample.Path == "/v1/completions")
	x.sample.Stream = x.sample.Stream || events
	x.autoFlush = events || resp.ContentLength < 0

	var buf []byte
	if events {
		buf = make([]byte, eventBuffer)
	} else {
		pooled := x.buffers.Get().(*[bufferSize]byte)
		defer x.buffers.Put(pooled)
		buf = pooled[:]
	}
	var end tail
	n, err := resp.Body.Read(buf)
	x.sample.FirstByte = time.Since(x.sample.Start)
	if n == 0 && err != nil && (needsDone || err != io.EOF) {
		return x.workerError(b, 0, truncatedError(err))
	}
	for name := range resp.Header { // the gateway controls cookies and CORS, not the engine
		if name == "Set-Cookie" || name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			delete(resp.Header, name)
		}
	}
	copyHeader(x.w.Header(), resp.Header)
	x.w.Header()[requestIDHeader] = []string{x.sample.RequestID}
	if events {
		x.w.Header().Del("Content-Length") // an error event may be appended
	}
	x.writeHeader(resp.StatusCode)
	for {
		if n > 0 {
			end.add(buf[:n])
			if err := x.write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			break
		}
		n, err = resp.Body.Read(buf)
	}
	if uncompressed {
		x.sample.PromptTokens, x.sample.CompletionTokens = usage(end.buf)
	}
	if err != io.EOF || needsDone && !hasDone(end.buf) {
		return x.workerError(b, 0, truncatedError(err))
	}
	return x.flushNow()
}

// truncatedError returns the error for a response body that ended early.
func truncatedError(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("stream ended without [DONE]: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("cannot read the response: %w", err)
}

// writeStreamError ends an incomplete response in a way that the client can detect.
func (x *exchange) writeStreamError(failed *WorkerError) {
	h := x.w.Header()
	if h.Get("Content-Encoding") != "" || !strings.HasPrefix(h.Get("Content-Type"), sse.ContentType) {
		panic(http.ErrAbortHandler)
	}
	apiErr := apiErrorf(http.StatusBadGateway, "worker_failed", "%s: the response is incomplete", failed.summary())
	// Empty lines end an incomplete event.
	if err := x.write(sse.Append([]byte("\n\n"), sse.Event{Data: apiErr.json(false)})); err != nil {
		x.abort(err)
	}
}

// writeJSON responds with a JSON body.
func (x *exchange) writeJSON(status int, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.writeHeader(status)
	err := x.write(body)
	if err == nil {
		err = x.flushNow()
	}
	if err != nil {
		x.abort(err)
	}
}

// writeHeader starts the response.
func (x *exchange) writeHeader(code int) {
	x.headerSent = true
	x.releaseBody()
	x.sample.Status = code
	x.w.WriteHeader(code)
}

// write sends a piece of the response. The client must read it within WriteTimeout.
func (x *exchange) write(p []byte) error {
	_ = x.control.SetWriteDeadline(time.Now().Add(x.WriteTimeout)) // ignored if not supported
	n, err := x.w.Write(p)
	x.sample.BytesOut += int64(n)
	if err != nil && !errors.Is(err, http.ErrBodyNotAllowed) { // the response to HEAD
		return fmt.Errorf("cannot write to the client: %w", err)
	}
	if x.autoFlush {
		return x.flushNow()
	}
	return nil
}

// flushNow sends buffered data.
func (x *exchange) flushNow() error {
	if err := x.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("cannot write to the client: %w", err)
	}
	return nil
}

// copyHeader copies headers, except hop-by-hop headers.
func copyHeader(to, from http.Header) {
	for name, values := range from {
		switch name {
		case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
			"Te", "Trailer", "Transfer-Encoding", "Upgrade":
			continue
		}
		to[name] = values
	}
	for _, list := range from["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			to.Del(strings.TrimSpace(name))
		}
	}
}

// tailSize is the minimum number of bytes at the end of a response that are inspected.
const tailSize = 4 << 10

// tail keeps the last bytes of a stream.
type tail struct{ buf []byte }

func (t *tail) add(p []byte) {
	if len(p) > tailSize {
		t.buf, p = t.buf[:0], p[len(p)-tailSize:]
	}
	if len(t.buf)+len(p) > 2*tailSize {
		t.buf = t.buf[:copy(t.buf, t.buf[len(t.buf)-tailSize:])]
	}
	t.buf = append(t.buf, p...)
}

// hasDone reports whether the last event is [DONE].
func hasDone(end []byte) bool {
	last, _ := sse.LastData(end)
	return bytes.HasPrefix(last, []byte("[DONE]"))
}

// usage returns the token counts of the last usage object that is not null. Generated
// text does not match, because its quotes are escaped.
func usage(end []byte) (prompt, completion int) {
	usageKey := []byte(`"usage"`)
	for at := bytes.LastIndex(end, usageKey); at >= 0; at = bytes.LastIndex(end[:at], usageKey) {
		i := skipSpace(end, at+len(usageKey))
		if i >= len(end) || end[i] != ':' {
			continue
		}
		scanObject(end, i+1, func(key []byte, v span) bool {
			n, err := strconv.Atoi(string(v.bytes(end)))
			if err != nil || n < 0 {
				return true
			}
			switch string(key) {
			case "prompt_tokens", "input_tokens":
				prompt = n
			case "completion_tokens", "output_tokens":
				completion = n
			}
			return true
		})
		if prompt > 0 || completion > 0 {
			return prompt, completion
		}
	}
	return 0, 0
}
