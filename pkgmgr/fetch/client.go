package fetch

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// fetchStall is how long a server may send nothing before it is given up.
	fetchStall = 60 * time.Second

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
}

// do makes a request.
func (f *Client) do(req *http.Request) (*http.Response, error) {
	client := *cmp.Or(f.HTTP, http.DefaultClient)
	wrapped := client.CheckRedirect
	client.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		f.authorise(req)
		if wrapped != nil {
			return wrapped(req, via)
		}
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		return nil
	}
	req.Header.Set("User-Agent", "rbee")
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

// withoutAddress is an error of net/http without the address that it repeats, or the
// reason why the request was ended.
func withoutAddress(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var in *url.Error
	if errors.As(err, &in) {
		return in.Err
	}
	return err
}

// APIError says why the release API does not answer, and what would help.
type APIError struct{ Text string }

// Error implements error.
func (e *APIError) Error() string { return e.Text }

// StatusError words an answer that is none.
func (f *Client) StatusError(resp *http.Response) error {
	plain := fmt.Errorf("the server answers %s", resp.Status)
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

// ErrNotFound is a file or an answer that the server does not have.
var ErrNotFound = errors.New("not found")

// GetOK hands the answer of an API to read. The error is [ErrNotFound] if there is nothing
// at the address.
func (f *Client) GetOK(ctx context.Context, address string, header http.Header, read func(*http.Response) error) error {
	return f.Get(ctx, "asking", address, header, func(resp *http.Response, _ io.Reader) error {
		switch resp.StatusCode {
		case http.StatusOK:
			return read(resp)
		case http.StatusNotFound:
			return ErrNotFound
		default:
			return f.StatusError(resp)
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
			return f.StatusError(resp)
		}
		n, err := io.Copy(&text, io.LimitReader(r, limit+1))
		if err == nil && n > limit {
			err = fmt.Errorf("it answers too much: more than %d bytes", limit)
		}
		return err
	})
	return text.String(), err
}

// Get asks an address once and hands its answer to read. A server that sends
// nothing for too long is given up. verb says in errors what was done.
func (f *Client) Get(ctx context.Context, verb, from string, header http.Header, read func(*http.Response, io.Reader) error) error {
	from = f.MirrorURL(from)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(fetchStall, func() { cancel(fmt.Errorf("nothing came for %s", fetchStall)) })
	defer stall.Stop()
	fail := func(err error) error {
		var said *APIError
		if err == nil || errors.As(err, &said) {
			return err
		}
		return fmt.Errorf("%s %s: %w", verb, RedactURL(from), withoutAddress(ctx, err))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, http.NoBody)
	if err != nil {
		return fail(err)
	}
	req.Header = header
	resp, err := f.do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	return fail(read(resp, alive{resp.Body, stall}))
}

// alive puts a timer off whenever something is read.
type alive struct {
	r io.Reader
	t *time.Timer
}

func (a alive) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 {
		a.t.Reset(fetchStall)
	}
	return n, err
}
