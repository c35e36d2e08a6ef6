package models

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/models/hubtest"
)

// cutOff downloads the usual file of org/gguf as far as the hub sends it, cancels,
// and returns how much is there.
func (w *world) cutOff(t *testing.T, after int64) int64 {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	held := w.Hold(after)
	go func() { <-held; cancel() }()
	if _, err := w.Download(ctx, ref(t, "org/gguf"), DownloadOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.Release()
	return w.arrivedOf(t)
}

// waitFor waits until so much of that file is there.
func (w *world) waitFor(t *testing.T, n int64) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		m, err := w.Get(t.Context(), "org/gguf")
		if err == nil && m.PartialBytes >= n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%+v, %v", m, err)
		}
	}
}

func (w *world) arrivedOf(t *testing.T) int64 {
	t.Helper()
	m, err := w.Get(t.Context(), "org/gguf")
	if err != nil {
		t.Fatal(err)
	}
	return m.PartialBytes
}

// TestOutlastsTheMachine holds that what had arrived when a download was cancelled
// is there after a loss of power, and after one in the middle of the next download.
func TestOutlastsTheMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	had := w.cutOff(t, 500_000)
	journal := w.left(t, "*.rbee-journal")
	if had == 0 || len(journal) != 1 {
		t.Fatalf("%d bytes, %v", had, journal)
	}
	reboot(t, journal[0])
	if now := w.arrivedOf(t); now != had {
		t.Fatalf("%d bytes are left of %d", now, had)
	}
	p := &part{file: hubFile{Size: int64(len(w.Repos["org/gguf"][q4]))}, blob: strings.TrimSuffix(journal[0], ".rbee-journal")}
	if err := p.open(64 << 10); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if err := p.journal.note(p.have.missing()[0], 1); err != nil {
		t.Fatal(err)
	}
	reboot(t, journal[0])
	if now := w.arrivedOf(t); now != had {
		t.Errorf("%d bytes are left of %d while it goes on", now, had)
	}
}

// TestKilledIsBroughtToDisk holds that what a killed download left is brought to
// disk by the next one, even if that brings nothing.
func TestKilledIsBroughtToDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	had := w.cutOff(t, 500_000)
	journal := w.left(t, "*.rbee-journal")[0]
	data, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	unsure := strings.NewReplacer("mark\n", "", "sync\n", "").Replace(string(data))
	if err := os.WriteFile(journal, []byte(unsure), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &part{file: hubFile{Size: int64(len(w.Repos["org/gguf"][q4]))}, blob: strings.TrimSuffix(journal, ".rbee-journal")}
	if err := p.open(64 << 10); err != nil {
		t.Fatal(err)
	}
	p.close()
	reboot(t, journal)
	if now := w.arrivedOf(t); now != had {
		t.Errorf("%d bytes are left of %d", now, had)
	}
}

// TestCancelWhileChecking holds that a cancelled download ends at once while it
// computes the checksum of what an earlier one brought.
func TestCancelWhileChecking(t *testing.T) {
	t.Parallel()
	const size = 64 << 30 // of a file with a hole; minutes of work
	asked := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "bytes=0-0" {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-0/%d", int64(size)))
			w.WriteHeader(http.StatusPartialContent)
			return
		}
		close(asked)
		<-r.Context().Done()
	}))
	defer srv.Close()
	s := &Store{Dir: t.TempDir()}
	model := ref(t, srv.URL+"/m.gguf#sha256="+strings.Repeat("a", 64))
	r := s.repo(model.localRepo())
	if err := r.makeDirs(model.SHA256[:40]); err != nil {
		t.Fatal(err)
	}
	have := newChunks(size, defaultChunk)
	for i := range len(have.done) - 1 {
		have.done[i] = defaultChunk
	}
	j, err := openJournal(journalPath(r.blob(model.SHA256)), have, have)
	if err != nil {
		t.Fatal(err)
	}
	j.close()
	f, err := os.Create(partPath(r.blob(model.SHA256)))
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
	<-asked
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(5 * time.Second): // the machine may be busy
		t.Error("long after it goes on")
	}
}

// TestBroughtToDiskOnTheWay holds that a long download is brought to disk while it
// runs, and that a disk which fails there fails it.
func TestBroughtToDiskOnTheWay(t *testing.T) {
	t.Parallel()
	p := &part{
		hub: &hub{}, file: hubFile{Path: "x", Size: 1000, Etag: strings.Repeat("a", 64)},
		blob: filepath.Join(t.TempDir(), "blob"), moved: func(int64) {},
	}
	if err := p.open(100); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	p.unsynced = syncEvery - 10
	if err := p.take(strings.NewReader("0123456789"), 3, 300, 310); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.awaitSync()
	p.mu.Unlock()
	reboot(t, journalPath(p.blob))
	if n := partial(p.blob, 1000); n != 10 {
		t.Errorf("%d bytes are surely on disk, of 10", n)
	}
	_ = p.f.Close() // so that it cannot be brought to disk
	p.unsynced = syncEvery
	if err := p.note(4, 410, 10); err != nil {
		t.Fatal(err)
	}
	if err := p.verify(t.Context()); err == nil || !strings.Contains(err.Error(), "bringing x to disk") {
		t.Errorf("it goes on: %v", err)
	}
}

// TestSlowDisk holds that neither a cancel nor the end of a download waits long for
// a disk that is slow.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	p := &part{
		hub: &hub{}, file: hubFile{Path: "x", Size: 10, Etag: hubtest.Sum([]byte("0123456789"))},
		blob: filepath.Join(t.TempDir(), "blob"), moved: func(int64) {},
	}
	if err := p.open(10); err != nil {
		t.Fatal(err)
	}
	p.syncing = true // as long as the test says
	if err := p.take(strings.NewReader("0123456789"), 0, 0, 10); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	verified := make(chan error, 1)
	go func() { verified <- p.verify(ctx) }()
	cancel()
	start := time.Now()
	if err := <-verified; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.close()
	if took := time.Since(start); took < syncPatience || took > syncPatience+5*time.Second {
		t.Errorf("it took %s", took)
	}
	p.mu.Lock()
	p.syncing = false
	p.grown.Broadcast()
	p.mu.Unlock()
	for end := time.Now().Add(time.Minute); ; {
		if _, sure, err := readJournal(journalPath(p.blob), 10); err == nil && sure.total() == 10 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is not brought to disk behind the back")
		}
	}
}
