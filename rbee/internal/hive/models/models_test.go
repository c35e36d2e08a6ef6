package models

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
)

// TestMain runs the tests, or a download in a separate process that a test kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TEST_DOWNLOAD"); dir != "" {
		s := &Store{Dir: dir, Endpoint: os.Getenv("TEST_HUB"), chunk: 64 << 10}
		ref, err := model.ParseRef(os.Getenv("TEST_MODEL"))
		if err == nil {
			_, err = s.Download(context.Background(), ref, DownloadOptions{})
		}
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const q4, q8 = "bee-Q4_K_M.gguf", "bee-Q8_0.gguf"

// fixture is a test hub and a store.
type fixture struct {
	*hubtest.Hub
	*Store
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	w := &fixture{Hub: hubtest.New(map[string]hubtest.Repo{
		"org/gguf": {
			"README.md": []byte("hello"), q4: hubtest.GGUF(1, 2, 2, 64, 4096, 1_000_000), q8: hubtest.GGUF(2, 2, 2, 64, 4096, 300_000),
			"mmproj-bee-f16.gguf": hubtest.GGUF(3, 1, 1, 1, 1, 10),
		},
		"org/shards": {
			"Q4_K_M/bee-Q4_K_M-00001-of-00002.gguf": hubtest.GGUF(4, 2, 2, 64, 4096, 100_000),
			"Q4_K_M/bee-Q4_K_M-00002-of-00002.gguf": hubtest.Noise(5, 200_000),
			"IQ2_XXS/bee-IQ2_XXS.gguf":              hubtest.GGUF(6, 2, 2, 64, 4096, 1000),
		},
		"org/several": {"a-Q5_K_M.gguf": hubtest.GGUF(7, 1, 1, 1, 1, 10), "a-Q6_K.gguf": hubtest.GGUF(8, 1, 1, 1, 1, 10)},
		"org/tensors": {
			"config.json":                      []byte(`{"num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":2,"hidden_size":512,"max_position_embeddings":32768}`),
			"model-00001-of-00002.safetensors": hubtest.Noise(9, 400_000), "model-00002-of-00002.safetensors": hubtest.Noise(10, 400_000),
			"model.safetensors.index.json": []byte(`{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}`),
			"pytorch_model.bin":            hubtest.Noise(11, 1000), "original/weights.pth": []byte("x"), "tokenizer/empty.txt": {},
		},
		"org/gated": {"x.safetensors": hubtest.Noise(12, 100)},
		"org/plain": {"model.onnx": hubtest.Noise(13, 100)},
	})}
	w.Store = &Store{Dir: filepath.Join(t.TempDir(), "hub"), Endpoint: w.URL, chunk: 64 << 10, retryDelay: time.Millisecond, StallTimeout: 5 * time.Second}
	t.Cleanup(w.Close)
	return w
}

func mustParseRef(t testing.TB, s string) model.Ref {
	t.Helper()
	r, err := model.ParseRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (w *fixture) mustDownload(t testing.TB, model string) *operations.ModelDownloadReport {
	t.Helper()
	r, err := w.Download(t.Context(), mustParseRef(t, model), DownloadOptions{})
	if err != nil {
		t.Fatalf("Download(%q) = %v, want nil", model, err)
	}
	return r
}

// checkFiles checks that files in the cache have the content of the hub.
func (w *fixture) checkFiles(t *testing.T, repo string, paths ...string) {
	t.Helper()
	for _, p := range paths {
		got, err := os.ReadFile(filepath.Join(w.repo(repo).snapshot(hubtest.Commit(repo)), p))
		if err != nil || !bytes.Equal(got, w.Repos[repo][p]) {
			t.Errorf("ReadFile(%s of %s) = %d bytes, %v, want the content of the hub (%d bytes)", p, repo, len(got), err, len(w.Repos[repo][p]))
		}
	}
}

// findFiles returns the paths below the cache whose base name matches a pattern.
func (w *fixture) findFiles(t *testing.T, pattern string) []string {
	t.Helper()
	var found []string
	_ = filepath.WalkDir(w.Dir, func(p string, _ os.DirEntry, err error) error {
		if ok, _ := filepath.Match(pattern, filepath.Base(p)); ok && err == nil {
			found = append(found, p)
		}
		return nil
	})
	return found
}

func TestDownload(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.PageSize = 2
	var last Progress
	r, err := w.Download(t.Context(), mustParseRef(t, "org/gguf"), DownloadOptions{Progress: func(p Progress) { last = p }})
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(w.Repos["org/gguf"][q4]))
	if r.Model.ID != "org/gguf:Q4_K_M" || !r.Model.Complete || r.DownloadedBytes != size || r.Model.Bytes != size || last.Bytes != size || last.Total != size {
		t.Errorf("Download() = %+v, last progress = %+v, want %d bytes", r, last, size)
	}
	w.checkFiles(t, "org/gguf", q4)
	if target, err := os.Readlink(r.Model.Path); err != nil || target != "../../blobs/"+hubtest.Sum(w.Repos["org/gguf"][q4]) {
		t.Errorf("Readlink(model path) = %q, %v, want the blob", target, err)
	}
	if data, err := os.ReadFile(w.repo("org/gguf").ref("main")); err != nil || string(data) != hubtest.Commit("org/gguf") {
		t.Errorf("revision main = %q, %v, want %q", data, err, hubtest.Commit("org/gguf"))
	}
	if second := w.mustDownload(t, "org/gguf:q4_k_m"); second.DownloadedBytes != 0 || second.PresentBytes != size {
		t.Errorf("second Download() = %+v, want %d bytes present", second, size)
	}
	if w.Served(q4) != size || w.Served(q8) != 0 {
		t.Errorf("served bytes = %d and %d, want %d and 0", w.Served(q4), w.Served(q8), size)
	}
	if left := append(w.findFiles(t, "*.rbee-*"), w.findFiles(t, ".rbee")...); len(left) > 0 {
		t.Errorf("temporary files after Download() = %v, want none", left)
	}
	w.mustDownload(t, "org/gguf:"+q8)
	list, err := w.List(t.Context())
	if err != nil || len(list) != 2 || list[0].ID != "org/gguf:Q4_K_M" || list[1].ID != "org/gguf:Q8_0" {
		t.Errorf("List() = %+v, %v, want two models", list, err)
	}
}

func TestDownloadReferences(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		model, id string
		files     []string
	}{
		{"org/gguf:Q8_0", "org/gguf:Q8_0", []string{q8}},
		{"org/gguf:bee-q8_0", "org/gguf:Q8_0", []string{q8}},
		{"org/gguf@" + hubtest.Commit("org/gguf"), "org/gguf:Q4_K_M@" + hubtest.Commit("org/gguf")[:12], []string{q4}},
		{"org/gguf:Q8_0@refs/pr/1", "org/gguf:Q8_0@refs/pr/1", []string{q8}},
		{"org/gguf:README.md", "org/gguf", []string{"README.md"}},
		{"org/shards", "org/shards:Q4_K_M", []string{"Q4_K_M/bee-Q4_K_M-00001-of-00002.gguf", "Q4_K_M/bee-Q4_K_M-00002-of-00002.gguf"}},
		{"org/shards:Q4_K_M/bee-Q4_K_M-00002-of-00002.gguf", "org/shards:Q4_K_M", []string{"Q4_K_M/bee-Q4_K_M-00001-of-00002.gguf", "Q4_K_M/bee-Q4_K_M-00002-of-00002.gguf"}},
		{"org/tensors", "org/tensors", []string{"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer/empty.txt"}},
		{"org/plain", "org/plain", []string{"model.onnx"}},
	} {
		t.Run(c.model, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t)
			r := w.mustDownload(t, c.model)
			var got []string
			for _, f := range r.Model.Files {
				got = append(got, f.Path)
			}
			if r.Model.ID != c.id || !slices.Equal(got, c.files) || !r.Model.Complete {
				t.Errorf("Download(%q) = model %s, files %v, complete = %t, want %s, %v, true", c.model, r.Model.ID, got, r.Model.Complete, c.id, c.files)
			}
			w.checkFiles(t, r.Model.Repo, c.files...)
		})
	}
}

func TestDownloadErrors(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.Gated["org/gated"] = "hf_right"
	for _, c := range []struct {
		model string
		token operations.Secret
		code  operations.Code
		want  []string
	}{
		{"org/none", "", operations.CodeFailed, []string{`"org/none"`, "HF_TOKEN"}},
		{"org/none", "hf_x", operations.CodeNotFound, []string{"not found"}},
		{"org/gguf@no-such", "", operations.CodeNotFound, []string{`no revision "no-such"`}},
		{"org/gguf:Q2_K", "", operations.CodeNotFound, []string{"Q4_K_M (976.9 KiB)", "Q8_0 (293.3 KiB)"}},
		{"org/several", "", operations.CodeNotFound, []string{"several quantizations", "Q5_K_M", "Q6_K"}},
		{"org/tensors:x.bin", "", operations.CodeNotFound, []string{"no such file", "config.json"}},
		{"org/gated", "", operations.CodeFailed, []string{"gated", w.URL + "/org/gated", "HF_TOKEN"}},
		{"org/gated", "hf_wrong", operations.CodeFailed, []string{"gated"}},
	} {
		_, err := w.Download(t.Context(), mustParseRef(t, c.model), DownloadOptions{Token: c.token})
		if operations.CodeOf(err) != c.code || c.token != "" && strings.Contains(fmt.Sprintf("%v %+v", err, err), string(c.token)) {
			t.Errorf("Download(%q) = %v, want code %s and no token in the error", c.model, err, c.code)
		}
		for _, want := range c.want {
			if err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("Download(%q) = %q, want %q in it", c.model, err, want)
			}
		}
	}
	if _, err := w.Download(t.Context(), mustParseRef(t, "org/gated"), DownloadOptions{Token: "hf_right"}); err != nil {
		t.Errorf("Download() with the correct token = %v, want nil", err)
	}
	if w.Leaked() {
		t.Error("the token was sent to another host, want it sent only to the hub")
	}
	if list, err := w.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("List() after failed downloads = %+v, %v, want one model", list, err)
	}
}

// TestTransientFaults checks that a download succeeds despite temporary errors.
func TestTransientFaults(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]hubtest.Fault{
		"closed connections":            {CutAfter: 20_000, Cuts: 5},
		"no ranges":                     {IgnoreRange: true},
		"no ranges, closed connections": {IgnoreRange: true, CutAfter: 200_000, Cuts: 3},
		"stalled connections":           {StallAfter: 20_000, Stalls: 3},
		"unavailable":                   {Status: 503, Statuses: 4},
		"too many requests":             {Status: 429, Statuses: 3, RetryAfter: 0},
		"wrong content once":            {Wrong: 1},
		"no size, no ranges":            {NoSize: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t)
			w.StallTimeout, w.ListFailures = 300*time.Millisecond, 2
			w.Fail(q4, f)
			w.mustDownload(t, "org/gguf")
			w.checkFiles(t, "org/gguf", q4)
		})
	}
}

// TestPermanentFaults checks that Download returns a permanent error, and that it keeps
// received data unless the data is known to be wrong.
func TestPermanentFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault hubtest.Fault
		want  string
		keeps bool // received data
	}{
		"wrong content":      {hubtest.Fault{Wrong: -1}, "has the checksum", false},
		"closed connections": {hubtest.Fault{CutAfter: 16_000, Cuts: -1, IgnoreRange: true}, "unexpected EOF", true},
		"unavailable":        {hubtest.Fault{Status: 503, Statuses: -1}, "503", true},
		"missing file":       {hubtest.Fault{Status: 404, Statuses: -1}, "404", true},
		"wrong range":        {hubtest.Fault{ShiftRange: true}, "invalid Content-Range", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t)
			w.Fail(q4, c.fault)
			_, err := w.Download(t.Context(), mustParseRef(t, "org/gguf"), DownloadOptions{})
			if operations.CodeOf(err) != operations.CodeFailed || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), q4) && !strings.Contains(err.Error(), "org/gguf") {
				t.Errorf("Download() = %v, want an error with %q and the model", err, c.want)
			}
			if kept := len(w.findFiles(t, "*.rbee-part")) > 0; kept != c.keeps {
				t.Errorf("received data kept = %t, want %t", kept, c.keeps)
			}
			if m, err := w.Get(t.Context(), "org/gguf"); err != nil || m.Complete {
				t.Errorf("Get() = %+v, %v, want an incomplete model", m, err)
			}
			if _, err := w.Find(t.Context(), mustParseRef(t, "org/gguf")); err == nil {
				t.Error("Find() of an incomplete model = nil, want an error")
			}
			w.Fail(q4, hubtest.Fault{})
			w.mustDownload(t, "org/gguf")
			w.checkFiles(t, "org/gguf", q4)
		})
	}
}

func TestExpiredURL(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.Connections = 2
	held := w.Hold(200_000)
	go func() { <-held; w.Expire(); w.Release() }()
	w.mustDownload(t, "org/gguf")
	w.checkFiles(t, "org/gguf", q4)
}

// TestCancelAndResume checks that a canceled download returns quickly, and that the next
// download transfers only the missing data.
func TestCancelAndResume(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	held, arrived := w.Hold(500_000), make(chan struct{})
	var canceledAt time.Time
	go func() { <-held; <-arrived; canceledAt = time.Now(); cancel() }()
	signalArrived := sync.OnceFunc(func() { close(arrived) })
	_, err := w.Download(ctx, mustParseRef(t, "org/gguf"), DownloadOptions{Progress: func(p Progress) {
		if p.Bytes > 0 { // data that the hub has sent may not have arrived yet
			signalArrived()
		}
	}})
	if !errors.Is(err, context.Canceled) || time.Since(canceledAt) > 2*time.Second {
		t.Fatalf("Download() = %v %s after the cancellation, want %v within 2s", err, time.Since(canceledAt), context.Canceled)
	}
	w.Release()
	m, err := w.Get(t.Context(), "org/gguf")
	if err != nil || m.Complete || m.PartialBytes == 0 || !m.Files[0].Missing || m.ID != "org/gguf:Q4_K_M" {
		t.Fatalf("Get() = %+v, %v, want an incomplete model with some data", m, err)
	}
	before := w.Served(q4)
	r := w.mustDownload(t, "org/gguf")
	w.checkFiles(t, "org/gguf", q4)
	if r.ResumedBytes != m.PartialBytes || r.DownloadedBytes != int64(len(w.Repos["org/gguf"][q4]))-r.ResumedBytes {
		t.Errorf("Download() = %+v, want %d bytes resumed and the rest downloaded", r, m.PartialBytes)
	}
	// Bytes in flight when the connection was closed count as served but never arrived.
	if served := w.Served(q4) - before; served > r.DownloadedBytes+200_000 {
		t.Errorf("served %d bytes for the second download, want at most %d", served, r.DownloadedBytes+200_000)
	}
}

// TestKill checks that a download keeps all recorded data if it is killed at any point.
func TestKill(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var recorded int64
	for _, at := range []int64{50_000, 300_000, 800_000} {
		held := w.Hold(at)
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), "TEST_DOWNLOAD="+w.Dir, "TEST_HUB="+w.URL, "TEST_MODEL=org/gguf")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-held:
		case <-time.After(20 * time.Second):
			t.Fatal("timed out waiting for a request to the hub")
		}
		// Wait until the sent data is received and recorded.
		w.waitForBytes(t, max(recorded+1, at-8*w.chunk))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		w.Release()
		m, err := w.Get(t.Context(), "org/gguf")
		if err != nil || m.PartialBytes < recorded {
			t.Fatalf("Get() = %+v, %v, want at least %d bytes", m, err, recorded)
		}
		recorded = m.PartialBytes
	}
	r := w.mustDownload(t, "org/gguf")
	w.checkFiles(t, "org/gguf", q4)
	if r.ResumedBytes != recorded || recorded == 0 {
		t.Errorf("Download() resumed %d bytes, want %d", r.ResumedBytes, recorded)
	}
}

func TestConcurrentDownloads(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() { w.mustDownload(t, "org/gguf") })
	}
	all.Wait()
	if size := int64(len(w.Repos["org/gguf"][q4])); w.Served(q4) != size {
		t.Errorf("served %d bytes, want %d", w.Served(q4), size)
	}
	// A download that waits for the lock returns when its context ends.
	unlock, err := w.repo("org/gguf").lock(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	_, err = w.Download(ctx, mustParseRef(t, "org/gguf"), DownloadOptions{Progress: func(p Progress) {
		if !strings.Contains(p.File, "waiting") {
			t.Errorf("progress = %+v, want a note that it is waiting", p)
		}
		cancel()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Download() while the repository is locked = %v, want %v", err, context.Canceled)
	}
}

// TestFilesOfHuggingfaceHub checks that the store lists and uses files of huggingface_hub: a
// snapshot of regular files, a snapshot whose blob is missing, and an interrupted download.
func TestFilesOfHuggingfaceHub(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	r := w.repo("org/gguf")
	commit := hubtest.Commit("org/gguf")
	content := w.Repos["org/gguf"][q4]
	if err := r.makeDirs(commit); err != nil {
		t.Fatal(err)
	}
	write := func(path string, data []byte) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write(r.blob(hubtest.Sum(content))+".incomplete", content[:600_000])
	write(r.ref("main"), []byte(commit))
	got := w.mustDownload(t, "org/gguf")
	if got.ResumedBytes != 600_000 || w.Served(q4) != int64(len(content))-600_000 {
		t.Errorf("Download() = %+v, served %d bytes, want 600000 bytes resumed", got, w.Served(q4))
	}
	w.checkFiles(t, "org/gguf", q4)

	plain := w.repo("other/plain")
	write(filepath.Join(plain.snapshot(strings.Repeat("a", 40)), "model.safetensors"), []byte("weights"))
	write(plain.ref("refs/pr/7"), []byte(strings.Repeat("a", 40)))
	dangling := w.repo("other/dangling")
	write(dangling.ref("main"), []byte(strings.Repeat("b", 40)))
	if err := errors.Join(
		os.MkdirAll(dangling.snapshot(strings.Repeat("b", 40)), 0o755),
		os.Symlink("../../blobs/"+strings.Repeat("c", 64), filepath.Join(dangling.snapshot(strings.Repeat("b", 40)), "model.safetensors")),
		os.MkdirAll(filepath.Join(w.Dir, "datasets--a--b"), 0o755), os.MkdirAll(filepath.Join(w.Dir, "spaces--a--b"), 0o755),
		os.WriteFile(filepath.Join(w.Dir, "version.txt"), []byte("1"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	list, err := w.List(t.Context())
	var ids []string
	for _, m := range list {
		ids = append(ids, fmt.Sprintf("%s %t", m.ID, m.Complete))
	}
	if want := []string{"org/gguf:Q4_K_M true", "other/dangling false", "other/plain@refs/pr/7 true"}; err != nil || !slices.Equal(ids, want) {
		t.Errorf("List() = %v, %v, want %v", ids, err, want)
	}
	m, err := w.Find(t.Context(), mustParseRef(t, "other/plain@refs/pr/7"))
	if err != nil || m.Path != plain.snapshot(strings.Repeat("a", 40)) {
		t.Errorf("Find() = %+v, %v, want path %s", m, err, plain.snapshot(strings.Repeat("a", 40)))
	}
	deleted, err := w.Delete(t.Context(), "other/plain@refs/pr/7")
	if err != nil || deleted.FreedBytes != 7 {
		t.Errorf("Delete() = %+v, %v, want 7 bytes freed", deleted, err)
	}
}

// TestModelIDs checks that every method accepts every listed ID.
func TestModelIDs(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	for _, m := range []string{"org/gguf", "org/gguf:Q8_0", "org/gguf:Q8_0@refs/pr/1", "org/shards", "org/shards:IQ2_XXS", "org/tensors", "org/plain", "org/several:Q6_K"} {
		w.mustDownload(t, m)
	}
	list, err := w.List(t.Context())
	if err != nil || len(list) < 7 {
		t.Fatalf("List() = %+v, %v, want at least 7 models", list, err)
	}
	for _, m := range list {
		got, err := w.Get(t.Context(), m.ID)
		if err != nil || got.ID != m.ID {
			t.Errorf("Get(%q) = %+v, %v, want the same ID", m.ID, got, err)
		}
		if found, err := w.Find(t.Context(), mustParseRef(t, m.ID)); err != nil || found.ID != m.ID {
			t.Errorf("Find(%q) = %+v, %v, want the same ID", m.ID, found, err)
		}
		if r := w.mustDownload(t, m.ID); r.Model.ID != m.ID || r.DownloadedBytes != 0 {
			t.Errorf("Download(%q) = %+v, want the same ID and nothing downloaded", m.ID, r)
		}
	}
	for _, m := range list {
		if _, err := w.Delete(t.Context(), m.ID); err != nil {
			t.Errorf("Delete(%q) = %v, want nil", m.ID, err)
		}
	}
	if left, _ := os.ReadDir(w.Dir); len(left) != 1 || left[0].Name() != ".locks" {
		t.Errorf("files after deleting all models = %v, want only .locks", left)
	}
}

func TestDownloadURL(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	content := w.Repos["org/gguf"][q4]
	sum := hubtest.Sum(content)
	address := w.CDN + "/org/gguf/" + q4 + "?key=hush"
	r := w.mustDownload(t, address+"#sha256="+sum)
	if r.Model.ID != "local/bee-Q4_K_M:Q4_K_M" || r.Model.Format != "gguf" || r.DownloadedBytes != int64(len(content)) {
		t.Errorf("Download(URL) = %+v, want %d bytes of local/bee-Q4_K_M:Q4_K_M", r, len(content))
	}
	if got, err := os.ReadFile(r.Model.Path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("ReadFile(model path) = %d bytes, %v, want %d", len(got), err, len(content))
	}
	requests := w.Requests(q4)
	if second := w.mustDownload(t, address+"#sha256="+sum); second.PresentBytes != int64(len(content)) || w.Requests(q4) != requests {
		t.Errorf("second Download(URL) = %+v, %d requests, want %d and no new request", second, w.Requests(q4), requests)
	}
	for _, id := range []string{r.Model.ID, address + "#sha256=" + sum} {
		if m, err := w.Find(t.Context(), mustParseRef(t, id)); err != nil || m.ID != r.Model.ID {
			t.Errorf("Find(%q) = %+v, %v, want %s", id, m, err, r.Model.ID)
		}
	}
	_, err := w.Download(t.Context(), mustParseRef(t, address+"#sha256="+strings.Repeat("0", 64)), DownloadOptions{})
	if operations.CodeOf(err) != operations.CodeFailed || !strings.Contains(err.Error(), "checksum") || strings.Contains(err.Error(), "hush") {
		t.Errorf("Download(URL) with a wrong checksum = %v, want a checksum error without the query", err)
	}
	if _, err := w.Download(t.Context(), mustParseRef(t, w.CDN+"/org/gguf/none.gguf#sha256="+sum), DownloadOptions{}); operations.CodeOf(err) != operations.CodeNotFound {
		t.Errorf("Download(missing URL) = %v, want code %s", err, operations.CodeNotFound)
	}

	path := filepath.Join(t.TempDir(), "my model.gguf")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	local := w.mustDownload(t, "file:"+path)
	if local.Model.ID != "local/my-model:my model.gguf" {
		t.Errorf("Download(file) = %+v, want ID local/my-model:my model.gguf", local)
	}
	if got, err := os.ReadFile(local.Model.Path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("ReadFile(model path) = %d bytes, %v, want %d", len(got), err, len(content))
	}
	if _, err := w.Download(t.Context(), mustParseRef(t, "file:"+path+"#sha256="+strings.Repeat("0", 64)), DownloadOptions{}); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("Download(file) with a wrong checksum = %v, want a checksum error", err)
	}
	if _, err := w.Download(t.Context(), mustParseRef(t, "file:/no/such/file.gguf"), DownloadOptions{}); operations.CodeOf(err) != operations.CodeNotFound {
		t.Errorf("Download(missing file) = %v, want code %s", err, operations.CodeNotFound)
	}
}

// TestMaliciousFileNames checks that a hub cannot write outside of the cache with a file name.
func TestMaliciousFileNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", "a\\..\\evil.gguf"} {
		w := newFixture(t)
		w.Repos["org/evil"] = hubtest.Repo{name: []byte("x")}
		_, err := w.Download(t.Context(), mustParseRef(t, "org/evil"), DownloadOptions{})
		if operations.CodeOf(err) != operations.CodeFailed || !strings.Contains(err.Error(), "invalid file") {
			t.Errorf("Download() of a repository with file %q = %v, want an error", name, err)
		}
	}
}

func TestDiskSpace(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	d := &download{s: w.Store, ref: mustParseRef(t, "org/gguf"), repo: w.repo("org/gguf"), hub: w.Store.hub(w.URL, "")}
	if err := d.resolve(t.Context()); err != nil {
		t.Fatal(err)
	}
	huge := model.File{Path: "x.gguf", Size: 1 << 60, Etag: strings.Repeat("a", 64)}
	if err := d.checkSpace([]model.File{huge}); operations.CodeOf(err) != operations.CodeFailed || !strings.Contains(err.Error(), "free at "+w.Dir) {
		t.Errorf("checkSpace(%d bytes) = %v, want an error with the free space", huge.Size, err)
	}
	for path, want := range map[string]bool{w.Dir: true, t.TempDir() + "/not/there": true, "\x00": false} {
		if n, known := diskFree(path); known != want || known != (n > 0) {
			t.Errorf("diskFree(%q) = %d, %t, want known = %t", path, n, known, want)
		}
	}
}

func TestDefaultDirAndToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("hf_file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		env        map[string]string
		dir, token string
	}{
		{map[string]string{"HOME": "/h"}, "/h/.cache/huggingface/hub", ""},
		{map[string]string{"HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub", ""},
		{map[string]string{"HOME": "/h", "XDG_CACHE_HOME": "/x", "HF_HOME": "/f"}, "/f/hub", ""},
		{map[string]string{"HF_HOME": filepath.Dir(file)}, filepath.Dir(file) + "/hub", "hf_file"},
		{map[string]string{"HF_HUB_CACHE": "/c", "HF_HOME": "/f", "HF_TOKEN_PATH": file}, "/c", "hf_file"},
		{map[string]string{"HF_HUB_CACHE": "/c", "HF_TOKEN": " hf_env ", "HF_TOKEN_PATH": file}, "/c", "hf_env"},
		{map[string]string{}, "", ""},
	} {
		env := func(name string) string { return c.env[name] }
		dir, err := DefaultDir(env)
		if dir != c.dir || (err == nil) != (c.dir != "") || string(DefaultToken(env)) != c.token {
			t.Errorf("with %v: DefaultDir() = %q, %v, DefaultToken() = %q, want %q, %q", c.env, dir, err, string(DefaultToken(env)), c.dir, c.token)
		}
	}
}
