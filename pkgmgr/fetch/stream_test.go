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

// flaky serves contents, one a request, the last one from then on, and ends each
// answer after cut bytes.
type flaky struct {
	contents []string
	tagged   bool // with an ETag
	cut      int  // 0 for never
	asked    []string
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.asked = append(f.asked, r.Header.Get("Range"))
	content := f.contents[min(len(f.asked), len(f.contents))-1]
	if f.tagged {
		w.Header().Set("ETag", fmt.Sprintf("%q", shaOf(content)))
	}
	out := w
	if f.cut > 0 {
		out = &cutWriter{w, f.cut}
	}
	http.ServeContent(out, r, "", time.Time{}, strings.NewReader(content))
}

// cutWriter ends a connection.
type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

// asked are the ranges that were asked for, or a dash if nothing was.
func asked(f *flaky) string {
	if f.asked == nil {
		return "-"
	}
	return strings.Join(f.asked, ",")
}

func shaOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// TestDownloadGoesOn holds that a download which is cut off goes on where it was, and
// never puts two files together.
func TestDownloadGoesOn(t *testing.T) {
	t.Parallel()
	const a, b = "the bees make honey", "the bees make wax.."
	for name, k := range map[string]struct {
		flaky
		sum  string
		size int64
		want string // the content, or words of the error
		asks string // ranges
	}{
		"in pieces":               {flaky{contents: []string{a}, cut: 7}, shaOf(a), 19, a, ",bytes=7-,bytes=14-"},
		"in pieces, with a tag":   {flaky{contents: []string{a}, cut: 7, tagged: true}, "", 0, a, ",bytes=7-,bytes=14-"},
		"nothing to know it by":   {flaky{contents: []string{a}, cut: 7}, "", 0, "unexpected EOF", ","},
		"another one, by its tag": {flaky{contents: []string{a, b}, cut: 10, tagged: true}, "", 0, b, ",bytes=10-,bytes=10-"},
		"another one, by its sum": {flaky{contents: []string{b, a}, cut: 15}, shaOf(a), 0, a, ",bytes=15-,,bytes=15-"},
		"always another one":      {flaky{contents: []string{b}}, shaOf(a), 0, "its SHA-256 is " + shaOf(b), ""},
		"cut again and again":     {flaky{contents: []string{a}, cut: 1}, shaOf(a), 0, "unexpected EOF", ",bytes=1-,bytes=2-,bytes=3-,bytes=4-,bytes=5-,bytes=6-,bytes=7-,bytes=8-,bytes=9-"},
		"more than it should be":  {flaky{contents: []string{a}}, shaOf(a), 18, "more than 18 bytes came", ""},
	} {
		server := httptest.NewServer(&k.flaky)
		path := filepath.Join(t.TempDir(), "x")
		err := atomicfile.WriteFile(path, 0o600, func(f *os.File) error {
			sum, n, err := (&Client{}).DownloadTo(t.Context(), File{URL: server.URL + "/x", Sum: k.sum, Limit: k.size}, f)
			if err == nil && (sum != shaOf(k.want) || n != int64(len(k.want))) {
				t.Errorf("%s: %s, %d bytes", name, sum, n)
			}
			return err
		})
		server.Close()
		got, _ := os.ReadFile(path)
		if asks := strings.Join(k.asked, ","); (string(got) != k.want) == (err == nil) || err != nil && !strings.Contains(err.Error(), k.want) || asks != k.asks {
			t.Errorf("%s: %q, %v, asked for %s", name, got, err, asks)
		}
	}
}

// TestDownloadGoesOnInAnotherRun holds that what has come waits for the next run, that
// what is no beginning is begun anew, and that two runs do not share it.
func TestDownloadGoesOnInAnotherRun(t *testing.T) {
	t.Parallel()
	const a = "the bees make honey"
	for name, k := range map[string]struct{ part, asks string }{
		"nothing":     {"", ""},
		"a beginning": {a[:7], "bytes=7-"},
		"another one": {"the wasps", "bytes=9-,"},
		"too long":    {a + a, ""},
		"all of it":   {a, "-"},
		"busy":        {a[:8], ""},
	} {
		f := &flaky{contents: []string{a}}
		server := httptest.NewServer(f)
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path+".part", []byte(k.part), 0o600); err != nil {
			t.Fatal(err)
		}
		if name == "busy" {
			other, unlock, err := openPart(path + ".part")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			defer unlock()
		}
		err := (&Client{}).Download(t.Context(), File{URL: server.URL + "/x", Sum: shaOf(a), Limit: int64(len(a)), Path: path})
		server.Close()
		_, left := os.Stat(path + ".part")
		if got, _ := os.ReadFile(path); err != nil || string(got) != a || asked(f) != k.asks || (left == nil) != (name == "busy") {
			t.Errorf("%s: %v, %q, asked for %q, the part: %v", name, err, got, f.asked, left)
		}
	}
	// What is cut stays, and what is wrong does not.
	for sum, want := range map[string]string{shaOf(a): a[:1], shaOf("wax"): ""} {
		f := &flaky{contents: []string{a}, cut: 1}
		if want == "" {
			f.cut = 0
		}
		server := httptest.NewServer(f)
		ctx, cancel := context.WithCancel(t.Context())
		path := filepath.Join(t.TempDir(), "x")
		server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(f.asked) > 0 {
				cancel() // the run is ended
			}
			f.ServeHTTP(w, r)
		})
		err := (&Client{}).Download(ctx, File{URL: server.URL + "/x", Sum: sum, Path: path})
		cancel()
		server.Close()
		if got, _ := os.ReadFile(path + ".part"); err == nil || !strings.HasPrefix(string(got), want) || (want == "") != (len(got) == 0) {
			t.Errorf("%v, %q is left", err, got)
		}
	}
}

// TestCredentialsStay holds that a token and a password go where they belong, and
// never along with a redirect to another server.
func TestCredentialsStay(t *testing.T) {
	t.Parallel()
	var got []string
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, "far "+r.Header.Get("Authorization"))
		_, _ = w.Write([]byte("honey"))
	}))
	t.Cleanup(far.Close)
	near := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, "near "+r.Header.Get("Authorization"))
		http.Redirect(w, r, far.URL+"/away", http.StatusFound)
	}))
	t.Cleanup(near.Close)
	api := &Client{API: near.URL + "/api/", Token: "T"}
	index := &Client{Index: strings.Replace(near.URL, "://", "://me:secret@", 1) + "/simple"}
	for _, k := range []struct {
		from *Client
		path string
		want []string
	}{
		{api, "/api/code", []string{"near Bearer T", "far "}},
		{api, "/other", []string{"near ", "far "}},
		{index, "/packages/x.whl", []string{"near Basic bWU6c2VjcmV0", "far "}},
		{&Client{}, "/api/code", []string{"near ", "far "}},
	} {
		got = nil
		if text, err := k.from.Text(t.Context(), near.URL+k.path, 10); err != nil || text != "honey" || !slices.Equal(got, k.want) {
			t.Errorf("%s: %q, %v, %q", k.path, text, err, got)
		}
	}
}

// TestDownloadHidesQueries: a query may be a secret, so no error shows it.
func TestDownloadHidesQueries(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.NotFoundHandler())
	refused := server.URL + "/engine?token=secret"
	for _, live := range []bool{true, false} {
		if !live {
			server.Close()
		}
		err := (&Client{}).Download(t.Context(), File{URL: refused, Sum: shaOf("engine"), Path: filepath.Join(t.TempDir(), "engine")})
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "/engine") {
			t.Errorf("live %t: error %v", live, err)
		}
	}
}

// slowHash takes its time for the first bytes that it sees.
type slowHash struct {
	hash.Hash
	wait time.Duration
}

func (s *slowHash) Write(p []byte) (int, error) {
	time.Sleep(s.wait)
	s.wait = 0
	return s.Hash.Write(p)
}

// TestSlowPart holds that a download is gone on with although it takes the machine
// longer to read what is there than the line may be silent.
func TestSlowPart(t *testing.T) {
	t.Parallel()
	const stall, there = 200 * time.Millisecond, 2000
	data := strings.Repeat("honey", 1000)
	f := &flaky{contents: []string{data}}
	server := httptest.NewServer(f)
	defer server.Close()
	path := filepath.Join(t.TempDir(), "w")
	if err := os.WriteFile(path+PartSuffix, []byte(data[:there]), 0o600); err != nil {
		t.Fatal(err)
	}
	var total int64
	err := (&Client{Stall: stall}).Download(t.Context(), File{
		URL: server.URL, Path: path, Sum: shaOf(data), Size: int64(len(data)), Progress: func(n int64) { total += n },
		NewHash: func() hash.Hash { return &slowHash{sha256.New(), 3 * stall} },
	})
	if got, readErr := os.ReadFile(path); err != nil || readErr != nil || string(got) != data || asked(f) != "bytes=2000-" || total != int64(len(data)) {
		t.Errorf("Download() = %v with %d bytes and progress %d, asked for %s", err, len(got), total, asked(f))
	}
}

// TestSave holds that content of a reader is verified, and that nothing is left of
// content that is wrong or cut off.
func TestSave(t *testing.T) {
	t.Parallel()
	const a = "the bees make honey"
	for name, c := range map[string]struct {
		content io.Reader
		size    int64
		want    string // of the error
	}{
		"good":      {strings.NewReader(a), 0, ""},
		"with size": {strings.NewReader(a), 19, ""},
		"too short": {strings.NewReader(a[:7]), 19, "7 bytes came, want 19"},
		"too long":  {strings.NewReader(a + a), 19, "more than 19 bytes came"},
		"wrong":     {strings.NewReader("the wasps"), 0, "its SHA-256 is " + shaOf("the wasps")},
		"cut":       {io.MultiReader(strings.NewReader(a[:7]), iotest.ErrReader(errors.New("cut"))), 19, "cut"},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "x")
		if err := os.WriteFile(path+PartSuffix, []byte("of an earlier download"), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Save(c.content, File{Path: path, Sum: shaOf(a), Size: c.size, SkipSync: true})
		left, _ := os.ReadDir(dir)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) || (err == nil) != (len(left) == 1) {
			t.Errorf("%s: Save() = %v, want %q; %d files are left", name, err, c.want, len(left))
		}
	}
}
