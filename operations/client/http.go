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

// maxReport is how many bytes a report may have, and so an answer: what a workflow
// makes is in it, up to 256 MiB, in base64.
const maxReport = 512 << 20

// request is one request to the other side.
type request struct {
	method, path string
	header       http.Header // nil: none of its own
	body         []byte

	// connected becomes true once there was a connection to send it on: from
	// then on it may have been received.
	connected atomic.Bool

	moved func() // called when a piece of the body goes out; may be nil
}

// get fills into with the JSON at path.
func (c *Client) get(ctx context.Context, path string, into any) error {
	return c.exchange(ctx, &request{method: http.MethodGet, path: path}, into)
}

// exchange sends a request and fills into with the JSON of its answer. It may take
// as long as bytes go out or come in.
func (c *Client) exchange(ctx context.Context, r *request, into any) error {
	asking, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(requestTimeout, func() { cancel(errStalled) })
	defer stall.Stop()
	r.moved = func() { stall.Reset(requestTimeout) }
	failed := func(err error) error {
		if errors.Is(context.Cause(asking), errStalled) {
			err = errStalled
		}
		return c.transportError(ctx, r, err)
	}
	resp, err := c.send(asking, r)
	if err != nil {
		return failed(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return c.refusal(resp)
	}
	data, err := io.ReadAll(io.LimitReader(moving{resp.Body, r.moved}, maxReport))
	if err != nil {
		return failed(fmt.Errorf("reading the answer: %w", err))
	}
	if err := json.Unmarshal(data, into); err != nil {
		e := c.noRbee(resp)
		e.Message += ": " + err.Error()
		return e
	}
	return nil
}

var errStalled = errors.New("nothing went out or came in for 30 seconds")

// moving tells of every piece that is read.
type moving struct {
	r     io.Reader
	moved func() // nil: nobody wants to know
}

func (m moving) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.moved != nil {
		m.moved()
	}
	return n, err
}

// send sends a request once. The error may be an [*operations.Error] already.
func (c *Client) send(ctx context.Context, r *request) (*http.Response, error) {
	base, err := url.Parse(c.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonInvalidOperation, Subject: operations.SubjectQueen.Named(c.where()), Message: "the address of rbee is no URL such as http://127.0.0.1:8600"}
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
		r.connected.Store(true)
	}})
	// A plain reader as body, which cannot be sent twice, keeps the transport
	// from repeating a request by itself.
	var body io.Reader
	if r.body != nil {
		body = io.NopCloser(moving{bytes.NewReader(r.body), r.moved})
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

// refusal reads the error out of an answer that is not a success.
func (c *Client) refusal(resp *http.Response) error {
	known := httpjson.ReadError(resp.Body)
	switch {
	case resp.StatusCode == http.StatusUnauthorized && c.Token == "":
		return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonAuth, Subject: operations.SubjectQueen.Named(c.where()), Message: c.where() + " asks for a token"}
	case resp.StatusCode == http.StatusUnauthorized:
		return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonAuth, Subject: operations.SubjectQueen.Named(c.where()), Message: "the token was refused by " + c.where()}
	case known != nil:
		return known
	}
	return c.noRbee(resp)
}

// noRbee is the error of an answer that rbee would not give.
func (c *Client) noRbee(resp *http.Response) *operations.Error {
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		kind = "no content type"
	}
	return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOtherProgram, Subject: operations.SubjectQueen.Named(c.where()), Message: fmt.Sprintf("%s answered %q with %s, which is no rbee", c.where(), resp.Status, kind)}
}

// where is the address of the other side as errors show it.
func (c *Client) where() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return "rbee"
	}
	u.User = nil
	return strings.TrimRight(u.String(), "/")
}

// transportError words the error of a request that was not answered on behalf of ctx.
func (c *Client) transportError(ctx context.Context, r *request, err error) error {
	var known *operations.Error
	if errors.As(err, &known) {
		return known
	}
	if ctx.Err() != nil {
		return canceledError(ctx, nil)
	}
	var around *url.Error // it repeats method and address
	if errors.As(err, &around) {
		err = around.Err
	}
	text, reason := "cannot be reached", transportReason(err)
	if r.connected.Load() && (reason == operations.ReasonFailed || reason == operations.ReasonLost) {
		text, reason = "was lost", operations.ReasonLost
	}
	return &operations.Error{Code: operations.CodeUnreachable, Reason: reason, Subject: operations.SubjectQueen.Named(c.where()), Message: fmt.Sprintf("%s %s: %v", c.where(), text, err), Err: err}
}

// transportReason is [operations.ConnectionReason] for a request that may have been silent too long.
func transportReason(err error) operations.Reason {
	if errors.Is(err, errSilent) || errors.Is(err, errStalled) {
		return operations.ReasonTimeout
	}
	return operations.ConnectionReason(err)
}

// wrapError is err, an [*operations.Error] or another, with other words.
func wrapError(err error, format string, args ...any) *operations.Error {
	out := &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Subject: operations.SubjectOf(err), Err: err}
	var known *operations.Error
	if errors.As(err, &known) {
		out.Code = known.Code
	}
	out.Message = fmt.Sprintf(format, args...)
	return out
}
