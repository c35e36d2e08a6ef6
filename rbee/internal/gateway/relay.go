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

// send passes the request on. The answer it returns is the engine's.
func (x *exchange) send(a *ask, b *Backend) (*http.Response, error) {
	resp, kept, err := x.once(a, b)
	if err != nil && kept && x.ctx.Err() == nil {
		// The other side may just have closed a connection that nobody used: that says
		// nothing about the worker.
		resp, _, err = x.once(a, b)
	}
	if err != nil {
		return nil, x.fault(b, 0, err)
	}
	switch from := resp.Header.Get(hiveError); {
	case from != "":
		err = fmt.Errorf("its hive says: %s", from)
	case resp.StatusCode == http.StatusBadGateway, resp.StatusCode == http.StatusServiceUnavailable, resp.StatusCode == http.StatusGatewayTimeout:
		err = errors.New("it cannot serve now")
	default:
		return resp, nil
	}
	resp.Body.Close()
	return nil, x.fault(b, resp.StatusCode, err)
}

// once sends the request one time. kept: it went over a connection that was there
// before, and not a byte came back.
func (x *exchange) once(a *ask, b *Backend) (resp *http.Response, kept bool, err error) {
	var reused, heard atomic.Bool
	req, err := x.request(httptrace.WithClientTrace(x.ctx, &httptrace.ClientTrace{
		GotConn:              func(c httptrace.GotConnInfo) { reused.Store(c.Reused) },
		GotFirstResponseByte: func() { heard.Store(true) },
	}), a, b)
	if err != nil {
		return nil, false, err
	}
	resp, err = b.Transport.RoundTrip(req)
	return resp, reused.Load() && !heard.Load(), err
}

// request is the request as the worker gets it.
func (x *exchange) request(ctx context.Context, a *ask, b *Backend) (*http.Request, error) {
	url := b.URL + x.sample.Path
	if x.r.URL.RawQuery != "" {
		url += "?" + x.r.URL.RawQuery
	}
	body := func() (io.ReadCloser, error) { return &outgoing{parts: a.parts(b.Name)}, nil }
	first, _ := body()
	req, err := http.NewRequestWithContext(ctx, x.r.Method, url, first) //nolint:gosec // the address of a worker, from its hive
	if err != nil {
		return nil, err
	}
	req.GetBody = body
	for _, part := range a.parts(b.Name) {
		req.ContentLength += int64(len(part))
	}
	copyHeader(req.Header, x.r.Header)
	for _, name := range []string{"Authorization", "X-Api-Key", "Cookie", "Host", "Expect", "Content-Length"} {
		delete(req.Header, name)
	}
	// Which page asks is this server's to judge; an engine would refuse those that it
	// does not know.
	for name := range req.Header {
		if name == "Origin" || name == "Referer" || strings.HasPrefix(name, "Sec-Fetch-") {
			delete(req.Header, name)
		}
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header["User-Agent"] = []string{""} // none, and not the transport's
	}
	req.Header[requestID] = []string{x.sample.RequestID}
	for name, values := range b.Header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	return req, nil
}

// relay passes an answer on as it comes. Nothing is sent before the first piece of
// the body is there: until then another worker can be asked.
func (x *exchange) relay(resp *http.Response, b *Backend) error {
	events := strings.HasPrefix(resp.Header.Get("Content-Type"), sse.ContentType)
	plain := resp.Header.Get("Content-Encoding") == "" // can be read here
	ends := events && plain && resp.StatusCode == http.StatusOK &&
		(x.sample.Path == "/v1/chat/completions" || x.sample.Path == "/v1/completions")
	x.sample.Stream = x.sample.Stream || events
	x.flush = events || resp.ContentLength < 0

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
	if n == 0 && err != nil && (ends || err != io.EOF) {
		return x.fault(b, 0, cut(err))
	}
	for name := range resp.Header { // likewise what pages may do with the answer
		if name == "Set-Cookie" || name == "Vary" || strings.HasPrefix(name, "Access-Control-") {
			delete(resp.Header, name)
		}
	}
	copyHeader(x.w.Header(), resp.Header)
	x.w.Header()[requestID] = []string{x.sample.RequestID}
	if events {
		x.w.Header().Del("Content-Length") // leaves room for an error at the end
	}
	x.status(resp.StatusCode)
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
	if plain {
		x.sample.PromptTokens, x.sample.CompletionTokens = usage(end.kept)
	}
	if err != io.EOF || ends && !done(end.kept) {
		return x.fault(b, 0, cut(err))
	}
	return x.push()
}

// cut says how a body ended that should not have ended there.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("its stream ended without [DONE]: %w", io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("reading its answer: %w", err)
}

// breakOff ends an answer that cannot be finished so that nobody takes it for whole.
func (x *exchange) breakOff(failed *WorkerError) {
	h := x.w.Header()
	if h.Get("Content-Encoding") != "" || !strings.HasPrefix(h.Get("Content-Type"), sse.ContentType) {
		panic(http.ErrAbortHandler)
	}
	no := refusalf(http.StatusBadGateway, "worker_failed", "%s: the answer is not complete", failed.brief())
	// Empty lines end an event that was begun.
	if err := x.write(sse.Append([]byte("\n\n"), sse.Event{Data: no.json(false)})); err != nil {
		x.leave(err)
	}
}

// reply answers with JSON.
func (x *exchange) reply(status int, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.status(status)
	err := x.write(body)
	if err == nil {
		err = x.push()
	}
	if err != nil {
		x.leave(err)
	}
}

// status begins the answer.
func (x *exchange) status(code int) {
	x.began = true
	x.letGo()
	x.sample.Status = code
	x.w.WriteHeader(code)
}

// write sends a piece of the answer. A client has so long to make room for it.
func (x *exchange) write(p []byte) error {
	_ = x.control.SetWriteDeadline(time.Now().Add(x.WriteTimeout)) // where it can be set
	n, err := x.w.Write(p)
	x.sample.BytesOut += int64(n)
	if err != nil && !errors.Is(err, http.ErrBodyNotAllowed) { // to HEAD
		return fmt.Errorf("writing to the client: %w", err)
	}
	if x.flush {
		return x.push()
	}
	return nil
}

// push sends what was written.
func (x *exchange) push() error {
	if err := x.control.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("writing to the client: %w", err)
	}
	return nil
}

// copyHeader copies what is not of one connection alone.
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

// tailSize is how much of an answer is looked at, at least.
const tailSize = 4 << 10

// tail keeps the last bytes of what it is given.
type tail struct{ kept []byte }

func (t *tail) add(p []byte) {
	if len(p) > tailSize {
		t.kept, p = t.kept[:0], p[len(p)-tailSize:]
	}
	if len(t.kept)+len(p) > 2*tailSize {
		t.kept = t.kept[:copy(t.kept, t.kept[len(t.kept)-tailSize:])]
	}
	t.kept = append(t.kept, p...)
}

// done reports whether the last event says that the stream is done.
func done(end []byte) bool {
	last, _ := sse.LastData(end)
	return bytes.HasPrefix(last, []byte("[DONE]"))
}

// usage finds the tokens that an engine counted: the last usage that is not null.
// In what a model said the quotes would be escaped.
func usage(end []byte) (prompt, completion int) {
	word := []byte(`"usage"`)
	for at := bytes.LastIndex(end, word); at >= 0; at = bytes.LastIndex(end[:at], word) {
		i := space(end, at+len(word))
		if i >= len(end) || end[i] != ':' {
			continue
		}
		object(end, i+1, func(key []byte, v value) bool {
			n, err := strconv.Atoi(string(v.of(end)))
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
