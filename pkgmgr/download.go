package pkgmgr

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// fetchStall is how long a server may send nothing before it is given up.
	fetchStall = 60 * time.Second

	// fetchTries bounds how often a download is gone on with that is cut off again
	// and again.
	fetchTries = 10

	// maxAPIAnswer bounds an answer of an API, in bytes.
	maxAPIAnswer = 64 << 20

	// maxDownload bounds a download whose size nobody has told, in bytes.
	maxDownload = 64 << 30
)

// fetcher asks servers and downloads from them, with the credentials that this
// machine has for some of them. Those are sent nowhere else. The zero value has
// none. Any number of goroutines may use it.
type fetcher struct {
	http  *http.Client // nil is http.DefaultClient
	api   string       // base address of the release API; empty for none
	token string       // goes along to the API; may be empty
	index string       // base address of the package index, maybe with a user and a password
}

// do makes a request.
func (f *fetcher) do(req *http.Request) (*http.Response, error) {
	client := *cmp.Or(f.http, http.DefaultClient)
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
func (f *fetcher) authorise(req *http.Request) {
	req.Header.Del("Authorization")
	if given := f.credentials(req.URL); given != "" {
		req.Header.Set("Authorization", given)
	}
}

// credentials are what an address is asked with; empty for nothing.
func (f *fetcher) credentials(u *url.URL) string {
	if f.token != "" && below(u, f.api, true) {
		return "Bearer " + f.token
	}
	if index, err := url.Parse(f.index); err == nil && index.User != nil && below(u, f.index, false) {
		password, _ := index.User.Password()
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(index.User.Username()+":"+password))
	}
	return ""
}

// alone reports whether this machine has credentials for an address, so that others
// may not get what is there.
func (f *fetcher) alone(address string) bool {
	u, err := url.Parse(address)
	return err == nil && f.credentials(u) != ""
}

// below reports whether an address is on the server of a base address, and, if path
// is true, below its path.
func below(u *url.URL, base string, path bool) bool {
	b, err := url.Parse(base)
	return err == nil && base != "" && u.Scheme == b.Scheme && strings.EqualFold(u.Host, b.Host) &&
		(!path || strings.HasPrefix(u.Path, strings.TrimSuffix(b.Path, "/")+"/"))
}

// shown is an address as it may be printed: without a query or a password, which
// may be secret.
func shown(address string) string {
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

// answerError says why the release API does not answer, and what would help.
type answerError struct{ text string }

func (e *answerError) Error() string { return e.text }

// refused words an answer that is none.
func (f *fetcher) refused(resp *http.Response) error {
	plain := fmt.Errorf("the server answers %s", resp.Status)
	if !below(resp.Request.URL, f.api, true) {
		return plain
	}
	h := resp.Header
	limited := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusForbidden && h.Get("X-RateLimit-Remaining") == "0"
	switch {
	case limited:
		until := "for now"
		if at, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil {
			until = "before " + time.Unix(at, 0).Format("15:04:05")
		} else if wait, err := strconv.Atoi(h.Get("Retry-After")); err == nil {
			until = fmt.Sprintf("for %d s", wait)
		}
		help := "set GITHUB_TOKEN to a token of yours, which may ask more often"
		if f.token != "" {
			help = "the token in GITHUB_TOKEN has used up its share"
		}
		return &answerError{fmt.Sprintf("%s takes no more requests %s: %s", shown(f.api), until, help)}
	case resp.StatusCode == http.StatusUnauthorized && f.token != "":
		return &answerError{shown(f.api) + " does not accept the token in GITHUB_TOKEN"}
	}
	return plain
}

var errNotFound = errors.New("not found")

// ask hands the answer of an API to read. It is [errNotFound] if there is nothing at
// the address.
func (f *fetcher) ask(ctx context.Context, address string, header http.Header, read func(*http.Response) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, fetchStall, fmt.Errorf("no answer within %s", fetchStall))
	defer cancel()
	fail := func(err error) error {
		var said *answerError
		if err == nil || errors.As(err, &said) {
			return err
		}
		return fmt.Errorf("asking %s: %w", shown(address), withoutAddress(ctx, err))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return fail(err)
	}
	req.Header = header
	resp, err := f.do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return fail(read(resp))
	case http.StatusNotFound:
		return errNotFound
	default:
		return fail(f.refused(resp))
	}
}

// readJSON reads an answer of an API.
func readJSON(resp *http.Response, into any) error {
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAPIAnswer)).Decode(into); err != nil {
		return fmt.Errorf("its answer cannot be read: %w", err)
	}
	return nil
}

// text is what a small address answers, of at most limit bytes.
func (f *fetcher) text(ctx context.Context, from string, limit int64) (string, error) {
	var text strings.Builder
	err := f.try(ctx, from, http.Header{}, func(resp *http.Response, r io.Reader) error {
		if resp.StatusCode != http.StatusOK {
			return f.refused(resp)
		}
		n, err := io.Copy(&text, io.LimitReader(r, limit+1))
		if err == nil && n > limit {
			err = fmt.Errorf("it answers too much: more than %d bytes", limit)
		}
		return err
	})
	return text.String(), err
}

// try asks an address once and hands its answer to read. A server that sends
// nothing for too long is given up.
func (f *fetcher) try(ctx context.Context, from string, header http.Header, read func(*http.Response, io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(fetchStall, func() { cancel(fmt.Errorf("nothing came for %s", fetchStall)) })
	defer stall.Stop()
	fail := func(err error) error {
		var said *answerError
		if err == nil || errors.As(err, &said) {
			return err
		}
		return fmt.Errorf("fetching %s: %w", shown(from), withoutAddress(ctx, err))
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

// partial is a file while it is downloaded.
type partial struct {
	f     *os.File
	sum   string // that it must have; empty if nobody knows
	limit int64  // bytes

	hash    hash.Hash
	size    int64  // bytes that are there, which hash has seen
	stamp   string // tells the server's file from another one under its address; may be empty
	joined  bool   // it is of more than one answer
	changed bool   // the last answer was of another file than the one before
}

// reset begins anew.
func (p *partial) reset() error {
	p.hash, p.size, p.stamp, p.joined, p.changed = sha256.New(), 0, "", false, false
	_, err := p.f.Seek(0, io.SeekStart)
	return errors.Join(err, p.f.Truncate(0))
}

// Write implements [io.Writer].
func (p *partial) Write(data []byte) (int, error) {
	if p.size+int64(len(data)) > p.limit {
		return 0, fmt.Errorf("%w: more than %d bytes come", errOther, p.limit)
	}
	n, err := p.f.Write(data)
	p.hash.Write(data[:n])
	p.size += int64(n)
	return n, err
}

// continues reports whether an answer goes on where the file ends.
func (p *partial) continues(h http.Header) bool {
	stamp := stampOf(h)
	return p.size > 0 && strings.HasPrefix(h.Get("Content-Range"), fmt.Sprintf("bytes %d-", p.size)) && (stamp == "" || p.stamp == "" || stamp == p.stamp)
}

// errOther is a download whose content is another one than was promised.
var errOther = errors.New("it is not what was promised")

// file downloads from an address into to, which is empty. want is the SHA-256 that it
// must have, and size how many bytes it has at most; empty and 0 if that is not known.
// One that is cut off is gone on with as long as that brings more; one that was put
// together and turns out to be another one is begun anew.
func (f *fetcher) file(ctx context.Context, from, want string, size int64, to *os.File) (sum string, n int64, err error) {
	p := &partial{f: to, sum: want, limit: cmp.Or(max(size, 0), maxDownload), hash: sha256.New()}
	for try := 1; ; try++ {
		before := p.size
		err := f.piece(ctx, from, p)
		if err == nil {
			return hex.EncodeToString(p.hash.Sum(nil)), p.size, nil
		}
		again := p.size > before || p.changed
		if errors.Is(err, errOther) {
			again = p.joined
			err = errors.Join(err, p.reset())
		}
		if ctx.Err() != nil || !again || try == fetchTries {
			return "", 0, err
		}
	}
}

// piece downloads what is missing, in one request.
func (f *fetcher) piece(ctx context.Context, from string, p *partial) error {
	if p.sum == "" && p.stamp == "" {
		// Nothing would tell that the rest is of another file.
		if err := p.reset(); err != nil {
			return err
		}
	}
	header := http.Header{}
	if p.size > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", p.size))
	}
	if p.size > 0 && p.stamp != "" {
		header.Set("If-Range", p.stamp)
	}
	return f.try(ctx, from, header, func(resp *http.Response, r io.Reader) error {
		switch {
		case resp.StatusCode == http.StatusPartialContent && p.continues(resp.Header):
			p.joined, p.changed = true, false
		case resp.StatusCode == http.StatusOK:
			was, now := p.stamp, stampOf(resp.Header)
			if err := p.reset(); err != nil {
				return err
			}
			p.stamp, p.changed = now, was != "" && was != now
		case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && p.size > 0:
			p.joined = true
			return fmt.Errorf("%w: what came before is no beginning of it", errOther)
		default:
			return f.refused(resp)
		}
		if _, err := io.Copy(p, r); err != nil {
			return err
		}
		if got := hex.EncodeToString(p.hash.Sum(nil)); p.sum != "" && got != p.sum {
			return fmt.Errorf("%w: its SHA-256 is %s, want %s", errOther, got, p.sum)
		}
		return nil
	})
}

// stampOf is what a server tells a file from others by, if it can be relied on:
// https://www.rfc-editor.org/rfc/rfc9110#name-if-range
func stampOf(h http.Header) string {
	if tag := h.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return ""
}

// keep downloads from an address to path, which is only there, whole, once the
// content has the checksum sum. size is as for [fetcher.file].
func (f *fetcher) keep(ctx context.Context, from, sum string, size int64, path string, mode fs.FileMode) error {
	return fileWhole(path, mode, func(to *os.File) error {
		_, _, err := f.file(ctx, from, sum, size, to)
		return err
	})
}

// writeWhole makes path with what write writes: the file is the old one or the
// new one, never a part. Its directory is made where it is missing.
func writeWhole(path string, mode fs.FileMode, write func(io.Writer) error) error {
	return fileWhole(path, mode, func(f *os.File) error { return write(f) })
}

// fileWhole is [writeWhole] for those who need a file.
func fileWhole(path string, mode fs.FileMode, write func(*os.File) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if err := write(tmp); err != nil {
		return err
	}
	if err := tmp.Chmod(mode); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
