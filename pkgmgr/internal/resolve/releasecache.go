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

// responseTTL is how long an answer of the release API is kept after its last use.
const responseTTL = 30 * 24 * time.Hour

// cachedResponse is an answer of the release API that is kept on disk. In its file, a
// line of JSON with these fields comes before the body.
type cachedResponse struct {
	URL    string `json:"url"`
	ETag   string `json:"etag"`
	SHA256 string `json:"sha256"` // of the body, in hex: a damaged file must not name files to install

	body []byte
}

// get requests what is below the releases of a repository, such as "/latest", and
// decodes the JSON of the answer. An answer is kept with its ETag: while it has not
// changed, the server sends only that, which GitHub does not count for clients with a
// token. The error is [fetch.ErrNotFound] if the server has nothing there.
func (g *releases) get(ctx context.Context, repo, what string, into any) error {
	address := strings.TrimSuffix(g.client.API, "/") + "/repos/" + repo + "/releases" + what
	path := g.cachePath(address)
	stored := readResponse(path, address)
	header := http.Header{"Accept": {"application/vnd.github+json"}, "X-Github-Api-Version": {"2022-11-28"}}
	if stored != nil {
		header.Set("If-None-Match", stored.ETag)
	}
	return g.client.Get(ctx, "asking", address, header, func(resp *http.Response, r io.Reader) error {
		switch resp.StatusCode {
		case http.StatusOK:
		case http.StatusNotModified:
			if stored != nil && json.Unmarshal(stored.body, into) == nil {
				touch(path)
				return nil
			}
			_ = os.Remove(path)
			return errors.New("the server answers 304 Not Modified without a reason: try again")
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
			return fmt.Errorf("the answer is larger than %d MiB", fetch.MaxResponse>>20)
		}
		if err := json.Unmarshal(body, into); err != nil {
			return g.invalidResponse(repo, describe(resp.Header, body))
		}
		if etag := resp.Header.Get("ETag"); etag != "" {
			g.storeResponse(path, &cachedResponse{URL: address, ETag: etag, body: body})
		}
		return nil
	})
}

// invalidResponse returns the error for an answer that is not what the API sends; what
// describes the answer.
func (g *releases) invalidResponse(repo, what string) error {
	return &fetch.APIError{Text: fmt.Sprintf("cannot read the releases of %s: %s answers with %s; check GITHUB_API_URL and the proxy", repo, fetch.RedactURL(g.client.API), what)}
}

// describe describes an answer that is not the JSON that was expected.
func describe(h http.Header, body []byte) string {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return "an empty body"
	case kind == "" || strings.Contains(kind, "json"):
		return fmt.Sprintf("something other than releases: %.60q", body)
	default:
		return fmt.Sprintf("%s instead of JSON: %.60q", kind, body)
	}
}

// cachePath returns the file for an answer; empty if none are kept. Clients with a
// token and without one may see different releases.
func (g *releases) cachePath(address string) string {
	if g.cacheDir == "" {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%t %s", g.client.Token != "", address))
	return filepath.Join(g.cacheDir, hex.EncodeToString(sum[:16]))
}

// readResponse reads an answer from its file; nil if there is none, or if it is damaged.
func readResponse(path, address string) *cachedResponse {
	if path == "" {
		return nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	head, body, _ := bytes.Cut(data, []byte("\n"))
	a := &cachedResponse{body: body}
	if json.Unmarshal(head, a) != nil || a.URL != address || a.ETag == "" || a.SHA256 != bodySum(body) {
		return nil
	}
	return a
}

func bodySum(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// storeResponse keeps an answer, and removes answers that were not used for long. A failure
// costs a repeated answer later, and nothing else.
func (g *releases) storeResponse(path string, a *cachedResponse) {
	if path == "" {
		return
	}
	g.cleanupOnce.Do(func() { removeUnused(g.cacheDir, time.Now().Add(-responseTTL)) })
	a.SHA256 = bodySum(a.body)
	head, err := json.Marshal(a)
	if err != nil {
		return
	}
	_ = atomicfile.Write(path, 0o600, func(w io.Writer) error {
		_, err := w.Write(append(append(head, '\n'), a.body...))
		return err
	})
}

// touch notes that a file was used now.
func touch(path string) {
	now := time.Now()
	_ = os.Chtimes(path, now, now)
}

// removeUnused removes the files of a directory that were not used since a time.
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
