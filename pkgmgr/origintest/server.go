package origintest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Server serves a release API, a package index and downloads. It is safe for concurrent use.
type Server struct {
	srv *httptest.Server

	mu       sync.Mutex
	releases map[string][]Release // by repository, newest last
	files    map[string][]byte    // downloads, by path
	wheels   map[string][]Wheel   // by normalized name
	faults   []*Fault
	token    string
	limited  bool
	user     *url.Userinfo // credentials for the package index; nil for none
	html     bool          // the package index responds with HTML
	paths    []string      // of all requests

	mirror      bool // the API returns URLs on github.com
	responses   []fixedResponse
	apiRequests int // requests to the release API
	unchanged   int // responses of the release API with status 304
}

// Release is a release of a repository.
type Release struct {
	Tag               string
	Published         time.Time // zero for none
	Draft, Prerelease bool
	Assets            map[string][]byte // by name
	Code              []byte            // the source code as a tar.gz archive
	NoDigest          bool              // the API returns no digests, as for old releases
	WrongDigest       bool              // the API returns wrong digests
}

// Fault is a fault of downloads.
type Fault struct {
	// Path is a substring of the paths with the fault.
	Path string

	Status  int   // error status; 0 for none
	Cut     int64 // number of bytes after which the connection is closed; 0 for never
	Corrupt bool  // whether a byte of the content is changed
	Times   int   // number of downloads with the fault; 0 for all
}

// New starts a server and stops it at the end of the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := NewServer()
	t.Cleanup(s.Close)
	return s
}

// NewServer starts a server. Call Close to stop it.
func NewServer() *Server {
	s := &Server{releases: map[string][]Release{}, files: map[string][]byte{}, wheels: map[string][]Wheel{}}
	s.srv = httptest.NewServer(s)
	return s
}

// Close stops the server.
func (s *Server) Close() { s.srv.Close() }

// API returns the base URL of the release API.
func (s *Server) API() string { return s.srv.URL + "/api" }

// Index returns the base URL of the package index.
func (s *Server) Index() string { return s.srv.URL + "/simple" }

// RequestCount returns the number of requests whose path contains part.
func (s *Server) RequestCount(part string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, path := range s.paths {
		if strings.Contains(path, part) {
			n++
		}
	}
	return n
}

// AddRelease publishes a release, which becomes the newest release of the repository.
func (s *Server) AddRelease(repo string, r Release) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releases[repo] = append(s.releases[repo], r)
	for name, data := range r.Assets {
		s.files["/download/"+repo+"/"+r.Tag+"/"+name] = data
	}
	s.files["/code/"+repo+"/"+r.Tag] = r.Code
}

// AddFile publishes a download and returns its URL.
func (s *Server) AddFile(path string, data []byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = data
	return s.srv.URL + path
}

// AddWheel publishes a wheel.
func (s *Server) AddWheel(w Wheel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wheels[normalize(w.Name)] = append(s.wheels[normalize(w.Name)], w)
	s.files["/packages/"+w.Filename()] = w.Bytes()
}

// AddFault adds a fault to the following downloads.
func (s *Server) AddFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// ClearFaults removes all faults, the rate limit and all responses of [Server.SetResponse].
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.limited, s.responses = nil, false, nil
}

// LimitRate makes the release API reject requests without the token, as if the rate limit
// were exceeded.
func (s *Server) LimitRate(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limited, s.token = true, token
}

// ServeHTML makes the package index respond with HTML (PEP 503), as simple servers do.
func (s *Server) ServeHTML() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.html = true
}

// RequirePassword protects the package index and its wheels with a user name and a password.
// It returns the URL of the index with both.
func (s *Server) RequirePassword(user, password string) (index string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = url.UserPassword(user, password)
	return strings.Replace(s.Index(), "://", "://"+s.user.String()+"@", 1)
}

// unauthorized reports whether a request to the package index lacks valid credentials.
func (s *Server) unauthorized(r *http.Request) bool {
	user, password, _ := r.BasicAuth()
	isIndex := strings.HasPrefix(r.URL.Path, "/simple/") || strings.HasPrefix(r.URL.Path, "/packages/")
	return s.user != nil && isIndex && url.UserPassword(user, password).String() != s.user.String()
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths = append(s.paths, r.URL.Path)
	switch path := r.URL.Path; {
	case s.writeIndexFault(w, r):
	case s.unauthorized(r):
		http.Error(w, "authentication required", http.StatusUnauthorized)
	case s.writeFixedResponse(w, r):
	case strings.HasPrefix(path, "/api/repos/"):
		s.api(w, r, strings.TrimPrefix(path, "/api/repos/"))
	case strings.HasPrefix(path, "/simple/"):
		s.project(w, r, strings.Trim(strings.TrimPrefix(path, "/simple/"), "/"))
	default:
		s.download(w, r)
	}
}

// api handles a request to the release API; path is the path after "/api/repos/".
func (s *Server) api(w http.ResponseWriter, r *http.Request, path string) {
	s.apiRequests++
	s.setRateHeaders(w.Header())
	if s.limited && r.Header.Get("Authorization") != "Bearer "+s.token {
		w.Header().Set("X-RateLimit-Remaining", "0")
		writeJSON(w, http.StatusForbidden, map[string]string{"message": "API rate limit exceeded"})
		return
	}
	if repo, tag, ok := strings.Cut(path, "/tarball/"); ok {
		http.Redirect(w, r, s.srv.URL+"/code/"+repo+"/"+tag, http.StatusFound) // as GitHub does
		return
	}
	repo, selector, _ := strings.Cut(path, "/releases")
	var list []Release
	for _, rel := range slices.Backward(s.releases[repo]) {
		tag, byTag := strings.CutPrefix(selector, "/tags/")
		if selector == "/latest" && !rel.Draft && !rel.Prerelease || byTag && tag == rel.Tag {
			s.writeWithETag(w, r, s.release(repo, rel))
			return
		}
		list = append(list, rel)
	}
	if selector != "" || len(list) == 0 {
		writeJSON(w, http.StatusNotFound, map[string]string{"message": "Not Found"})
		return
	}
	perPage, _ := strconv.Atoi(r.URL.Query().Get("per_page"))
	perPage = min(max(perPage, 1), 100)
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	from := min(max(page-1, 0)*perPage, len(list))
	to := min(from+perPage, len(list))
	if to < len(list) {
		w.Header().Set("Link", fmt.Sprintf(`<%s/repositories/1/releases?per_page=%d&page=%d>; rel="next"`, s.API(), perPage, max(page, 1)+1))
	}
	releases := []any{}
	for _, rel := range list[from:to] {
		releases = append(releases, s.release(repo, rel))
	}
	s.writeWithETag(w, r, releases)
}

// setRateHeaders sets the rate limit headers of the release API.
func (s *Server) setRateHeaders(h http.Header) {
	const limit = 60
	h.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	h.Set("X-RateLimit-Used", strconv.Itoa(s.apiRequests))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(max(limit-s.apiRequests, 1)))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10))
	h.Set("X-RateLimit-Resource", "core")
}

// writeWithETag writes a JSON response with an ETag, or status 304 if the client has the same
// content.
func (s *Server) writeWithETag(w http.ResponseWriter, r *http.Request, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	etag := `W/"` + hexSum(data) + `"`
	w.Header().Set("ETag", etag)
	w.Header().Set("Cache-Control", "public, max-age=60, s-maxage=60")
	if r.Header.Get("If-None-Match") == etag {
		s.unchanged++
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write(data) // the client detects an incomplete response
}

// release returns the JSON value of a release in the format of the GitHub API.
func (s *Server) release(repo string, r Release) any {
	assets := []any{}
	for _, name := range slices.Sorted(maps.Keys(r.Assets)) {
		a := map[string]any{
			"name": name, "label": "", "state": "uploaded", "content_type": "application/gzip", "download_count": 17,
			"url": s.API() + "/repos/" + repo + "/releases/assets/1", "uploader": map[string]any{"login": "github-actions[bot]", "type": "Bot"},
			"created_at": "2026-09-24T10:00:00Z", "updated_at": "2026-09-24T10:01:00Z",
			"size": len(r.Assets[name]), "browser_download_url": s.assetURL(repo, r.Tag, name),
		}
		switch {
		case r.WrongDigest:
			a["digest"] = "sha256:" + strings.Repeat("0", 64)
		case !r.NoDigest:
			a["digest"] = "sha256:" + hexSum(r.Assets[name])
		}
		assets = append(assets, a)
	}
	published := cmp.Or(r.Published, time.Date(2026, 9, 24, 10, 2, 0, 0, time.UTC))
	return map[string]any{
		"url": s.API() + "/repos/" + repo + "/releases/1", "html_url": s.srv.URL + "/" + repo + "/releases/tag/" + r.Tag, "id": 1,
		"author": map[string]any{"login": "github-actions[bot]"}, "target_commitish": "master", "name": r.Tag, "immutable": false,
		"created_at": "2026-09-24T10:00:00Z", "published_at": published.UTC().Format(time.RFC3339), "body": "<details open>\n\nserver : a change (#1)\n\n</details>",
		"tag_name": r.Tag, "draft": r.Draft, "prerelease": r.Prerelease, "assets": assets, "tarball_url": s.API() + "/repos/" + repo + "/tarball/" + r.Tag,
	}
}

// writeJSON writes a JSON response.
func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client detects an incomplete response
}

// project writes the index page of a package. name is the package, or backend/package for the
// index of a torch backend.
func (s *Server) project(w http.ResponseWriter, r *http.Request, name string) {
	backend, pkg, ok := strings.Cut(name, "/")
	if !ok {
		backend, pkg = "", name
	}
	root := strings.Repeat("../", 2+strings.Count(name, "/"))
	files := []any{}
	page := "<!DOCTYPE html>\n<html>\n  <head>\n    <meta name=\"pypi:repository-version\" content=\"1.0\">\n    <title>Links for " + pkg + "</title>\n  </head>\n  <body>\n    <h1>Links for " + pkg + "</h1>\n"
	for _, wheel := range s.wheels[pkg] {
		if wheel.Torch != backend {
			continue
		}
		size := int64(len(wheel.Bytes()))
		if wheel.ReportedSize != 0 {
			size = wheel.ReportedSize
		}
		file := map[string]any{
			"filename": wheel.Filename(), "url": root + "packages/" + wheel.Filename(), "size": size,
			"hashes": map[string]string{"sha256": hexSum(wheel.Bytes())}, "yanked": wheel.Yanked,
		}
		if !wheel.Uploaded.IsZero() {
			file["upload-time"] = wheel.Uploaded.UTC().Format("2006-01-02T15:04:05.000000Z")
		}
		files = append(files, file)
		yanked := ""
		if wheel.Yanked {
			yanked = ` data-yanked="broken"`
		}
		page += fmt.Sprintf("    <a href=%q%s>%s</a><br/>\n", root+"packages/"+wheel.Filename()+"#sha256="+hexSum(wheel.Bytes()), yanked, wheel.Filename())
	}
	if s.html && len(files) > 0 {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, page+"  </body>\n</html>\n")
		return
	}
	if len(files) == 0 || !strings.Contains(r.Header.Get("Accept"), "application/vnd.pypi.simple.v1+json") {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"meta": map[string]string{"api-version": "1.1"}, "name": pkg, "files": files})
}

// download writes a published file, with the faults for its path.
func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	data, ok := s.files[mirroredPath(r.URL.Path)]
	if !ok {
		http.NotFound(w, r)
		return
	}
	for _, f := range s.faults {
		if !strings.Contains(r.URL.Path, f.Path) || f.Times < 0 {
			continue
		}
		if f.Times > 0 {
			if f.Times--; f.Times == 0 {
				f.Times = -1
			}
		}
		switch {
		case f.Status != 0:
			http.Error(w, "injected fault", f.Status)
			return
		case f.Cut > 0 && r.Header.Get("Range") == "":
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			_, _ = w.Write(data[:min(f.Cut, int64(len(data)))])
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		case f.Corrupt:
			data = bytes.Clone(data)
			data[len(data)/2] ^= 1
		}
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

func hexSum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// String returns a description of the server for test failure messages.
func (s *Server) String() string { return fmt.Sprintf("origintest at %s", s.srv.URL) }

// writeIndexFault writes an error response if a fault applies to this page of the package
// index. It returns false if none applies.
func (s *Server) writeIndexFault(w http.ResponseWriter, r *http.Request) bool {
	for _, f := range s.faults {
		if f.Status != 0 && strings.Contains(r.URL.Path, f.Path) && strings.HasPrefix(f.Path, "/simple/") {
			http.Error(w, "injected fault", f.Status)
			return true
		}
	}
	return false
}
