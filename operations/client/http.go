package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/httpjson"
)

// maxReportBytes limits the size of a report, and therefore of a response. A report can
// contain 256 MiB of workflow output in base64.
const maxReportBytes = 512 << 20

// request is one request to the server.
type request struct {
	method, path string
	header       http.Header // may be nil
	body         []byte

	// connected is set when a connection for the request is available. From then on, the
	// server may have received the request.
	connected atomic.Bool

	onProgress func() // called after a part of the body was sent or received; may be nil
}

// get decodes the JSON response of a GET request into v.
func (c *Client) get(ctx context.Context, path string, v any) error {
	return c.exchange(ctx, &request{method: http.MethodGet, path: path}, v)
}

// exchange sends a request and decodes the JSON response into v. The timeout restarts
// whenever data is sent or received.
func (c *Client) exchange(ctx context.Context, r *request, v any) error {
	reqCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(requestTimeout, func() { cancel(errStalled) })
	defer timer.Stop()
	r.onProgress = func() { timer.Reset(requestTimeout) }
	requestError := func(err error) error {
		if errors.Is(context.Cause(reqCtx), errStalled) {
			err = errStalled
		}
		return c.transportError(ctx, r, err)
	}
	resp, err := c.send(reqCtx, r)
	if err != nil {
		return requestError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return c.responseError(resp)
	}
	data, err := io.ReadAll(io.LimitReader(progressReader{resp.Body, r.onProgress}, maxReportBytes))
	if err != nil {
		return requestError(fmt.Errorf("cannot read the response: %w", err))
	}
	if err := json.Unmarshal(data, v); err != nil {
		e := c.notRbeeError(resp)
		e.Message += ": " + err.Error()
		return e
	}
	return nil
}

var errStalled = errors.New("no data sent or received for 30 seconds")

// progressReader calls onProgress after each read.
type progressReader struct {
	r          io.Reader
	onProgress func() // may be nil
}

func (p progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if p.onProgress != nil {
		p.onProgress()
	}
	return n, err
}

// send sends a request once. The error can already be an [*operations.Error].
func (c *Client) send(ctx context.Context, r *request) (*http.Response, error) {
	base, err := url.Parse(c.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonInvalidOperation, Subject: operations.SubjectQueen.WithName(c.address()), Message: "invalid URL of rbee: want one such as http://127.0.0.1:8600"}
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		r.connected.Store(true)
	}})
	// Without GetBody, which net/http cannot set for this type of body, the transport does
	// not repeat the request.
	var body io.Reader
	if r.body != nil {
		body = io.NopCloser(progressReader{bytes.NewReader(r.body), r.onProgress})
	}
	req, err := http.NewRequestWithContext(ctx, r.method, strings.TrimRight(c.URL, "/")+r.path, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = int64(len(r.body))
	if r.header != nil {
		req.Header = r.header.Clone()
	}
	if id := RequestID(ctx); id != "" {
		req.Header.Set(RequestIDHeader, id)
	}
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+string(c.Token))
	}
	client := c.HTTP
	if client == nil {
		client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return client.Do(req)
}

// responseError returns the error of an unsuccessful response.
func (c *Client) responseError(resp *http.Response) error {
	opErr := httpjson.ReadError(resp.Body)
	switch {
	case resp.StatusCode == http.StatusUnauthorized && c.Token == "":
		return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonAuth, Subject: operations.SubjectQueen.WithName(c.address()), Message: c.address() + " requires a token"}
	case resp.StatusCode == http.StatusUnauthorized:
		return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonAuth, Subject: operations.SubjectQueen.WithName(c.address()), Message: c.address() + " rejected the token"}
	case opErr != nil:
		return opErr
	}
	return c.notRbeeError(resp)
}

// notRbeeError returns the error for a response that is not from rbee.
func (c *Client) notRbeeError(resp *http.Response) *operations.Error {
	mediaType, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		mediaType = "no content type"
	}
	return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotRbee, Subject: operations.SubjectQueen.WithName(c.address()), Message: fmt.Sprintf("%s is not rbee: it responded with %q and %s", c.address(), resp.Status, mediaType)}
}

// address returns the URL of the server without credentials, for error messages.
func (c *Client) address() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "rbee"
	}
	u.User = nil
	return strings.TrimRight(u.String(), "/")
}

// transportError returns the error of a request without a response. If ctx has ended, the
// code is [operations.CodeCanceled].
func (c *Client) transportError(ctx context.Context, r *request, err error) error {
	var opErr *operations.Error
	if errors.As(err, &opErr) {
		return opErr
	}
	if ctx.Err() != nil {
		return canceledError(ctx, nil)
	}
	var urlErr *url.Error // its text repeats the method and the URL
	if errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	text, reason := "cannot reach", transportReason(err)
	if r.connected.Load() && (reason == operations.ReasonFailed || reason == operations.ReasonLost) {
		text, reason = "lost connection to", operations.ReasonLost
	}
	return &operations.Error{Code: operations.CodeUnreachable, Reason: reason, Subject: operations.SubjectQueen.WithName(c.address()), Message: fmt.Sprintf("%s %s: %v", text, c.address(), err), Err: err}
}

// transportReason works like [operations.ConnectionReason] but also classifies the timeouts of
// this package.
func transportReason(err error) operations.Reason {
	if errors.Is(err, errStreamIdle) || errors.Is(err, errStalled) {
		return operations.ReasonTimeout
	}
	return operations.ConnectionReason(err)
}

// wrapError returns an error with the code, reason and subject of err, and a new message.
func wrapError(err error, format string, args ...any) *operations.Error {
	out := &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Subject: operations.SubjectOf(err), Err: err}
	var opErr *operations.Error
	if errors.As(err, &opErr) {
		out.Code = opErr.Code
	}
	out.Message = fmt.Sprintf(format, args...)
	return out
}
