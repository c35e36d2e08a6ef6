package models

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/model"
	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
)

// BenchmarkDownload downloads 512 MiB from a server on loopback, alternately with curl and
// with a store. Only the store verifies the checksum. Both write and flush to the same disk.
// The benchmark needs curl.
func BenchmarkDownload(b *testing.B) {
	if _, err := exec.LookPath("curl"); err != nil {
		b.Skip(err)
	}
	const size = 512 << 20
	dir := b.TempDir()
	if other := os.Getenv("RBEE_BENCH_DIR"); other != "" {
		dir = other
	}
	source := filepath.Join(dir, "source.gguf")
	content := hubtest.Noise(1, size)
	if err := os.WriteFile(source, content, 0o600); err != nil {
		b.Fatal(err)
	}
	defer os.Remove(source)
	sum := hubtest.Sum(content)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, source) }))
	defer srv.Close()
	ref, err := model.ParseRef(srv.URL + "/model.gguf#sha256=" + sum)
	if err != nil {
		b.Fatal(err)
	}
	var curl, store time.Duration
	for b.Loop() {
		file := filepath.Join(dir, "curl.gguf")
		start := time.Now()
		if out, err := exec.Command("sh", "-c", fmt.Sprintf("curl -s -o %s %s/model.gguf && sync %s", file, srv.URL, file)).CombinedOutput(); err != nil {
			b.Fatalf("curl: %v: %s", err, out)
		}
		curl += time.Since(start)
		os.Remove(file)

		cache := filepath.Join(dir, "hub")
		s := &Store{Dir: cache}
		start = time.Now()
		if _, err := s.Download(b.Context(), ref, DownloadOptions{}); err != nil {
			b.Fatal(err)
		}
		store += time.Since(start)
		os.RemoveAll(cache)
	}
	rate := func(d time.Duration) float64 { return float64(size) * float64(b.N) / d.Seconds() / 1e6 }
	b.ReportMetric(rate(curl), "MB/s-curl")
	b.ReportMetric(rate(store), "MB/s-rbee")
	b.ReportMetric(rate(store)/rate(curl), "ratio")
}
