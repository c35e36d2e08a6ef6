// Package hubtest provides a model hub for tests: an API server and a file server. The API
// server redirects requests for files to signed URLs of the file server, which can expire.
// Tests can inject the faults of real servers.
package hubtest

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Repo contains the files of a repository, by path.
type Repo map[string][]byte

// Fault describes the faults of the file server. In the numbers of responses, -1 means all
// responses.
type Fault struct {
	IgnoreRange bool // ignores Range headers
	CutAfter    int  // closes the connection after this number of bytes; 0 for never
	Cuts        int  // number of responses that are cut
	StallAfter  int  // stops sending after this number of bytes; 0 for never
	Stalls      int  // number of responses that stall
	Wrong       int  // number of responses with a wrong byte
	Status      int  // status of error responses
	Statuses    int  // number of error responses
	RetryAfter  int  // Retry-After header of error responses, in seconds; 0 for none
	NoSize      bool // omits the Content-Length header
	ShiftRange  bool // sends another range than the requested one
}

// Hub is a model hub. Its fields must be changed before the first request. Its methods are
// safe for concurrent use.
type Hub struct {
	URL string // of the API server
	CDN string // URL of the file server

	Repos        map[string]Repo
	Gated        map[string]string // the required token of each gated repository
	PageSize     int               // number of entries per page of a listing; 0 for all
	ListFailures int               // number of API requests that fail with status 503 before one succeeds

	server, cdn *httptest.Server

	mu       sync.Mutex
	faults   map[string]*Fault // by path
	served   map[string]int64  // bytes, by path
	requests map[string]int    // by path
	signed   int               // the valid signature
	leaked   bool              // the file server received a token
	hold     chan struct{}     // closed by Release; nil if Hold is not in effect
	held     chan struct{}     // closed when the file server blocks
	after    int64             // number of bytes after which the file server blocks
}

// New starts a hub. Call Close to stop it.
func New(repos map[string]Repo) *Hub {
	h := &Hub{Repos: repos, Gated: map[string]string{}, faults: map[string]*Fault{}, served: map[string]int64{}, requests: map[string]int{}, signed: 1}
	h.server = httptest.NewServer(http.HandlerFunc(h.api))
	h.cdn = httptest.NewServer(http.HandlerFunc(h.file))
	h.URL, h.CDN = h.server.URL, h.cdn.URL
	return h
}

// Close stops the hub and closes all connections to it.
func (h *Hub) Close() {
	h.Release()
	for _, s := range []*httptest.Server{h.server, h.cdn} {
		s.CloseClientConnections()
		s.Close()
	}
}

// Disconnect closes all connections to the file server and waits for its handlers to return.
func (h *Hub) Disconnect() { h.cdn.CloseClientConnections() }

// Fail sets the faults for files with this path.
func (h *Hub) Fail(path string, f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[path] = &f
}

// Served returns the number of bytes sent for files with this path.
func (h *Hub) Served(path string) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.served[path]
}

// Requests returns the number of requests for files with this path.
func (h *Hub) Requests(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[path]
}

// Expire invalidates all signed URLs.
func (h *Hub) Expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signed++
}

// Leaked reports whether the file server has received a token.
func (h *Hub) Leaked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leaked
}

// Hold makes the file server block after it has sent the given number of bytes in total, until
// Release is called. The returned channel is closed when the server blocks.
func (h *Hub) Hold(after int64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold, h.held, h.after = make(chan struct{}), make(chan struct{}), after
	return h.held
}

// Release unblocks the file server after Hold.
func (h *Hub) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hold != nil {
		close(h.hold)
		h.hold = nil
	}
}

// Commit returns the commit of all revisions of a repository.
func Commit(repo string) string {
	sum := sha1.Sum([]byte(repo))
	return hex.EncodeToString(sum[:])
}

// Sum returns the SHA-256 of content in hex.
func Sum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// IsLFS reports whether the hub stores the file at path in Git LFS.
func IsLFS(path string) bool {
	for _, ext := range []string{".gguf", ".safetensors", ".bin"} {
		if strings.HasSuffix(path, ext) {
			return true
		}
	}
	return false
}

// GitBlobHash returns the hash of content as a git blob, in hex.
func GitBlobHash(content []byte) string {
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(content)), content...))
	return hex.EncodeToString(sum[:])
}

// writeError writes an error response in the format of the hub.
func writeError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("X-Error-Code", code)
	w.Header().Set("X-Error-Message", message)
	w.WriteHeader(status)
}

// api handles the requests to the API server.
func (h *Hub) api(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	path, isAPI := strings.CutPrefix(path, "api/models/")
	parts := strings.SplitN(path, "/", 5)
	if len(parts) < 4 {
		writeError(w, http.StatusNotFound, "", "Not found")
		return
	}
	name, verb, rev := parts[0]+"/"+parts[1], parts[2], parts[3]
	repo, ok := h.Repos[name]
	want := h.Gated[name]
	switch {
	case !ok && r.Header.Get("Authorization") == "":
		writeError(w, http.StatusUnauthorized, "RepoNotFound", "Invalid username or password.")
		return
	case !ok:
		writeError(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
		return
	case want != "" && r.Header.Get("Authorization") != "Bearer "+want && (!isAPI || verb != "revision"):
		writeError(w, http.StatusUnauthorized, "GatedRepo", "Access to model "+name+" is restricted. You must have access to it and be authenticated to access it.")
		return
	}
	if len(parts) == 5 && isAPI {
		rev += "/" + parts[4]
	}
	if rev != "main" && rev != "refs/pr/1" && rev != Commit(name) {
		writeError(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+rev)
		return
	}
	h.mu.Lock()
	busy := isAPI && h.ListFailures > 0
	if busy {
		h.ListFailures--
	}
	signature := h.signed
	h.mu.Unlock()
	switch {
	case busy:
		w.WriteHeader(http.StatusServiceUnavailable)
	case isAPI && verb == "revision":
		_ = json.NewEncoder(w).Encode(map[string]any{"id": name, "sha": Commit(name)})
	case isAPI && verb == "tree":
		h.tree(w, r, repo)
	case verb == "resolve" && len(parts) == 5 && repo[parts[4]] != nil:
		w.Header().Set("X-Repo-Commit", Commit(name))
		http.Redirect(w, r, fmt.Sprintf("%s/%s/%s?X-Signature=%d", h.CDN, name, parts[4], signature), http.StatusFound)
	default:
		writeError(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
	}
}

// tree writes the listing of the files of a repository.
func (h *Hub) tree(w http.ResponseWriter, r *http.Request, repo Repo) {
	type lfs struct {
		OID  string `json:"oid"`
		Size int    `json:"size"`
	}
	type entry struct {
		Type string `json:"type"`
		OID  string `json:"oid"`
		Size int    `json:"size"`
		Path string `json:"path"`
		LFS  *lfs   `json:"lfs,omitempty"`
	}
	entries := []entry{{Type: "directory", OID: strings.Repeat("0", 40), Path: "folder"}}
	for _, path := range slices.Sorted(maps.Keys(repo)) {
		e := entry{"file", GitBlobHash(repo[path]), len(repo[path]), path, nil}
		if IsLFS(path) {
			e.LFS = &lfs{Sum(repo[path]), len(repo[path])}
		}
		entries = append(entries, e)
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := len(entries)
	if h.PageSize > 0 && from+h.PageSize < to {
		to = from + h.PageSize
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, h.URL, r.URL.Path, to))
	}
	_ = json.NewEncoder(w).Encode(entries[min(from, to):to])
}

// file handles the requests to the file server.
func (h *Hub) file(w http.ResponseWriter, r *http.Request) {
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/"), "/", 3)
	if len(parts) < 3 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	path := parts[2]
	content, ok := h.Repos[parts[0]+"/"+parts[1]][path]
	h.mu.Lock()
	h.requests[path]++
	h.leaked = h.leaked || r.Header.Get("Authorization") != ""
	expired := r.URL.Query().Get("X-Signature") != "" && r.URL.Query().Get("X-Signature") != strconv.Itoa(h.signed)
	var f Fault
	if set := h.faults[path]; set != nil {
		f = *set
		decrement := func(n *int) int {
			old := *n
			if *n > 0 {
				*n--
			}
			return old
		}
		f.Cuts, f.Stalls, f.Wrong, f.Statuses = decrement(&set.Cuts), decrement(&set.Stalls), decrement(&set.Wrong), decrement(&set.Statuses)
	}
	h.mu.Unlock()
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		return
	case expired:
		w.WriteHeader(http.StatusForbidden)
		return
	case f.Statuses != 0:
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
		}
		w.WriteHeader(f.Status)
		return
	}
	if f.Wrong != 0 {
		content = bytes.Clone(content)
		content[len(content)/2] ^= 1
	}
	out := &faultyWriter{ResponseWriter: w, hub: h, path: path, fault: f, done: r.Context().Done()}
	if f.IgnoreRange {
		r.Header.Del("Range")
	}
	if f.NoSize {
		w.WriteHeader(http.StatusOK)
		_, _ = out.Write(content)
		return
	}
	if f.ShiftRange && r.Header.Get("Range") != "" {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes 1-%d/%d", len(content)-1, len(content)))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = out.Write(content[1:])
		return
	}
	http.ServeContent(out, r, "", time.Time{}, bytes.NewReader(content))
}

// faultyWriter writes a response with the faults of a Fault.
type faultyWriter struct {
	http.ResponseWriter
	hub   *Hub
	path  string
	fault Fault
	sent  int             // bytes
	done  <-chan struct{} // closed when the client disconnects
}

func (f *faultyWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		chunk := b[:min(len(b), 16<<10)]
		m, err := f.write(chunk)
		n += m
		if err != nil {
			return n, err
		}
		b = b[m:]
	}
	return n, nil
}

func (f *faultyWriter) write(b []byte) (int, error) {
	if f.fault.CutAfter > 0 && f.fault.Cuts != 0 && f.sent >= f.fault.CutAfter {
		panic(http.ErrAbortHandler)
	}
	if f.fault.StallAfter > 0 && f.fault.Stalls != 0 && f.sent >= f.fault.StallAfter {
		_ = http.NewResponseController(f.ResponseWriter).Flush()
		<-f.done
		panic(http.ErrAbortHandler)
	}
	f.wait()
	n, err := f.ResponseWriter.Write(b)
	f.sent += n
	f.hub.mu.Lock()
	f.hub.served[f.path] += int64(n)
	f.hub.mu.Unlock()
	return n, err
}

// wait blocks until [Hub.Release] is called if the number of bytes of [Hub.Hold] has been sent.
func (f *faultyWriter) wait() {
	f.hub.mu.Lock()
	var total int64
	for _, n := range f.hub.served {
		total += n
	}
	hold := f.hub.hold
	if hold == nil || total < f.hub.after {
		f.hub.mu.Unlock()
		return
	}
	select {
	case <-f.hub.held:
	default:
		close(f.hub.held)
	}
	f.hub.mu.Unlock()
	_ = http.NewResponseController(f.ResponseWriter).Flush()
	select {
	case <-hold:
	case <-f.done:
	}
}

// GGUF returns a GGUF file with the given parameters. weights is the size of its weights in
// bytes; their content depends on seed.
func GGUF(seed byte, layers, kvHeads, headLength, context uint32, weights int) []byte {
	var b bytes.Buffer
	put := func(v any) { _ = binary.Write(&b, binary.LittleEndian, v) }
	text := func(s string) { put(uint64(len(s))); b.WriteString(s) }
	b.WriteString("GGUF")
	put(uint32(3))
	put(uint64(1))
	put(uint64(8))
	text("general.architecture")
	put(uint32(8))
	text("llama")
	for _, kv := range []struct {
		key   string
		value uint32
	}{
		{"llama.block_count", layers}, {"llama.embedding_length", 8 * headLength}, {"llama.attention.head_count", 8},
		{"llama.attention.head_count_kv", kvHeads}, {"llama.context_length", context},
	} {
		text(kv.key)
		put(uint32(4))
		put(kv.value)
	}
	text("tokenizer.ggml.tokens")
	put(uint32(9))
	put(uint32(8))
	put(uint64(3))
	for _, token := range []string{"<s>", "bee", "honey"} {
		text(token)
	}
	text("general.name")
	put(uint32(8))
	text("a test's model")
	return append(b.Bytes(), Noise(seed, weights)...)
}

// Noise returns n pseudo-random bytes that depend on seed.
func Noise(seed byte, n int) []byte {
	b := make([]byte, n)
	x := uint64(seed) + 0x9e3779b97f4a7c15
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}
