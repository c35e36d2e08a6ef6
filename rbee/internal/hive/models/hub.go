package models

import (
	"context"
	"crypto/sha1" //nolint:gosec // git's own hash, by which the hub names small files
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"sort"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
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

// hasher is the hash whose sum names the blob.
func (f hubFile) hasher() hash.Hash {
	if f.lfs() {
		return sha256.New()
	}
	h := sha1.New() //nolint:gosec // see the import
	fmt.Fprintf(h, "blob %d\x00", f.Size)
	return h
}

// hub is a model hub.
type hub struct {
	endpoint string
	token    operations.Secret
	client   *fetch.Client // with the endpoint as its hub, and the token
	pause    time.Duration // before the first try after a failure; 0 means 250 ms
}

// get asks an address once.
func (h *hub) get(ctx context.Context, to string, header http.Header, read func(*http.Response, io.Reader) error) error {
	header.Set("Accept-Encoding", "identity")
	return h.client.Get(ctx, "", to, header, read)
}

const (
	maxListing = 64 << 20 // bytes of one page of a listing
	maxFiles   = 100000   // of a repository
)

// listing reads one page of JSON, with patience. next is the address of the next page.
func (h *hub) listing(ctx context.Context, to string, into any) (next string, err error) {
	err = fetch.Retry(ctx, h.pause, func() (err error) {
		next, err = h.page(ctx, to, into)
		return err
	})
	return next, err
}

func (h *hub) page(ctx context.Context, to string, into any) (next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = h.get(ctx, to, http.Header{}, func(resp *http.Response, body io.Reader) error {
		if resp.StatusCode != http.StatusOK {
			return fetch.NewStatusError(resp)
		}
		data, err := io.ReadAll(io.LimitReader(body, maxListing))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, into); err != nil {
			return &fetch.StatusError{Status: resp.StatusCode, Message: "the answer is no list of a model hub: " + err.Error()}
		}
		next = nextPage(resp, h.endpoint)
		return nil
	})
	return next, err
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
		return "", nil, failure(nil, "the hub %s answered about %s with no commit: it is no model hub", h.endpoint, ref.Repo)
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
			return "", nil, failure(nil, "the hub lists more than %d files of %s", maxFiles, ref.Repo)
		}
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Path < files[j].Path })
	return info.SHA, files, nil
}

var (
	commitPattern = regexp.MustCompile(`^[0-9a-f]{40}$`)
	etagPattern   = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
)

// explain words the hub's refusals.
func (h *hub) explain(ref Ref, err error) error {
	var status *fetch.StatusError
	page := h.endpoint + "/" + ref.Repo
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case !errors.As(err, &status):
		return failure(err, "asking the hub %s about %s: %v", h.endpoint, ref, err)
	case status.Code == "GatedRepo", status.Status == http.StatusForbidden:
		return failure(err, "model %q is gated: accept its terms at %s, and use a token (HF_TOKEN) of that account: %v", ref, page, status)
	case status.Code == "RevisionNotFound":
		return notFound("model %q: the repository has no revision %q", ref, ref.revision())
	case status.Status == http.StatusUnauthorized && h.token != "":
		return failure(err, "the hub refuses the token (HF_TOKEN) for model %q, or the repository does not exist: %v", ref, status)
	case status.Status == http.StatusUnauthorized:
		return failure(err, "model %q does not exist, or asks for a token (HF_TOKEN): %v", ref, status)
	case status.Code == "RepoNotFound", status.Status == http.StatusNotFound:
		return notFound("there is no model %q at %s", ref, h.endpoint)
	}
	return failure(err, "asking the hub %s about %s: %v", h.endpoint, ref, status)
}

// fileURL is where a file of a commit is.
func (h *hub) fileURL(repo, commit, path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return h.endpoint + "/" + repo + "/resolve/" + commit + "/" + strings.Join(parts, "/")
}
