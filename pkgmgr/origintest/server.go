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

// Server plays the release API and the package index. Its methods may be called
// while it answers.
type Server struct {
	srv *httptest.Server

	mu       sync.Mutex
	releases map[string][]Release // by repository, newest last
	files    map[string][]byte    // downloads, by path
	wheels   map[string][]Wheel   // by normal name
	faults   []*Fault
	token    string
	limited  bool
	user     *url.Userinfo // who may ask the package index; nil for everybody
	html     bool          // the package index answers in HTML
	asked    []string

	mirror    bool // the API gives addresses on github.com
	answers   []fixedAnswer
	requests  int // to the release API
	unchanged int // of those, answered with 304
}

// Release is a release of a repository.
type Release struct {
	Tag               string
	Published         time.Time // zero for none
	Draft, Prerelease bool
	Assets            map[string][]byte // by name
	Code              []byte            // the source code, packed as tar.gz
	NoDigest          bool              // the API tells no digests, as for old releases
	WrongDigest       bool              // it tells wrong ones
}

// Fault makes downloads go wrong.
type Fault struct {
	// Path is a part of the paths that it is for.
	Path string

	Status  int   // answered in place of the content; 0 for none
	Cut     int64 // the connection ends after so many bytes; 0 for never
	Corrupt bool  // a byte is another one
	Times   int   // how often; 0 for always
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := NewServer()
	t.Cleanup(s.Close)
	return s
}

// NewServer starts a server; Close ends it.
func NewServer() *Server {
	s := &Server{releases: map[string][]Release{}, files: map[string][]byte{}, wheels: map[string][]Wheel{}}
	s.srv = httptest.NewServer(s)
	return s
}

// Close ends the server.
func (s *Server) Close() { s.srv.Close() }

// API is the base address of the release API, and Index that of the package index.
func (s *Server) API() string   { return s.srv.URL + "/api" }
func (s *Server) Index() string { return s.srv.URL + "/simple" }

// Asked counts the requests whose path has a part.
func (s *Server) Asked(part string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, path := range s.asked {
		if strings.Contains(path, part) {
			n++
		}
	}
	return n
}

// AddRelease publishes a release, which is the newest then.
func (s *Server) AddRelease(repo string, r Release) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releases[repo] = append(s.releases[repo], r)
	for name, data := range r.Assets {
		s.files["/download/"+repo+"/"+r.Tag+"/"+name] = data
	}
	s.files["/code/"+repo+"/"+r.Tag] = r.Code
}

// AddFile publishes a download, and gives its address.
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
	s.wheels[normal(w.Name)] = append(s.wheels[normal(w.Name)], w)
	s.files["/packages/"+w.Filename()] = w.Bytes()
}

// Break makes downloads go wrong from now on.
func (s *Server) Break(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, &f)
}

// Mend ends all faults, and the limit of requests.
func (s *Server) Mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.limited, s.answers = nil, false, nil
}

// LimitRate lets the API answer only those with a token.
func (s *Server) LimitRate(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limited, s.token = true, token
}

// ServeHTML lets the package index answer in HTML (PEP 503), as simple servers do.
func (s *Server) ServeHTML() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.html = true
}

// Lock lets only those with a user's password ask the package index and download
// wheels. The address with them in it comes back.
func (s *Server) Lock(user, password string) (index string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = url.UserPassword(user, password)
	return strings.Replace(s.Index(), "://", "://"+s.user.String()+"@", 1)
}

// locked reports whether a request may not be answered for want of a password.
func (s *Server) locked(r *http.Request) bool {
	user, password, _ := r.BasicAuth()
	ofIndex := strings.HasPrefix(r.URL.Path, "/simple/") || strings.HasPrefix(r.URL.Path, "/packages/")
	return s.user != nil && ofIndex && url.UserPassword(user, password).String() != s.user.String()
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, r.URL.Path)
	switch path := r.URL.Path; {
	case s.fault(w, r):
	case s.locked(r):
		http.Error(w, "who are you?", http.StatusUnauthorized)
	case s.fixed(w, r):
	case strings.HasPrefix(path, "/api/repos/"):
		s.api(w, r, strings.TrimPrefix(path, "/api/repos/"))
	case strings.HasPrefix(path, "/simple/"):
		s.project(w, r, strings.Trim(strings.TrimPrefix(path, "/simple/"), "/"))
	default:
		s.download(w, r)
	}
}

func (s *Server) api(w http.ResponseWriter, r *http.Request, path string) {
	s.requests++
	s.rateHeaders(w.Header())
	if s.limited && r.Header.Get("Authorization") != "Bearer "+s.token {
		w.Header().Set("X-RateLimit-Remaining", "0")
		answer(w, http.StatusForbidden, map[string]string{"message": "API rate limit exceeded"})
		return
	}
	if repo, tag, ok := strings.Cut(path, "/tarball/"); ok {
		http.Redirect(w, r, s.srv.URL+"/code/"+repo+"/"+tag, http.StatusFound) // as GitHub does
		return
	}
	repo, what, _ := strings.Cut(path, "/releases")
	var list []Release
	for _, rel := range slices.Backward(s.releases[repo]) {
		tag, named := strings.CutPrefix(what, "/tags/")
		if what == "/latest" && !rel.Draft && !rel.Prerelease || named && tag == rel.Tag {
			s.tagged(w, r, s.release(repo, rel))
			return
		}
		list = append(list, rel)
	}
	if what != "" || len(list) == 0 {
		answer(w, http.StatusNotFound, map[string]string{"message": "Not Found"})
		return
	}
	per, _ := strconv.Atoi(r.URL.Query().Get("per_page"))
	per = min(max(per, 1), 100)
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	from := min(max(page-1, 0)*per, len(list))
	to := min(from+per, len(list))
	if to < len(list) {
		w.Header().Set("Link", fmt.Sprintf(`<%s/repositories/1/releases?per_page=%d&page=%d>; rel="next"`, s.API(), per, max(page, 1)+1))
	}
	pageOf := []any{}
	for _, rel := range list[from:to] {
		pageOf = append(pageOf, s.release(repo, rel))
	}
	s.tagged(w, r, pageOf)
}

// rateHeaders sets the headers on the limit of requests.
func (s *Server) rateHeaders(h http.Header) {
	const limit = 60
	h.Set("X-RateLimit-Limit", strconv.Itoa(limit))
	h.Set("X-RateLimit-Used", strconv.Itoa(s.requests))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(max(limit-s.requests, 1)))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10))
	h.Set("X-RateLimit-Resource", "core")
}

// tagged answers with JSON and its ETag, or with 304 if the client has the same.
func (s *Server) tagged(w http.ResponseWriter, r *http.Request, body any) {
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
	_, _ = w.Write(data) // the client sees what it got
}

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

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client sees what it got
}

// project is the page of a package: name, or backend/name for one that is built
// for a torch backend.
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
		if wheel.LieSize != 0 {
			size = wheel.LieSize
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
			http.Error(w, "out of order", f.Status)
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

// String names the server, for failures.
func (s *Server) String() string { return fmt.Sprintf("origintest at %s", s.srv.URL) }

// fault sends the failure that [Server.Break] asks for on a page; false if none does.
func (s *Server) fault(w http.ResponseWriter, r *http.Request) bool {
	for _, f := range s.faults {
		if f.Status != 0 && strings.Contains(r.URL.Path, f.Path) && strings.HasPrefix(f.Path, "/simple/") {
			http.Error(w, "out of order", f.Status)
			return true
		}
	}
	return false
}
