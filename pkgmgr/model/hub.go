package model

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

// File is a file of a repository.
type File struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
	Etag string `json:"etag"` // names its blob: a SHA-256, or the hash of a git blob
}

// Valid reports whether the file can be kept in the cache.
func (f File) Valid() bool {
	return validPath(f.Path) && f.Size >= 0 && etagPattern.MatchString(f.Etag)
}

// IsLFS reports whether the etag is the SHA-256 of the content.
func (f File) IsLFS() bool { return len(f.Etag) == 64 }

// NewHash returns the hash whose sum names the blob.
func (f File) NewHash() hash.Hash {
	if f.IsLFS() {
		return sha256.New()
	}
	h := sha1.New() //nolint:gosec // see the import
	fmt.Fprintf(h, "blob %d\x00", f.Size)
	return h
}

// Hub is a model hub.
type Hub struct {
	// Client makes the requests; its Hub and HubToken are the address of this hub, without
	// a slash at the end, and the token for it. Required.
	Client *fetch.Client

	// Pause is how long to wait before the first retry; 0 is 250 ms.
	Pause time.Duration
}

// Get asks an address once, and hands the answer to read. header may be nil, and is not
// changed.
func (h *Hub) Get(ctx context.Context, to string, header http.Header, read func(*http.Response, io.Reader) error) error {
	if header = header.Clone(); header == nil {
		header = http.Header{}
	}
	header.Set("Accept-Encoding", "identity")
	return h.Client.Get(ctx, "", to, header, read)
}

const (
	maxListing = 64 << 20 // bytes of one page of a listing
	maxFiles   = 100000   // of a repository
)

// listing reads one page of JSON, with patience. next is the address of the next page.
func (h *Hub) listing(ctx context.Context, to string, into any) (next string, err error) {
	err = fetch.Retry(ctx, h.Pause, func() (err error) {
		next, err = h.page(ctx, to, into)
		return err
	})
	return next, err
}

func (h *Hub) page(ctx context.Context, to string, into any) (next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = h.Get(ctx, to, http.Header{}, func(resp *http.Response, body io.Reader) error {
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
		next = nextPage(resp, h.Client.Hub)
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

// Repository reads which commit a revision is, and its files. Some of these may not
// be valid.
func (h *Hub) Repository(ctx context.Context, ref Ref) (commit string, files []File, err error) {
	base := h.Client.Hub + "/api/models/" + ref.Repo
	var info struct {
		SHA string `json:"sha"`
	}
	if _, err := h.listing(ctx, base+"/revision/"+url.PathEscape(ref.RevisionOrMain()), &info); err != nil {
		return "", nil, h.explain(ref, err)
	}
	if !commitPattern.MatchString(info.SHA) {
		return "", nil, failure(operations.ReasonOtherProgram, ref.String(), nil, "the hub %s answered about %s with no commit: it is no model hub", h.Client.Hub, ref.Repo)
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
			f := File{Path: e.Path, Size: e.Size, Etag: e.OID}
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

// IsCommit reports whether a string is the full hash of a commit.
func IsCommit(s string) bool { return commitPattern.MatchString(s) }

// IsEtag reports whether a string names a blob: a SHA-256, or the hash of a git blob.
func IsEtag(s string) bool { return etagPattern.MatchString(s) }

// explain words the hub's refusals.
func (h *Hub) explain(ref Ref, err error) error {
	var status *fetch.StatusError
	page := h.Client.Hub + "/" + ref.Repo
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case !errors.As(err, &status):
		return failure(fetch.DownloadReason(err), ref.String(), err, "asking the hub %s about %s: %v", h.Client.Hub, ref, err)
	case status.Code == "GatedRepo", status.Status == http.StatusForbidden:
		return failure(operations.ReasonModelGated, ref.String(), err, "model %q is gated: accept its terms at %s, and use a token (HF_TOKEN) of that account: %v", ref, page, status)
	case status.Code == "RevisionNotFound":
		return notFound(operations.ReasonModelUnknown, ref.String(), "model %q: the repository has no revision %q", ref, ref.RevisionOrMain())
	case status.Status == http.StatusUnauthorized && h.Client.HubToken != "":
		return failure(operations.ReasonModelGated, ref.String(), err, "the hub refuses the token (HF_TOKEN) for model %q, or the repository does not exist: %v", ref, status)
	case status.Status == http.StatusUnauthorized:
		return failure(operations.ReasonModelGated, ref.String(), err, "model %q does not exist, or asks for a token (HF_TOKEN): %v", ref, status)
	case status.Code == "RepoNotFound", status.Status == http.StatusNotFound:
		return notFound(operations.ReasonModelUnknown, ref.String(), "there is no model %q at %s", ref, h.Client.Hub)
	}
	return failure(fetch.DownloadReason(err), ref.String(), err, "asking the hub %s about %s: %v", h.Client.Hub, ref, status)
}

// FileURL returns the address of a file of a commit.
func (h *Hub) FileURL(repo, commit, path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return h.Client.Hub + "/" + repo + "/resolve/" + commit + "/" + strings.Join(parts, "/")
}

// DefaultEndpoint is the model hub where none is named.
const DefaultEndpoint = "https://huggingface.co"
