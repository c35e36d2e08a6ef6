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
)

const (
	// stallTimeout is how long a server may send nothing before it is given up.
	stallTimeout = 60 * time.Second

	// dialTimeout is how long connecting to a server may take, without and with TLS.
	dialTimeout = 30 * time.Second

	// MaxResponse bounds an answer of an API, in bytes.
	MaxResponse = 64 << 20
)

// Client asks servers and downloads from them, with the credentials that this
// machine has for some of them. Those are sent nowhere else. The zero value has
// none. Any number of goroutines may use it.
type Client struct {
	HTTP  *http.Client // nil is http.DefaultClient
	API   string       // base address of the release API; empty for none
	Token string       // goes along to the API; may be empty

	Downloads string // base address in place of https://github.com, may have a user and a password; empty for none

	Index string // base address of the package index, maybe with a user and a password
	Torch string // base address of a mirror of PyTorch's indexes, as Index; empty for none

	Hub      string            // base address of the model hub; empty for none
	HubToken operations.Secret // goes along to the server of the hub; may be empty

	UserAgent string        // of all requests; empty is "rbee"
	Verb      string        // what errors of downloads begin with; empty is "fetching"
	Stall     time.Duration // how long a server may send nothing before it is given up; 0 is 60 seconds
}

// NewHTTPClient returns an HTTP client for large files. It takes proxies from the
// environment, does not decompress, and uses HTTP/1.1 only: streams of HTTP/2 would share
// one connection, and its pace.
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

// do makes a request.
func (f *Client) do(req *http.Request) (*http.Response, error) {
	client := *cmp.Or(f.HTTP, http.DefaultClient)
	wrapped := client.CheckRedirect
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		f.authorise(req)
		req.Header.Del("Referer") // the address that redirects may have a secret query
		if wrapped != nil {
			return wrapped(req, via)
		}
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
	req.Header.Set("User-Agent", cmp.Or(f.UserAgent, "rbee"))
	f.authorise(req)
	return client.Do(req)
}

// authorise gives a request the credentials for where it goes, and no other.
func (f *Client) authorise(req *http.Request) {
	req.Header.Del("Authorization")
	if given := f.credentials(req.URL); given != "" {
		req.Header.Set("Authorization", given)
	}
}

// credentials are what an address is asked with; empty for nothing.
func (f *Client) credentials(u *url.URL) string {
	if f.Token != "" && f.ofAPI(u) {
		return "Bearer " + f.Token
	}
	if auth := basicAuth(f.Downloads); auth != "" && below(u, f.Downloads, true) {
		return auth
	}
	if f.HubToken != "" && below(u, f.Hub, false) {
		return "Bearer " + string(f.HubToken)
	}
	for _, base := range []string{f.Index, f.Torch} {
		if auth := basicAuth(base); auth != "" && below(u, base, false) {
			return auth
		}
	}
	return ""
}

// basicAuth returns the header for the user and the password in an address; empty if
// it has none.
func basicAuth(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return ""
	}
	password, _ := u.User.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password))
}

// HasCredentials reports whether this machine has credentials for an address, so that others
// may not get what is there.
func (f *Client) HasCredentials(address string) bool {
	u, err := url.Parse(f.MirrorURL(address))
	return err == nil && f.credentials(u) != ""
}

// below reports whether an address is on the server of a base address, and, if path
// is true, below its path.
func below(u *url.URL, base string, path bool) bool {
	b, err := url.Parse(base)
	return err == nil && base != "" && u.Scheme == b.Scheme && strings.EqualFold(u.Host, b.Host) &&
		(!path || strings.HasPrefix(u.Path, strings.TrimSuffix(b.Path, "/")+"/"))
}

// RedactURL returns an address as it may be printed: without a query or a password, which
// may be secret.
func RedactURL(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that is none"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// ResponseError returns the error for a response that has no content: a [*StatusError], or
// an [*APIError] if the release API refuses more requests or the token.
func (f *Client) ResponseError(resp *http.Response) error {
	plain := NewStatusError(resp)
	if !f.ofAPI(resp.Request.URL) {
		return plain
	}
	switch {
	case limited(resp):
		until, now := "for now", time.Now()
		if end, ok := limitEnd(resp.Header, now); ok {
			until = "before " + clock(end, now)
		}
		help := "set GITHUB_TOKEN to a token of yours, which may ask more often"
		if f.Token != "" {
			help = "the token in GITHUB_TOKEN has used up its share"
		}
		return &APIError{Text: fmt.Sprintf("%s takes no more requests %s: %s", RedactURL(f.API), until, help)}
	case resp.StatusCode == http.StatusUnauthorized && f.Token != "":
		return &APIError{Text: RedactURL(f.API) + " does not accept the token in GITHUB_TOKEN"}
	}
	return plain
}

// GetOK hands the answer of an API to read. The error is [ErrNotFound] if there is nothing
// at the address. header may be nil, and is not changed.
func (f *Client) GetOK(ctx context.Context, address string, header http.Header, read func(*http.Response) error) error {
	return f.Get(ctx, "asking", address, header, func(resp *http.Response, _ io.Reader) error {
		switch resp.StatusCode {
		case http.StatusOK:
			return read(resp)
		case http.StatusNotFound:
			return ErrNotFound
		default:
			return f.ResponseError(resp)
		}
	})
}

// DecodeJSON reads an answer of an API.
func DecodeJSON(resp *http.Response, into any) error {
	if err := json.NewDecoder(io.LimitReader(resp.Body, MaxResponse)).Decode(into); err != nil {
		return fmt.Errorf("its answer cannot be read: %w", err)
	}
	return nil
}

// Text returns what a small address answers, of at most limit bytes.
func (f *Client) Text(ctx context.Context, from string, limit int64) (string, error) {
	var text strings.Builder
	err := f.Get(ctx, "fetching", from, http.Header{}, func(resp *http.Response, r io.Reader) error {
		if resp.StatusCode != http.StatusOK {
			return f.ResponseError(resp)
		}
		n, err := io.Copy(&text, io.LimitReader(r, limit+1))
		if err == nil && n > limit {
			err = fmt.Errorf("it answers too much: more than %d bytes", limit)
		}
		return err
	})
	return text.String(), err
}

// Get asks an address once and hands its answer to read, with a reader of its body that
// notices a stall. A server that sends nothing for too long is given up. verb says in
// errors what was done; if it is empty, they do not name the address. header may be nil,
// and is not changed.
func (f *Client) Get(ctx context.Context, verb, from string, header http.Header, read func(resp *http.Response, body io.Reader) error) error {
	from = f.MirrorURL(from)
	err := f.get(ctx, from, header, read)
	var said *APIError
	if err == nil || verb == "" || errors.As(err, &said) {
		return err
	}
	return fmt.Errorf("%s %s: %w", verb, RedactURL(from), err)
}

// get is [Client.Get] for an address as it is, whose errors do not repeat it.
func (f *Client) get(ctx context.Context, from string, header http.Header, read func(*http.Response, io.Reader) error) error {
	limit := cmp.Or(f.Stall, stallTimeout)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(limit, func() { cancel(&StallError{limit}) })
	defer timer.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return withoutAddress(ctx, err)
	}
	if header != nil {
		req.Header = header.Clone() // do adds to it
	}
	resp, err := f.do(req)
	if err != nil {
		return withoutAddress(ctx, err)
	}
	defer resp.Body.Close()
	return withoutAddress(ctx, read(resp, &stallReader{resp.Body, timer, limit}))
}

// stallReader restarts a timer whenever something is read.
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
