package model

import (
	"context"
	"crypto/sha1" //nolint:gosec // the hash of git, which identifies small files
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
	Etag string `json:"etag"` // ID of the content: its SHA-256, or the hash of a git blob
}

// Valid reports whether the file can be stored in the cache.
func (f File) Valid() bool {
	return validPath(f.Path) && f.Size >= 0 && etagPattern.MatchString(f.Etag)
}

// IsLFS reports whether the etag is the SHA-256 of the content.
func (f File) IsLFS() bool { return len(f.Etag) == 64 }

// NewHash returns the hash function for the etag.
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
	// Client sends the requests. Its Hub is the URL of the hub, without a trailing
	// slash; its HubToken is the access token. Required.
	Client *fetch.Client

	// Pause is the pause before the first retry; 0 means 250 ms.
	Pause time.Duration
}

// Get sends one GET request and calls read with the response, as [fetch.Client.Get] does.
// header may be nil and is not modified.
func (h *Hub) Get(ctx context.Context, address string, header http.Header, read func(*http.Response, io.Reader) error) error {
	if header = header.Clone(); header == nil {
		header = http.Header{}
	}
	header.Set("Accept-Encoding", "identity")
	return h.Client.Get(ctx, "", address, header, read)
}

const (
	maxPage  = 64 << 20 // maximum size of a page of a listing, in bytes
	maxFiles = 100000   // maximum number of files of a repository
)

// getPage decodes one page of JSON into v, with retries. next is the URL of the next page;
// empty for the last page.
func (h *Hub) getPage(ctx context.Context, address string, v any) (next string, err error) {
	err = fetch.Retry(ctx, h.Pause, func() (err error) {
		next, err = h.tryPage(ctx, address, v)
		return err
	})
	return next, err
}

// tryPage works like getPage without retries.
func (h *Hub) tryPage(ctx context.Context, address string, v any) (next string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = h.Get(ctx, address, http.Header{}, func(resp *http.Response, body io.Reader) error {
		if resp.StatusCode != http.StatusOK {
			return fetch.NewStatusError(resp)
		}
		data, err := io.ReadAll(io.LimitReader(body, maxPage))
		if err != nil {
			return err
		}
		if err := json.Unmarshal(data, v); err != nil {
			return &fetch.StatusError{Status: resp.StatusCode, Message: "invalid response of a model hub: " + err.Error()}
		}
		next = nextPage(resp, h.Client.Hub)
		return nil
	})
	return next, err
}

var nextLink = regexp.MustCompile(`<([^>]+)>\s*;\s*rel="?next"?`)

// nextPage returns the URL of the next page in the Link header (RFC 8288) of a response, with
// the scheme and host of endpoint. It returns an empty string if the header has none.
func nextPage(resp *http.Response, endpoint string) string {
	m := nextLink.FindStringSubmatch(resp.Header.Get("Link"))
	if m == nil {
		return ""
	}
	next, err := resp.Request.URL.Parse(m[1])
	hub, err2 := url.Parse(endpoint)
	if err != nil || err2 != nil {
		return ""
	}
	// A mirror may return URLs of the original hub.
	next.Scheme, next.Host = hub.Scheme, hub.Host
	return next.String()
}

// Repository returns the commit of the revision of ref, and all files of the repository. Some
// of the files may be invalid.
func (h *Hub) Repository(ctx context.Context, ref Ref) (commit string, files []File, err error) {
	base := h.Client.Hub + "/api/models/" + ref.Repo
	var info struct {
		SHA string `json:"sha"`
	}
	if _, err := h.getPage(ctx, base+"/revision/"+url.PathEscape(ref.RevisionOrMain()), &info); err != nil {
		return "", nil, h.explain(ref, err)
	}
	if !commitPattern.MatchString(info.SHA) {
		return "", nil, failure(operations.ReasonNotRbee, ref.String(), nil, "%s is not a model hub: its response for %s has no commit", h.Client.Hub, ref.Repo)
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
		if next, err = h.getPage(ctx, next, &page); err != nil {
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

// IsCommit reports whether s is the full hash of a commit.
func IsCommit(s string) bool { return commitPattern.MatchString(s) }

// IsEtag reports whether s is a valid [File.Etag].
func IsEtag(s string) bool { return etagPattern.MatchString(s) }

// explain converts an error of a request about ref to an error for the user.
func (h *Hub) explain(ref Ref, err error) error {
	var status *fetch.StatusError
	page := h.Client.Hub + "/" + ref.Repo
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case !errors.As(err, &status):
		return failure(fetch.DownloadReason(err), ref.String(), err, "cannot get model %q from %s: %v", ref, h.Client.Hub, err)
	case status.Code == "GatedRepo", status.Status == http.StatusForbidden:
		return failure(operations.ReasonModelGated, ref.String(), err, "model %q is gated: accept its terms at %s and set HF_TOKEN to a token of that account: %v", ref, page, status)
	case status.Code == "RevisionNotFound":
		return notFound(operations.ReasonModelUnknown, ref.String(), "model %q: the repository has no revision %q", ref, ref.RevisionOrMain())
	case status.Status == http.StatusUnauthorized && h.Client.HubToken != "":
		return failure(operations.ReasonModelGated, ref.String(), err, "the hub rejected the token (HF_TOKEN) for model %q, or the repository does not exist: %v", ref, status)
	case status.Status == http.StatusUnauthorized:
		return failure(operations.ReasonModelGated, ref.String(), err, "model %q does not exist or requires a token (HF_TOKEN): %v", ref, status)
	case status.Code == "RepoNotFound", status.Status == http.StatusNotFound:
		return notFound(operations.ReasonModelUnknown, ref.String(), "model %q not found at %s", ref, h.Client.Hub)
	}
	return failure(fetch.DownloadReason(err), ref.String(), err, "cannot get model %q from %s: %v", ref, h.Client.Hub, status)
}

// FileURL returns the URL of a file of a commit.
func (h *Hub) FileURL(repo, commit, path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return h.Client.Hub + "/" + repo + "/resolve/" + commit + "/" + strings.Join(parts, "/")
}

// DefaultEndpoint is the URL of the default model hub.
const DefaultEndpoint = "https://huggingface.co"
