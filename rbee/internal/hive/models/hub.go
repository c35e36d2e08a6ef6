package models

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// hubFile is a file of a repository.
type hubFile struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
	Etag string `json:"etag"` // names its blob: a SHA-256, or the hash of a git blob
}

// valid reports whether the file can be kept in the cache.
func (f hubFile) valid() bool {
	return validPath(f.Path) && f.Size >= 0 && etagPattern.MatchString(f.Etag)
}

// lfs tells whether the etag is the SHA-256 of the content.
func (f hubFile) lfs() bool { return len(f.Etag) == 64 }

// hub is a model hub.
type hub struct {
	endpoint string
	token    operations.Secret
	agent    string
	http     *http.Client // follows no redirects
	pause    time.Duration
}

// client makes an HTTP client that leaves redirects to the caller, because the
// token must not follow them to a foreign host.
func (s *Store) client() *http.Client {
	c := http.Client{}
	if s.HTTP != nil {
		c = *s.HTTP
	} else {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost, t.DisableCompression, t.ReadBufferSize = 32, true, 128<<10
		// Several streams of HTTP/2 would share one connection, and its pace.
		t.ForceAttemptHTTP2, t.Protocols = false, new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		c.Transport = t
	}
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &c
}

const (
	maxTries   = 6        // in a row that bring nothing
	maxListing = 64 << 20 // bytes of one page of a listing
	maxFiles   = 100000   // of a repository
)

// statusError is an answer that is no success.
type statusError struct {
	status int
	code   string // the hub's own X-Error-Code
	words  string
	after  time.Duration // Retry-After
	stale  string        // the address, if it was remembered and not just given
}

func (e *statusError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("%d %s: %s", e.status, http.StatusText(e.status), e.words), ": ")
}

// mayPass reports whether another try may do better.
func (e *statusError) mayPass() bool {
	return e.status == http.StatusTooManyRequests || e.status == http.StatusRequestTimeout || e.status >= 500
}

func readStatus(resp *http.Response) *statusError {
	e := &statusError{status: resp.StatusCode, code: resp.Header.Get("X-Error-Code"), words: resp.Header.Get("X-Error-Message")}
	if e.words == "" && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		var body struct {
			Error string `json:"error"`
		}
		data, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // its words are no more than a help
		if json.Unmarshal(data, &body) == nil {
			e.words = body.Error
		}
	}
	e.words = strings.Join(strings.Fields(e.words), " ")
	e.words = e.words[:min(len(e.words), 300)]
	if secs, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && secs >= 0 {
		e.after = time.Duration(min(secs, 60)) * time.Second
	}
	return e
}

// request makes a request; the token goes to the hub's own host alone.
func (h *hub) request(ctx context.Context, to string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, http.NoBody)
	if err != nil {
		return nil, errors.New("the hub gave an address that is none")
	}
	req.Header.Set("User-Agent", cmp.Or(h.agent, "rbee"))
	req.Header.Set("Accept-Encoding", "identity")
	if own, err := url.Parse(h.endpoint); err == nil && h.token != "" && own.Host == req.URL.Host && own.Scheme == req.URL.Scheme {
		req.Header.Set("Authorization", "Bearer "+string(h.token))
	}
	return req, nil
}

// get follows redirects, and returns the answer and the address that gave it.
func (h *hub) get(ctx context.Context, to string, header http.Header) (*http.Response, string, error) {
	for range 10 {
		req, err := h.request(ctx, to)
		if err != nil {
			return nil, "", err
		}
		for name, values := range header {
			req.Header[name] = values
		}
		resp, err := h.http.Do(req)
		if err != nil {
			return nil, to, plain(err)
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			next, err := resp.Location()
			_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
			_ = resp.Body.Close()
			if err != nil {
				return nil, to, errors.New("the hub redirects to nowhere")
			}
			to = next.String()
		default:
			return resp, to, nil
		}
	}
	return nil, to, errors.New("the hub redirects in a circle")
}

// plain takes the address out of an error: its query may be a signature.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// listing reads one page of JSON, with patience. next is the address of the next page.
func (h *hub) listing(ctx context.Context, to string, into any) (next string, err error) {
	for try := 1; ; try++ {
		next, err = h.page(ctx, to, into)
		var status *statusError
		if err == nil || ctx.Err() != nil || try == maxTries || errors.As(err, &status) && !status.mayPass() {
			return next, err
		}
		if err := rest(ctx, h.pause, try, err); err != nil {
			return "", err
		}
	}
}

func (h *hub) page(ctx context.Context, to string, into any) (next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	resp, _, err := h.get(ctx, to, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", readStatus(resp)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxListing))
	if err != nil {
		return "", plain(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return "", &statusError{status: resp.StatusCode, words: "the answer is no list of a model hub: " + err.Error()}
	}
	return nextPage(resp, h.endpoint), nil
}

var nextLink = regexp.MustCompile(`<([^>]+)>\s*;\s*rel="?next"?`)

// nextPage is the address in a Link header (RFC 8288). It must be the hub's own.
func nextPage(resp *http.Response, endpoint string) string {
	m := nextLink.FindStringSubmatch(resp.Header.Get("Link"))
	if m == nil {
		return ""
	}
	to, err := resp.Request.URL.Parse(m[1])
	own, err2 := url.Parse(endpoint)
	if err != nil || err2 != nil {
		return ""
	}
	// Behind a mirror the hub may name itself by another host.
	to.Scheme, to.Host = own.Scheme, own.Host
	return to.String()
}

// rest waits before the next try: longer each time, or as long as the server asks.
func rest(ctx context.Context, pause time.Duration, try int, err error) error {
	wait := cmp.Or(pause, 250*time.Millisecond) << min(try-1, 5)
	var status *statusError
	if errors.As(err, &status) && status.after > wait {
		wait = status.after
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(wait):
		return nil
	}
}

// repository reads which commit a revision is, and its files. Some of these may not
// be valid.
func (h *hub) repository(ctx context.Context, ref Ref) (commit string, files []hubFile, err error) {
	base := h.endpoint + "/api/models/" + ref.Repo
	var info struct {
		SHA string `json:"sha"`
	}
	if _, err := h.listing(ctx, base+"/revision/"+url.PathEscape(ref.revision()), &info); err != nil {
		return "", nil, h.explain(ref, err)
	}
	if !commitPattern.MatchString(info.SHA) {
		return "", nil, failure(operations.ReasonOtherProgram, ref.String(), nil, "the hub %s answered about %s with no commit: it is no model hub", h.endpoint, ref.Repo)
	}
	for next := base + "/tree/" + info.SHA + "?recursive=true"; next != ""; {
		var page []struct {
			Type string `json:"type"`
			OID  string `json:"oid"`
			Size int64  `json:"size"`
			Path string `json:"path"`
			LFS  *struct {
				OID  string `json:"oid"`
				Size int64  `json:"size"`
			} `json:"lfs"`
		}
		if next, err = h.listing(ctx, next, &page); err != nil {
			return "", nil, h.explain(ref, err)
		}
		for _, e := range page {
			if e.Type != "file" {
				continue
			}
			f := hubFile{Path: e.Path, Size: e.Size, Etag: e.OID}
			if e.LFS != nil {
				f.Size, f.Etag = e.LFS.Size, strings.TrimPrefix(e.LFS.OID, "sha256:")
			}
			files = append(files, f)
		}
		if len(files) > maxFiles {
			return "", nil, failure(operations.ReasonModelInvalid, ref.String(), nil, "the hub lists more than %d files of %s", maxFiles, ref.Repo)
		}
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	return info.SHA, files, nil
}

var (
	commitPattern = regexp.MustCompile(`^[0-9a-f]{40}$`)
	etagPattern   = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

// requestReason returns why a server did not give what was requested.
func requestReason(err error) operations.Reason {
	if reason := operations.ReasonOf(err); reason != operations.ReasonFailed {
		return reason
	}
	return operations.ReasonDownload
}

// explain words the hub's refusals.
func (h *hub) explain(ref Ref, err error) error {
	var status *statusError
	page := h.endpoint + "/" + ref.Repo
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case !errors.As(err, &status):
		return failure(requestReason(err), ref.String(), err, "asking the hub %s about %s: %v", h.endpoint, ref, err)
	case status.code == "GatedRepo", status.status == http.StatusForbidden:
		return failure(operations.ReasonModelGated, ref.String(), err, "model %q is gated: accept its terms at %s, and use a token (HF_TOKEN) of that account: %v", ref, page, status)
	case status.code == "RevisionNotFound":
		return notFound(operations.ReasonModelUnknown, ref.String(), "model %q: the repository has no revision %q", ref, ref.revision())
	case status.status == http.StatusUnauthorized && h.token != "":
		return failure(operations.ReasonModelGated, ref.String(), err, "the hub refuses the token (HF_TOKEN) for model %q, or the repository does not exist: %v", ref, status)
	case status.status == http.StatusUnauthorized:
		return failure(operations.ReasonModelGated, ref.String(), err, "model %q does not exist, or asks for a token (HF_TOKEN): %v", ref, status)
	case status.code == "RepoNotFound", status.status == http.StatusNotFound:
		return notFound(operations.ReasonModelUnknown, ref.String(), "there is no model %q at %s", ref, h.endpoint)
	}
	return failure(requestReason(err), ref.String(), err, "asking the hub %s about %s: %v", h.endpoint, ref, status)
}

// fileURL is where a file of a commit is.
func (h *hub) fileURL(repo, commit, path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return h.endpoint + "/" + repo + "/resolve/" + commit + "/" + strings.Join(parts, "/")
}
