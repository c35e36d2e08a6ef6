package resolve

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
)

// responseTTL limits the age of a cached response since its last use.
const responseTTL = 30 * 24 * time.Hour

// cachedResponse is a response of the release API in the cache. Its file contains a line of
// JSON with these fields, followed by the body.
type cachedResponse struct {
	URL    string `json:"url"`
	ETag   string `json:"etag"`
	SHA256 string `json:"sha256"` // of the body in hexadecimal; detects damaged files

	body []byte
}

// get requests the releases of a repository and decodes the JSON response. suffix is the rest
// of the address, such as "/latest". get caches responses with their ETag: if a response has not
// changed, the server returns status 304, which GitHub does not count in the rate limit of
// clients with a token. The error is [fetch.ErrNotFound] if the server returns 404.
func (g *releases) get(ctx context.Context, repo, suffix string, into any) error {
	address := strings.TrimSuffix(g.client.API, "/") + "/repos/" + repo + "/releases" + suffix
	path := g.cachePath(address)
	cached := readResponse(path, address)
	header := http.Header{"Accept": {"application/vnd.github+json"}, "X-Github-Api-Version": {"2022-11-28"}}
	if cached != nil {
		header.Set("If-None-Match", cached.ETag)
	}
	return g.client.Get(ctx, "request", address, header, func(resp *http.Response, r io.Reader) error {
		switch resp.StatusCode {
		case http.StatusOK:
		case http.StatusNotModified:
			if cached != nil && json.Unmarshal(cached.body, into) == nil {
				touch(path)
				return nil
			}
			_ = os.Remove(path)
			return errors.New("unexpected response 304 Not Modified: try again")
		case http.StatusNotFound:
			return fetch.ErrNotFound
		default:
			return g.client.ResponseError(resp)
		}
		body, err := io.ReadAll(io.LimitReader(r, fetch.MaxResponse+1))
		switch {
		case err != nil:
			return err
		case len(body) > fetch.MaxResponse:
			return fmt.Errorf("the response is larger than %d MiB", fetch.MaxResponse>>20)
		}
		if err := json.Unmarshal(body, into); err != nil {
			return g.invalidResponse(repo, describeResponse(resp.Header, body))
		}
		if etag := resp.Header.Get("ETag"); etag != "" {
			g.storeResponse(path, &cachedResponse{URL: address, ETag: etag, body: body})
		}
		return nil
	})
}

// invalidResponse returns the error for an unexpected response of the API. got describes the
// response.
func (g *releases) invalidResponse(repo, got string) error {
	return &fetch.APIError{Text: fmt.Sprintf("cannot read the releases of %s: %s returned %s; check GITHUB_API_URL and the proxy", repo, fetch.RedactURL(g.client.API), got)}
}

// describeResponse returns a description of a response that is not the expected JSON.
func describeResponse(h http.Header, body []byte) string {
	contentType, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return "an empty body"
	case contentType == "" || strings.Contains(contentType, "json"):
		return fmt.Sprintf("unexpected JSON: %.60q", body)
	default:
		return fmt.Sprintf("%s instead of JSON: %.60q", contentType, body)
	}
}

// cachePath returns the path of the cached response for an address, or "" without a cache.
// Responses with and without a token are cached separately, because they can contain
// different releases.
func (g *releases) cachePath(address string) string {
	if g.cacheDir == "" {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%t %s", g.client.Token != "", address))
	return filepath.Join(g.cacheDir, hex.EncodeToString(sum[:16]))
}

// readResponse reads the cached response for an address. It returns nil if the file is missing
// or damaged.
func readResponse(path, address string) *cachedResponse {
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	header, body, _ := bytes.Cut(data, []byte("\n"))
	r := &cachedResponse{body: body}
	if json.Unmarshal(header, r) != nil || r.URL != address || r.ETag == "" || r.SHA256 != bodySum(body) {
		return nil
	}
	return r
}

func bodySum(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// storeResponse writes a response to the cache and removes old responses. It ignores errors,
// because the server sends a response again if it is not in the cache.
func (g *releases) storeResponse(path string, r *cachedResponse) {
	if path == "" {
		return
	}
	g.cleanupOnce.Do(func() { removeUnused(g.cacheDir, time.Now().Add(-responseTTL)) })
	r.SHA256 = bodySum(r.body)
	header, err := json.Marshal(r)
	if err != nil {
		return
	}
	_ = atomicfile.Write(path, 0o600, func(w io.Writer) error {
		_, err := w.Write(append(append(header, '\n'), r.body...))
		return err
	})
}

// touch sets the modification time of a file to the current time.
func touch(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now)
}

// removeUnused removes the files of a directory that were not used since the given time.
func removeUnused(dir string, since time.Time) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, file := range files {
		if info, err := file.Info(); err == nil && info.Mode().IsRegular() && info.ModTime().Before(since) {
			_ = os.Remove(filepath.Join(dir, file.Name()))
		}
	}
}
