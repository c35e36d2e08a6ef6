package fetch

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

const (
	// stallTimeout is the default of [Client.Stall].
	stallTimeout = 60 * time.Second

	// dialTimeout limits the time to connect to a server, and the time of its TLS
	// handshake.
	dialTimeout = 30 * time.Second

	// MaxResponse is the maximum size of an API response, in bytes.
	MaxResponse = 64 << 20
)

// Client sends requests to servers and downloads files. It sends credentials only to the
// servers that they belong to. The zero value has no credentials. A Client is safe for
// concurrent use.
type Client struct {
	HTTP  *http.Client // nil means http.DefaultClient
	API   string       // base URL of the release API; empty for none
	Token string       // access token for the release API; may be empty

	Downloads string // base URL of a mirror of https://github.com, may include user and password; empty for none

	Index string // base URL of the Python package index, may include user and password
	Torch string // base URL of a mirror of the PyTorch indexes, may include user and password; empty for none

	Hub      string            // base URL of the model hub; empty for none
	HubToken operations.Secret // access token for the model hub; may be empty

	UserAgent string        // of all requests; empty means "rbee"
	ErrorVerb string        // verb in the errors of downloads, see [Client.Get]; empty means "fetch"
	Stall     time.Duration // maximum time without data from the server; 0 means 60 seconds
}

// NewHTTPClient returns an HTTP client for large files. It uses the proxies of the
// environment and does not decompress responses. It uses only HTTP/1.1, because HTTP/2 would
// send all requests over one connection.
func NewHTTPClient() *http.Client {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: stallTimeout,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   32,
		DisableCompression:    true,
		ReadBufferSize:        128 << 10,
		Protocols:             new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return &http.Client{Transport: t}
}

// do sends a request with the credentials for its URL, and for the URL of each redirect.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	client := *cmp.Or(c.HTTP, http.DefaultClient)
	wrapped := client.CheckRedirect
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		c.authorize(req)
		req.Header.Del("Referer") // the query of the redirecting URL may be secret
		if wrapped != nil {
			return wrapped(req, via)
		}
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
	req.Header.Set("User-Agent", cmp.Or(c.UserAgent, "rbee"))
	c.authorize(req)
	return client.Do(req)
}

// authorize sets the Authorization header for the URL of the request, and removes any other.
func (c *Client) authorize(req *http.Request) {
	req.Header.Del("Authorization")
	if auth := c.credentials(req.URL); auth != "" {
		req.Header.Set("Authorization", auth)
	}
}

// credentials returns the Authorization header for a URL, or an empty string for none.
func (c *Client) credentials(u *url.URL) string {
	if c.Token != "" && c.isAPI(u) {
		return "Bearer " + c.Token
	}
	if auth := basicAuth(c.Downloads); auth != "" && isBelow(u, c.Downloads, true) {
		return auth
	}
	if c.HubToken != "" && isBelow(u, c.Hub, false) {
		return "Bearer " + string(c.HubToken)
	}
	for _, base := range []string{c.Index, c.Torch} {
		if auth := basicAuth(base); auth != "" && isBelow(u, base, false) {
			return auth
		}
	}
	return ""
}

// basicAuth returns the Authorization header for the user and password in a URL, or an empty
// string if it has none.
func basicAuth(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return ""
	}
	password, _ := u.User.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
}

// HasCredentials reports whether the client has credentials for the URL address. If so, other
// machines may be unable to download from it.
func (c *Client) HasCredentials(address string) bool {
	u, err := url.Parse(c.MirrorURL(address))
	return err == nil && c.credentials(u) != ""
}

// isBelow reports whether u is on the server of the URL base and, if path is true, below the
// path of base.
func isBelow(u *url.URL, base string, path bool) bool {
	b, err := url.Parse(base)
	return err == nil && base != "" && u.Scheme == b.Scheme && strings.EqualFold(u.Host, b.Host) &&
		(!path || strings.HasPrefix(u.Path, strings.TrimSuffix(b.Path, "/")+"/"))
}

// RedactURL returns the URL address without user, password and query, which may be secret.
func RedactURL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "(invalid URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// ResponseError returns the error for a response with an error status: a [*StatusError], or
// an [*APIError] if the rate limit of the release API is exceeded or its token is rejected.
func (c *Client) ResponseError(resp *http.Response) error {
	statusErr := NewStatusError(resp)
	if !c.isAPI(resp.Request.URL) {
		return statusErr
	}
	switch {
	case isRateLimited(resp):
		reset, now := "", time.Now()
		if end, ok := rateLimitReset(resp.Header, now); ok {
			reset = " until " + formatTime(end, now)
		}
		help := "set GITHUB_TOKEN to an access token for a higher limit"
		if c.Token != "" {
			help = "the token in GITHUB_TOKEN has reached its limit"
		}
		return &APIError{Text: fmt.Sprintf("rate limit of %s exceeded%s: %s", RedactURL(c.API), reset, help)}
	case resp.StatusCode == http.StatusUnauthorized && c.Token != "":
		return &APIError{Text: RedactURL(c.API) + " rejected the token in GITHUB_TOKEN"}
	}
	return statusErr
}

// GetOK sends a GET request and calls read if the response has status 200. If the status is
// 404, the error matches [ErrNotFound]. header may be nil and is not modified.
func (c *Client) GetOK(ctx context.Context, address string, header http.Header, read func(*http.Response) error) error {
	return c.Get(ctx, "request", address, header, func(resp *http.Response, _ io.Reader) error {
		switch resp.StatusCode {
		case http.StatusOK:
			return read(resp)
		case http.StatusNotFound:
			return ErrNotFound
		default:
			return c.ResponseError(resp)
		}
	})
}

// DecodeJSON decodes the body of an API response into the value that v points to. It reads
// at most [MaxResponse] bytes.
func DecodeJSON(resp *http.Response, v any) error {
	if err := json.NewDecoder(io.LimitReader(resp.Body, MaxResponse)).Decode(v); err != nil {
		return fmt.Errorf("invalid response: %w", err)
	}
	return nil
}

// Text returns the content of the URL address. It returns an error if the content is larger
// than limit bytes.
func (c *Client) Text(ctx context.Context, address string, limit int64) (string, error) {
	var text strings.Builder
	err := c.Get(ctx, "fetch", address, http.Header{}, func(resp *http.Response, r io.Reader) error {
		if resp.StatusCode != http.StatusOK {
			return c.ResponseError(resp)
		}
		n, err := io.Copy(&text, io.LimitReader(r, limit+1))
		if err == nil && n > limit {
			err = fmt.Errorf("response is larger than %s", bytesize.Format(limit))
		}
		return err
	})
	return text.String(), err
}

// Get sends one GET request and calls read with the response, which may have any status, and
// a reader for its body. The request fails with a [*StallError] if the server sends no data
// for [Client.Stall]. Errors have the form "cannot VERB URL: cause", or only the cause if verb
// is empty. header may be nil and is not modified.
func (c *Client) Get(ctx context.Context, verb, address string, header http.Header, read func(resp *http.Response, body io.Reader) error) error {
	address = c.MirrorURL(address)
	err := c.get(ctx, address, header, read)
	var apiErr *APIError
	if err == nil || verb == "" || errors.As(err, &apiErr) {
		return err
	}
	return fmt.Errorf("cannot %s %s: %w", verb, RedactURL(address), err)
}

// get works like [Client.Get] without mirrors, and with errors that do not include the URL.
func (c *Client) get(ctx context.Context, address string, header http.Header, read func(*http.Response, io.Reader) error) error {
	limit := cmp.Or(c.Stall, stallTimeout)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(limit, func() { cancel(&StallError{limit}) })
	defer timer.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return withoutURL(ctx, err)
	}
	if header != nil {
		req.Header = header.Clone() // do modifies it
	}
	resp, err := c.do(req)
	if err != nil {
		return withoutURL(ctx, err)
	}
	defer resp.Body.Close()
	return withoutURL(ctx, read(resp, &stallReader{resp.Body, timer, limit}))
}

// stallReader resets a timer whenever it reads data.
type stallReader struct {
	r     io.Reader
	timer *time.Timer
	limit time.Duration
}

func (s *stallReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if n > 0 {
		s.timer.Reset(s.limit)
	}
	return n, err
}
