// Package hubtest plays a model hub inside the process: the API, the addresses of
// files, and another host that they redirect to, with signatures that expire. It
// can be told to fail in the ways that real ones do.
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

// Repo is the files of a repository, by path.
type Repo map[string][]byte

// Fault is what a file's server does wrong. Counts say how often; -1 is always.
type Fault struct {
	IgnoreRange bool // answers every request with the whole file
	CutAfter    int  // bytes of an answer after which the connection is cut; 0: never
	Cuts        int  // how many answers are cut
	StallAfter  int  // bytes of an answer after which nothing comes any more; 0: never
	Stalls      int
	Wrong       int // answers with a byte that is wrong
	Status      int // answers with this status instead, Statuses times
	Statuses    int
	RetryAfter  int  // seconds
	NoSize      bool // says no Content-Length
	ShiftRange  bool // sends another range than the one asked for
}

// Hub is a model hub. Change its fields before it is asked; its methods may be
// called at any time.
type Hub struct {
	URL string // of the hub
	CDN string // of the host where the files are

	Repos map[string]Repo
	Gated map[string]string // repository to the token that it wants
	Page  int               // entries of one page of a listing; 0 is all
	Lists int               // how many listings answer 503 first

	server, cdn *httptest.Server

	mu       sync.Mutex
	faults   map[string]*Fault
	served   map[string]int64
	requests map[string]int
	signed   int  // the signature that is valid
	leaked   bool // the token came to the other host
	hold     chan struct{}
	held     chan struct{}
	after    int64
}

// New starts a hub. Close ends it.
func New(repos map[string]Repo) *Hub {
	h := &Hub{Repos: repos, Gated: map[string]string{}, faults: map[string]*Fault{}, served: map[string]int64{}, requests: map[string]int{}, signed: 1}
	h.server = httptest.NewServer(http.HandlerFunc(h.api))
	h.cdn = httptest.NewServer(http.HandlerFunc(h.file))
	h.URL, h.CDN = h.server.URL, h.cdn.URL
	return h
}

// Close ends the hub, and connections to it.
func (h *Hub) Close() {
	h.Release()
	for _, s := range []*httptest.Server{h.server, h.cdn} {
		s.CloseClientConnections()
		s.Close()
	}
}

// Disconnect closes all connections to the host of the files, and waits until no request
// is being served.
func (h *Hub) Disconnect() { h.cdn.CloseClientConnections() }

// Fail sets what goes wrong with files of this path.
func (h *Hub) Fail(path string, f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults[path] = &f
}

// Served is how many bytes of the files of this path were sent.
func (h *Hub) Served(path string) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.served[path]
}

// Requests is how often files of this path were asked for.
func (h *Hub) Requests(path string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests[path]
}

// Expire makes all addresses that were given invalid.
func (h *Hub) Expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signed++
}

// Leaked reports whether the token came to the host of the files.
func (h *Hub) Leaked() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.leaked
}

// Hold keeps files from being sent once so many bytes were, until Release. The
// channel is closed when that point is reached.
func (h *Hub) Hold(after int64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hold, h.held, h.after = make(chan struct{}), make(chan struct{}), after
	return h.held
}

// Release ends Hold.
func (h *Hub) Release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hold != nil {
		close(h.hold)
		h.hold = nil
	}
}

// Commit is the commit that every revision of a repository is.
func Commit(repo string) string {
	sum := sha1.Sum([]byte(repo))
	return hex.EncodeToString(sum[:])
}

// Sum is the SHA-256 of content, in hex.
func Sum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// Large are the files that the hub keeps by SHA-256.
func Large(path string) bool {
	for _, ext := range []string{".gguf", ".safetensors", ".bin"} {
		if strings.HasSuffix(path, ext) {
			return true
		}
	}
	return false
}

// GitSum is the hash by which git names content.
func GitSum(content []byte) string {
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(content)), content...))
	return hex.EncodeToString(sum[:])
}

func refuse(w http.ResponseWriter, status int, code, words string) {
	w.Header().Set("X-Error-Code", code)
	w.Header().Set("X-Error-Message", words)
	w.WriteHeader(status)
}

// api is the hub's own host.
func (h *Hub) api(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	path, isAPI := strings.CutPrefix(path, "api/models/")
	parts := strings.SplitN(path, "/", 5)
	if len(parts) < 4 {
		refuse(w, http.StatusNotFound, "", "Not found")
		return
	}
	name, verb, rev := parts[0]+"/"+parts[1], parts[2], parts[3]
	repo, ok := h.Repos[name]
	want := h.Gated[name]
	switch {
	case !ok && r.Header.Get("Authorization") == "":
		refuse(w, http.StatusUnauthorized, "RepoNotFound", "Invalid username or password.")
		return
	case !ok:
		refuse(w, http.StatusNotFound, "RepoNotFound", "Repository not found")
		return
	case want != "" && r.Header.Get("Authorization") != "Bearer "+want && (!isAPI || verb != "revision"):
		refuse(w, http.StatusUnauthorized, "GatedRepo", "Access to model "+name+" is restricted. You must have access to it and be authenticated to access it.")
		return
	}
	if len(parts) == 5 && isAPI {
		rev += "/" + parts[4]
	}
	if rev != "main" && rev != "refs/pr/1" && rev != Commit(name) {
		refuse(w, http.StatusNotFound, "RevisionNotFound", "Invalid rev id: "+rev)
		return
	}
	h.mu.Lock()
	busy := isAPI && h.Lists > 0
	if busy {
		h.Lists--
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
		refuse(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
	}
}

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
		e := entry{"file", GitSum(repo[path]), len(repo[path]), path, nil}
		if Large(path) {
			e.LFS = &lfs{Sum(repo[path]), len(repo[path])}
		}
		entries = append(entries, e)
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := len(entries)
	if h.Page > 0 && from+h.Page < to {
		to = from + h.Page
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, h.URL, r.URL.Path, to))
	}
	_ = json.NewEncoder(w).Encode(entries[min(from, to):to])
}

// file is the host where the files are.
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
		take := func(n *int) int {
			now := *n
			if *n > 0 {
				*n--
			}
			return now
		}
		f.Cuts, f.Stalls, f.Wrong, f.Statuses = take(&set.Cuts), take(&set.Stalls), take(&set.Wrong), take(&set.Statuses)
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
	out := &faulty{ResponseWriter: w, hub: h, path: path, fault: f, ctx: r.Context().Done()}
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

// faulty is an answer that goes wrong.
type faulty struct {
	http.ResponseWriter
	hub   *Hub
	path  string
	fault Fault
	sent  int
	ctx   <-chan struct{}
}

func (f *faulty) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		piece := b[:min(len(b), 16<<10)]
		m, err := f.write(piece)
		n += m
		if err != nil {
			return n, err
		}
		b = b[m:]
	}
	return n, nil
}

func (f *faulty) write(b []byte) (int, error) {
	if f.fault.CutAfter > 0 && f.fault.Cuts != 0 && f.sent >= f.fault.CutAfter {
		panic(http.ErrAbortHandler)
	}
	if f.fault.StallAfter > 0 && f.fault.Stalls != 0 && f.sent >= f.fault.StallAfter {
		_ = http.NewResponseController(f.ResponseWriter).Flush()
		<-f.ctx
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

// wait is where Hold holds.
func (f *faulty) wait() {
	f.hub.mu.Lock()
	var all int64
	for _, n := range f.hub.served {
		all += n
	}
	hold := f.hub.hold
	if hold == nil || all < f.hub.after {
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
	case <-f.ctx:
	}
}

// GGUF makes a small file in that format, with weights of so many bytes that
// differ by seed.
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

// Noise is n bytes that differ by seed and do not repeat soon.
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
