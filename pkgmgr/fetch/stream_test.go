package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

// flakyServer responds with the elements of contents in order, one per request, and then
// repeats the last element. It aborts each response after limit bytes.
type flakyServer struct {
	contents []string
	hasETag  bool
	limit    int      // 0 for no limit
	ranges   []string // Range headers of the requests
}

func (f *flakyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.ranges = append(f.ranges, r.Header.Get("Range"))
	content := f.contents[min(len(f.ranges), len(f.contents))-1]
	if f.hasETag {
		w.Header().Set("ETag", fmt.Sprintf("%q", sha256Hex(content)))
	}
	out := w
	if f.limit > 0 {
		out = &abortWriter{w, f.limit}
	}
	http.ServeContent(out, r, "", time.Time{}, strings.NewReader(content))
}

// abortWriter aborts a response after the remaining number of bytes.
type abortWriter struct {
	http.ResponseWriter
	remaining int
}

func (a *abortWriter) Write(p []byte) (int, error) {
	if len(p) <= a.remaining {
		a.remaining -= len(p)
		return a.ResponseWriter.Write(p)
	}
	_, _ = a.ResponseWriter.Write(p[:a.remaining])
	_ = http.NewResponseController(a.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// requestedRanges returns the Range headers of all requests, or "-" if f received no requests.
func requestedRanges(f *flakyServer) string {
	if f.ranges == nil {
		return "-"
	}
	return strings.Join(f.ranges, ",")
}

func sha256Hex(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// TestDownloadToResumes checks that DownloadTo resumes an interrupted download, and that it
// never combines the contents of two files.
func TestDownloadToResumes(t *testing.T) {
	t.Parallel()
	const a, b = "the bees make honey", "the bees make wax.."
	for name, k := range map[string]struct {
		flakyServer
		sum    string
		size   int64
		want   string // the content, or a part of the error
		ranges string
	}{
		"checksum":                  {flakyServer{contents: []string{a}, limit: 7}, sha256Hex(a), 19, a, ",bytes=7-,bytes=14-"},
		"ETag":                      {flakyServer{contents: []string{a}, limit: 7, hasETag: true}, "", 0, a, ",bytes=7-,bytes=14-"},
		"neither checksum nor ETag": {flakyServer{contents: []string{a}, limit: 7}, "", 0, "unexpected EOF", ","},
		"changed ETag":              {flakyServer{contents: []string{a, b}, limit: 10, hasETag: true}, "", 0, b, ",bytes=10-,bytes=10-"},
		"changed content":           {flakyServer{contents: []string{b, a}, limit: 15}, sha256Hex(a), 0, a, ",bytes=15-,,bytes=15-"},
		"wrong content":             {flakyServer{contents: []string{b}}, sha256Hex(a), 0, "its SHA-256 is " + sha256Hex(b), ""},
		"too many interruptions":    {flakyServer{contents: []string{a}, limit: 1}, sha256Hex(a), 0, "unexpected EOF", ",bytes=1-,bytes=2-,bytes=3-,bytes=4-,bytes=5-,bytes=6-,bytes=7-,bytes=8-,bytes=9-"},
		"larger than the limit":     {flakyServer{contents: []string{a}}, sha256Hex(a), 18, "more than 18 bytes", ""},
	} {
		server := httptest.NewServer(&k.flakyServer)
		path := filepath.Join(t.TempDir(), "x")
		err := atomicfile.WriteFile(path, 0o600, func(f *os.File) error {
			sum, n, err := (&Client{}).DownloadTo(t.Context(), File{URL: server.URL + "/x", Sum: k.sum, Limit: k.size}, f)
			if err == nil && (sum != sha256Hex(k.want) || n != int64(len(k.want))) {
				t.Errorf("%s: DownloadTo() = %s, %d, want %s, %d", name, sum, n, sha256Hex(k.want), len(k.want))
			}
			return err
		})
		server.Close()
		got, _ := os.ReadFile(path)
		if ranges := strings.Join(k.flakyServer.ranges, ","); (string(got) != k.want) == (err == nil) || err != nil && !strings.Contains(err.Error(), k.want) || ranges != k.ranges {
			t.Errorf("%s: DownloadTo() = %v with content %q and ranges %q, want %q and ranges %q", name, err, got, ranges, k.want, k.ranges)
		}
	}
}

// TestDownloadResumesEarlierDownload checks that Download resumes from an existing part file,
// starts over if its content is wrong, and does not use a part file that is in use.
func TestDownloadResumesEarlierDownload(t *testing.T) {
	t.Parallel()
	const a = "the bees make honey"
	for name, k := range map[string]struct{ part, ranges string }{
		"empty":    {"", ""},
		"prefix":   {a[:7], "bytes=7-"},
		"wrong":    {"the wasps", "bytes=9-,"},
		"too long": {a + a, ""},
		"complete": {a, "-"},
		"in use":   {a[:8], ""},
	} {
		f := &flakyServer{contents: []string{a}}
		server := httptest.NewServer(f)
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path+".part", []byte(k.part), 0o600); err != nil {
			t.Fatal(err)
		}
		if name == "in use" {
			other, unlock, err := openPart(path + ".part")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			defer unlock()
		}
		err := (&Client{}).Download(t.Context(), File{URL: server.URL + "/x", Sum: sha256Hex(a), Limit: int64(len(a)), Path: path})
		server.Close()
		_, statErr := os.Stat(path + ".part")
		if got, _ := os.ReadFile(path); err != nil || string(got) != a || requestedRanges(f) != k.ranges {
			t.Errorf("%s: Download() = %v with content %q and ranges %q, want %q and ranges %q", name, err, got, requestedRanges(f), a, k.ranges)
		}
		if (statErr == nil) != (name == "in use") {
			t.Errorf("%s: Stat() of the part file after Download() = %v, want the file only if it is in use", name, statErr)
		}
	}
	// Download keeps the part file of an interrupted download, and removes wrong content.
	for sum, want := range map[string]string{sha256Hex(a): a[:1], sha256Hex("wax"): ""} {
		f := &flakyServer{contents: []string{a}, limit: 1}
		if want == "" {
			f.limit = 0
		}
		server := httptest.NewServer(f)
		ctx, cancel := context.WithCancel(t.Context())
		path := filepath.Join(t.TempDir(), "x")
		server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(f.ranges) > 0 {
				cancel()
			}
			f.ServeHTTP(w, r)
		})
		err := (&Client{}).Download(ctx, File{URL: server.URL + "/x", Sum: sum, Path: path})
		cancel()
		server.Close()
		if got, _ := os.ReadFile(path + ".part"); err == nil || !strings.HasPrefix(string(got), want) || (want == "") != (len(got) == 0) {
			t.Errorf("Download() = %v with part file %q, want an error and a part file with prefix %q (an empty prefix: an empty file)", err, got, want)
		}
	}
}

// TestRedirectDropsCredentials checks that a token and a password are sent only to the
// servers that they belong to, and never to the target of a redirect to another server.
func TestRedirectDropsCredentials(t *testing.T) {
	t.Parallel()
	var got []string
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, "target "+r.Header.Get("Authorization"))
		_, _ = w.Write([]byte("honey"))
	}))
	t.Cleanup(target.Close)
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, "source "+r.Header.Get("Authorization"))
		http.Redirect(w, r, target.URL+"/x", http.StatusFound)
	}))
	t.Cleanup(source.Close)
	api := &Client{API: source.URL + "/api/", Token: "T"}
	index := &Client{Index: strings.Replace(source.URL, "://", "://me:secret@", 1) + "/simple"}
	for name, k := range map[string]struct {
		client *Client
		path   string
		want   []string
	}{
		"API":             {api, "/api/code", []string{"source Bearer T", "target "}},
		"outside the API": {api, "/other", []string{"source ", "target "}},
		"index":           {index, "/packages/x.whl", []string{"source Basic bWU6c2VjcmV0", "target "}},
		"no credentials":  {&Client{}, "/api/code", []string{"source ", "target "}},
	} {
		got = nil
		if text, err := k.client.Text(t.Context(), source.URL+k.path, 10); err != nil || text != "honey" || !slices.Equal(got, k.want) {
			t.Errorf("%s: Text(%s) = %q, %v with credentials %q, want %q with %q", name, k.path, text, err, got, "honey", k.want)
		}
	}
}

// TestDownloadErrorHidesQuery checks that errors do not contain the query of a URL, which may
// be secret.
func TestDownloadErrorHidesQuery(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	address := server.URL + "/engine?token=secret"
	for _, running := range []bool{true, false} {
		if !running {
			server.Close()
		}
		err := (&Client{}).Download(t.Context(), File{URL: address, Sum: sha256Hex("engine"), Path: filepath.Join(t.TempDir(), "engine")})
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "/engine") {
			t.Errorf("server running %t: Download() = %v, want an error with the path and without the query", running, err)
		}
	}
}

// slowHash delays its first write.
type slowHash struct {
	hash.Hash
	delay time.Duration
}

func (s *slowHash) Write(p []byte) (int, error) {
	<-time.After(s.delay)
	s.delay = 0
	return s.Hash.Write(p)
}

// TestSlowPart checks that a download resumes even if reading the part file takes longer than
// the stall timeout.
func TestSlowPart(t *testing.T) {
	t.Parallel()
	const stall, partSize = 200 * time.Millisecond, 2000
	data := strings.Repeat("honey", 1000)
	f := &flakyServer{contents: []string{data}}
	server := httptest.NewServer(f)
	defer server.Close()
	path := filepath.Join(t.TempDir(), "w")
	if err := os.WriteFile(path+PartSuffix, []byte(data[:partSize]), 0o600); err != nil {
		t.Fatal(err)
	}
	var total int64
	err := (&Client{Stall: stall}).Download(t.Context(), File{
		URL: server.URL, Path: path, Sum: sha256Hex(data), Size: int64(len(data)), Progress: func(n int64) { total += n },
		NewHash: func() hash.Hash { return &slowHash{sha256.New(), 3 * stall} },
	})
	if got, readErr := os.ReadFile(path); err != nil || readErr != nil || string(got) != data || requestedRanges(f) != "bytes=2000-" || total != int64(len(data)) {
		t.Errorf("Download() = %v with %d bytes, progress %d and range %s, want %d bytes and range bytes=2000-", err, len(got), total, requestedRanges(f), len(data))
	}
}

// TestSave checks that Save verifies the content, and that it leaves no files if the content
// is wrong or reading it fails.
func TestSave(t *testing.T) {
	t.Parallel()
	const a = "the bees make honey"
	for name, c := range map[string]struct {
		content io.Reader
		size    int64
		want    string // of the error
	}{
		"without size": {strings.NewReader(a), 0, ""},
		"with size":    {strings.NewReader(a), 19, ""},
		"too short":    {strings.NewReader(a[:7]), 19, "received 7 bytes, want 19"},
		"too long":     {strings.NewReader(a + a), 19, "more than 19 bytes"},
		"wrong":        {strings.NewReader("the wasps"), 0, "its SHA-256 is " + sha256Hex("the wasps")},
		"read error":   {io.MultiReader(strings.NewReader(a[:7]), iotest.ErrReader(errors.New("broken"))), 19, "broken"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "x")
		if err := os.WriteFile(path+PartSuffix, []byte("of an earlier download"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Save(c.content, File{Path: path, Sum: sha256Hex(a), Size: c.size, SkipSync: true})
		files, _ := os.ReadDir(dir)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) || (err == nil) != (len(files) == 1) {
			t.Errorf("%s: Save() = %v and leaves %d files, want error %q, and one file without an error", name, err, len(files), c.want)
		}
	}
}
