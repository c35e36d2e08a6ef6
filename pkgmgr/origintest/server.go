package origintest

import (
	"bytes"
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
	answers  []fixedAnswer
	asked    []string
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
	s.faults, s.limited = nil, false
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
	case s.fixed(w, r), s.fault(w, r):
	case s.locked(r):
		http.Error(w, "who are you?", http.StatusUnauthorized)
	case strings.HasPrefix(path, "/api/repos/"):
		s.api(w, r, strings.TrimPrefix(path, "/api/repos/"))
	case strings.HasPrefix(path, "/simple/"):
		s.project(w, r, strings.Trim(strings.TrimPrefix(path, "/simple/"), "/"))
	default:
		s.download(w, r)
	}
}

func (s *Server) api(w http.ResponseWriter, r *http.Request, path string) {
	if s.limited && r.Header.Get("Authorization") != "Bearer "+s.token {
		w.Header().Set("X-RateLimit-Remaining", "0")
		w.Header().Set("X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10))
		answer(w, http.StatusForbidden, map[string]string{"message": "API rate limit exceeded"})
		return
	}
	if repo, tag, ok := strings.Cut(path, "/tarball/"); ok {
		http.Redirect(w, r, s.srv.URL+"/code/"+repo+"/"+tag, http.StatusFound) // as GitHub does
		return
	}
	repo, what, _ := strings.Cut(path, "/releases")
	var list []any
	for _, rel := range slices.Backward(s.releases[repo]) {
		tag, named := strings.CutPrefix(what, "/tags/")
		if what == "/latest" && !rel.Draft && !rel.Prerelease || named && tag == rel.Tag {
			answer(w, http.StatusOK, s.release(repo, rel))
			return
		}
		list = append(list, s.release(repo, rel))
	}
	if what != "" || len(list) == 0 {
		answer(w, http.StatusNotFound, map[string]string{"message": "Not Found"})
		return
	}
	per, _ := strconv.Atoi(r.URL.Query().Get("per_page"))
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	from := min(max(page-1, 0)*per, len(list))
	answer(w, http.StatusOK, list[from:min(from+per, len(list))])
}

func (s *Server) release(repo string, r Release) any {
	assets := []any{}
	for _, name := range slices.Sorted(maps.Keys(r.Assets)) {
		a := map[string]any{
			"name": name, "size": len(r.Assets[name]), "browser_download_url": s.srv.URL + "/download/" + repo + "/" + r.Tag + "/" + name,
		}
		switch {
		case r.WrongDigest:
			a["digest"] = "sha256:" + strings.Repeat("0", 64)
		case !r.NoDigest:
			a["digest"] = "sha256:" + hexSum(r.Assets[name])
		}
		assets = append(assets, a)
	}
	var published any
	if !r.Published.IsZero() {
		published = r.Published.UTC().Format(time.RFC3339)
	}
	return map[string]any{
		"published_at": published, "tag_name": r.Tag, "draft": r.Draft, "prerelease": r.Prerelease, "assets": assets, "tarball_url": s.API() + "/repos/" + repo + "/tarball/" + r.Tag,
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
	data, ok := s.files[r.URL.Path]
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

// Answer publishes one answer for all paths below a prefix, whatever is asked there. It
// returns the address of the prefix.
func (s *Server) Answer(prefix, contentType, body string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, fixedAnswer{prefix, contentType, body})
	return s.srv.URL + strings.TrimSuffix(prefix, "/")
}

type fixedAnswer struct{ prefix, contentType, body string }

// fixed sends the answer of [Server.Answer]; false if there is none for the path.
func (s *Server) fixed(w http.ResponseWriter, r *http.Request) bool {
	for _, a := range s.answers {
		if strings.HasPrefix(r.URL.Path, a.prefix) {
			w.Header().Set("Content-Type", a.contentType)
			_, _ = io.WriteString(w, a.body)
			return true
		}
	}
	return false
}

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
