package models

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
)

// waitForBytes waits until at least n bytes of org/gguf are received.
func (w *fixture) waitForBytes(t *testing.T, n int64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		m, err := w.Get(t.Context(), "org/gguf")
		if err == nil && m.PartialBytes >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("Get() = %+v, %v, want at least %d bytes", m, err, n)
		}
	}
}

// TestCancelWhileVerifying checks that a canceled download returns immediately while it
// computes the checksum of data from an earlier download.
func TestCancelWhileVerifying(t *testing.T) {
	t.Parallel()
	const size, chunk = 64 << 30, 16 << 20 // of a sparse file; reading it takes minutes
	requested := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "bytes=0-0" {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-0/%d", int64(size)))
			w.WriteHeader(http.StatusPartialContent)
			return
		}
		close(requested)
		<-r.Context().Done()
	}))
	defer srv.Close()
	s := &Store{Dir: t.TempDir()}
	model := mustParseRef(t, srv.URL+"/m.gguf#sha256="+strings.Repeat("a", 64))
	r := s.repo(model.LocalRepo())
	if err := r.makeDirs(model.SHA256[:40]); err != nil {
		t.Fatal(err)
	}
	var journal strings.Builder
	fmt.Fprintf(&journal, "rbee-part 1 %d %d %s\n", int64(size), chunk, bootID())
	for i := range size/chunk - 1 {
		fmt.Fprintf(&journal, "%d %d\n", i, chunk)
	}
	if err := os.WriteFile(fetch.JournalPath(r.blob(model.SHA256)), []byte(journal.String()+"mark\nsync\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(fetch.PartPath(r.blob(model.SHA256)))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := s.Download(ctx, model, DownloadOptions{})
		done <- err
	}()
	<-requested
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Download() = %v, want %v", err, context.Canceled)
		}
	case <-time.After(5 * time.Second): // generous, as the machine may be busy
		t.Error("Download() has not returned 5s after it was canceled")
	}
}
